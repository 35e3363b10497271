"""The request budget of a location, shared by every process through one row in PostgreSQL.

GHL allows a location 100 requests in any 10 seconds and 200,000 a day. Libraries that promise such a limit over several
processes were measured to break it (docs/decisions/0005-own-throttle.md), hence own code: the row holds the times of
the last N slots on the *database* clock, and one `UPDATE ... RETURNING` reserves the next ones. The slot N after a slot
lies at least one window later, so no sliding window can hold more than N, whoever asks.

A slot is a promise about time, so a slot that could not be used when it was due is thrown away. How much too late is
too late is the guard: windows are kept 1.5 % longer than GHL's, and that is the jitter a slot may have.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine, text

from ghl_pipeline.ghl.errors import CallFacts, DailyQuotaReached

log = logging.getLogger(__name__)

GUARD = 0.015
# More slots in one lease mean fewer UPDATEs, but also more slots lost when the process stalls.
LEASE = 5
# Waiting longer than this, a process asks once more whether a 429 has made its slots void meanwhile.
RECHECK_AFTER_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """What a location may do: `max_requests` in any `interval_seconds`, and `max_per_day` in a UTC day."""

    max_requests: int
    interval_seconds: float
    max_per_day: int


def quota_resets_at(now: datetime) -> datetime:
    """When the day of the quota ends: the next midnight, UTC."""
    return (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


class Throttle(Protocol):
    """What the client needs of a throttle."""

    async def acquire(self, facts: CallFacts) -> float:
        """Waits until one request may be sent; returns the seconds waited. Raises DailyQuotaReached."""

    async def refused(self, pause_seconds: float | None) -> None:
        """Tells that GHL answered 429, so that everybody pauses (None: for one interval)."""

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Tells what GHL's headers say the limit is."""


@dataclass(frozen=True, slots=True)
class _Slot:
    due: float  # time.monotonic()
    epoch: int


class LocationThrottle:
    """One location's budget as this process sees it. Used from one event loop."""

    def __init__(self, engine: Engine, location_id: str, limits: Limits) -> None:
        self._engine = engine
        self._location_id = location_id
        self._asked_for = limits
        self._limits = limits
        self._slots: deque[_Slot] = deque()
        self._epoch = 0
        self._waiting = 0
        self._reserving = asyncio.Lock()
        self._registered = False

    async def acquire(self, facts: CallFacts) -> float:
        """Waits for a slot of the location and takes it.

        Args:
            facts: the call it is for; named by the error.

        Returns:
            Seconds waited.

        Raises:
            DailyQuotaReached: the day's requests are used up.
        """
        started = time.monotonic()
        self._waiting += 1
        try:
            while not await self._take_one(facts):
                pass
        finally:
            self._waiting -= 1
        return time.monotonic() - started

    async def refused(self, pause_seconds: float | None) -> None:
        """GHL answered 429: makes all leased slots void, in every process, and blocks the location for a while."""
        self._slots.clear()
        pause = self._limits.interval_seconds if pause_seconds is None else pause_seconds
        self._epoch = await asyncio.to_thread(_block, self._engine, self._location_id, pause)
        log.warning("location %s: rate refused (429), all requests pause for %.1f s", self._location_id, pause)

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Obeys a limit that GHL's headers show to be other than ours: lower ones at once, higher ones up to ours."""
        allowed = max(1, int(self._asked_for.max_requests * interval_seconds / self._asked_for.interval_seconds))
        learned = Limits(min(max_requests, allowed), interval_seconds, self._asked_for.max_per_day)
        if max_requests < 1 or interval_seconds <= 0 or learned == self._limits:
            return
        self._limits = learned
        self._slots.clear()
        await asyncio.to_thread(_register, self._engine, self._location_id, learned)
        log.info(
            "location %s: GHL allows %d requests per %.1f s, keeping to %d",
            self._location_id, max_requests, interval_seconds, learned.max_requests,
        )  # fmt: skip

    async def _take_one(self, facts: CallFacts) -> bool:
        """Takes the next slot and waits for it. False when it turned out void, so that the caller tries again."""
        async with self._reserving:
            if not self._slots:
                await self._lease(facts)
            slot = self._slots.popleft()
        wait = slot.due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        if wait > RECHECK_AFTER_SECONDS:
            self._epoch = await asyncio.to_thread(_current_epoch, self._engine, self._location_id)
        too_late = time.monotonic() - slot.due > self._limits.interval_seconds * GUARD
        return slot.epoch == self._epoch and not too_late

    async def _lease(self, facts: CallFacts) -> None:
        if not self._registered:
            await asyncio.to_thread(_register, self._engine, self._location_id, self._limits)
            self._registered = True
        count = max(1, min(LEASE, self._waiting, self._limits.max_requests))
        leased = await asyncio.to_thread(_reserve, self._engine, self._location_id, count)
        if leased is None:
            raise DailyQuotaReached(facts, resets_at=quota_resets_at(datetime.now(UTC)))
        # The answer's time on our clock stands for `now`: too late by the way back, never too early.
        answered = time.monotonic()
        self._epoch = leased.epoch
        self._slots.extend(_Slot(answered + (at - leased.now), leased.epoch) for at in leased.slots)


@dataclass(frozen=True, slots=True)
class _Lease:
    slots: list[float]  # epoch seconds on the database clock
    now: float
    epoch: int


_REGISTER = text("""
    INSERT INTO location_throttle AS t
        (location_id, slots, max_requests, interval_seconds, day, max_per_day)
    VALUES
        (:location_id, array_fill(0::double precision, ARRAY[:max_requests]), :max_requests, :interval_seconds,
         (clock_timestamp() AT TIME ZONE 'UTC')::date, :max_per_day)
    ON CONFLICT (location_id) DO UPDATE SET
        -- A longer memory is padded with slots of long ago; a shorter one forgets the oldest.
        slots = CASE
            WHEN cardinality(t.slots) < excluded.max_requests
            THEN array_fill(0::double precision, ARRAY[excluded.max_requests - cardinality(t.slots)]) || t.slots
            ELSE t.slots[cardinality(t.slots) - excluded.max_requests + 1:]
        END,
        max_requests = excluded.max_requests,
        interval_seconds = excluded.interval_seconds,
        max_per_day = excluded.max_per_day
    WHERE (t.max_requests, t.interval_seconds, t.max_per_day)
        IS DISTINCT FROM (excluded.max_requests, excluded.interval_seconds, excluded.max_per_day)
""")

# Slot i is due one window after slot i-N, and never before the one before it, the end of a block, or now. The clock is
# read inside the row's own subquery, so that it is read again when the statement had to wait for another process.
_RESERVE = text("""
    UPDATE location_throttle AS t SET
        slots = (
            SELECT t.slots[:count + 1 :] || array_agg(
                GREATEST(
                    extract(epoch FROM clock_timestamp())::double precision,
                    t.blocked_until,
                    t.slots[cardinality(t.slots)],
                    oldest.at + t.interval_seconds * :window
                ) ORDER BY oldest.nth)
            FROM unnest(t.slots[1 : :count]) WITH ORDINALITY AS oldest (at, nth)
        ),
        used_today = :count + CASE WHEN t.day = (clock_timestamp() AT TIME ZONE 'UTC')::date
                                   THEN t.used_today ELSE 0 END,
        day = (clock_timestamp() AT TIME ZONE 'UTC')::date
    WHERE t.location_id = :location_id
      AND (t.day <> (clock_timestamp() AT TIME ZONE 'UTC')::date OR t.used_today + :count <= t.max_per_day)
    RETURNING t.slots[cardinality(t.slots) - :count + 1 :], extract(epoch FROM clock_timestamp())::double precision, t.epoch
""")  # noqa: E501 - one line of SQL

_BLOCK = text("""
    UPDATE location_throttle
    SET epoch = epoch + 1,
        blocked_until = GREATEST(blocked_until, extract(epoch FROM clock_timestamp())::double precision + :pause)
    WHERE location_id = :location_id
    RETURNING epoch
""")


def _register(engine: Engine, location_id: str, limits: Limits) -> None:
    values = {
        "location_id": location_id,
        "max_requests": limits.max_requests,
        "interval_seconds": limits.interval_seconds,
        "max_per_day": limits.max_per_day,
    }
    with engine.begin() as connection:
        connection.execute(_REGISTER, values)


def _reserve(engine: Engine, location_id: str, count: int) -> _Lease | None:
    """Reserves `count` slots; None when the day has not that many left."""
    values = {"location_id": location_id, "count": count, "window": 1 + GUARD}
    with engine.begin() as connection:
        row = connection.execute(_RESERVE, values).one_or_none()
    return None if row is None else _Lease(slots=list(row[0]), now=row[1], epoch=row[2])


def _block(engine: Engine, location_id: str, pause_seconds: float) -> int:
    with engine.begin() as connection:
        return int(connection.execute(_BLOCK, {"location_id": location_id, "pause": pause_seconds}).scalar_one())


def _current_epoch(engine: Engine, location_id: str) -> int:
    query = text("SELECT epoch FROM location_throttle WHERE location_id = :location_id")
    with engine.connect() as connection:
        return int(connection.execute(query, {"location_id": location_id}).scalar_one())
