"""The request budget of a location, shared by every process through one row in PostgreSQL.

GHL allows a location 100 requests in any 10 seconds and 200,000 a day. Libraries that promise such a limit over several
processes were measured to break it (docs/decisions/0005-own-throttle.md), hence own code: the row holds the times of
the last slots on the *database* clock, and one `UPDATE ... RETURNING` reserves the next ones. The slot N after a slot
lies at least one window later, so no sliding window can hold more than N, whoever asks.

Three limits hold at once, and none of them is forgotten when a process starts or ends:

- what the process asks for: stated with every reservation;
- what GHL's headers said last: kept in the row until they say something else;
- the lowest that any process asked for: kept in the row until one window after the last slot given under it, so that of
  two processes that ask for different limits the lower one wins as long as both are about.

A slot is a promise about time, so a slot that could not be used when it was due is thrown away. How much too late is
too late is the guard: windows are kept 1.5 % longer than GHL's, and that is the jitter a slot may have.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import asdict, dataclass
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
# Beyond these a header is no limit that GHL would set; what is learned outlives the process, so it has to make sense.
LARGEST_LIMIT = 100_000
LONGEST_INTERVAL_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process asks for: `max_requests` in any `interval_seconds`, and `max_per_day` in a UTC day."""

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


@dataclass(frozen=True, slots=True)
class _Learned:
    max_requests: int
    interval_seconds: float


class LocationThrottle:
    """One location's budget as this process sees it. Used from one event loop."""

    def __init__(self, engine: Engine, location_id: str, limits: Limits) -> None:
        self._engine = engine
        self._location_id = location_id
        self._limits = limits
        self._learned: _Learned | None = None  # as the row had it at the last lease
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
        interval = self._learned.interval_seconds if self._learned else self._limits.interval_seconds
        pause = interval if pause_seconds is None else pause_seconds
        self._epoch = await asyncio.to_thread(_block, self._engine, self._location_id, pause)
        log.warning("location %s: rate refused (429), all requests pause for %.1f s", self._location_id, pause)

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Remembers what GHL's headers say, for every process, now and later: the lower of it and ours holds."""
        learned = _Learned(max_requests, interval_seconds)
        sensible = 1 <= max_requests <= LARGEST_LIMIT and 0 < interval_seconds <= LONGEST_INTERVAL_SECONDS
        if not sensible or learned == self._learned:
            return
        self._learned = learned
        self._slots.clear()
        await self._register_once()
        epoch = await asyncio.to_thread(_learn, self._engine, self._location_id, learned)
        if epoch is None:
            return
        self._epoch = epoch
        log.info(
            "location %s: GHL allows %d requests per %.1f s, ours are %d per %.1f s; the lower holds",
            self._location_id, max_requests, interval_seconds, self._limits.max_requests, self._limits.interval_seconds,
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
        too_late = time.monotonic() - slot.due > self._shortest_window() * GUARD
        return slot.epoch == self._epoch and not too_late

    def _shortest_window(self) -> float:
        ours = self._limits.interval_seconds
        return min(ours, self._learned.interval_seconds) if self._learned else ours

    async def _lease(self, facts: CallFacts) -> None:
        await self._register_once()
        count = max(1, min(LEASE, self._waiting))
        leased = await asyncio.to_thread(_reserve, self._engine, self._location_id, count, self._limits)
        if leased is None:
            raise DailyQuotaReached(facts, resets_at=quota_resets_at(datetime.now(UTC)))
        # The answer's time on our clock stands for `now`: too late by the way back, never too early.
        answered = time.monotonic()
        self._epoch = leased.epoch
        self._learned = leased.learned
        self._slots.extend(_Slot(answered + (at - leased.now), leased.epoch) for at in leased.slots)

    async def _register_once(self) -> None:
        if not self._registered:
            await asyncio.to_thread(_register, self._engine, self._location_id, self._limits)
            self._registered = True


@dataclass(frozen=True, slots=True)
class _Lease:
    slots: list[float]  # epoch seconds on the database clock
    now: float
    epoch: int
    learned: _Learned | None


# A row that is there stays as it is: what was learned and given out counts for whoever comes.
_REGISTER = text("""
    INSERT INTO location_throttle
        (location_id, asked_max_requests, asked_interval_seconds, day, max_per_day)
    VALUES
        (:location_id, :max_requests, :interval_seconds, (clock_timestamp() AT TIME ZONE 'UTC')::date, :max_per_day)
    ON CONFLICT (location_id) DO NOTHING
""")

# Slot i is due one window after slot i-N, for each of the limits, and never before the one before it, the end of a
# block, or now. The clock is read inside the row's own subquery, so that it is read again when the statement had to
# wait for another process. LEAST and GREATEST pass over nulls: nothing learned is no limit.
_RESERVE = text("""
    UPDATE location_throttle AS t SET
        (slots, leased, asked_max_requests, asked_interval_seconds, asked_until, day, used_today, max_per_day) = (
            SELECT
                memory.slots[lease.size + 1 :] || given.slots,
                lease.size,
                CASE WHEN asked.is_ours THEN :max_requests ELSE t.asked_max_requests END,
                CASE WHEN asked.is_ours THEN :interval_seconds ELSE t.asked_interval_seconds END,
                CASE WHEN asked.is_ours
                     THEN GREATEST(t.asked_until, given.slots[lease.size] + :interval_seconds * :window)
                     ELSE t.asked_until END,
                clock.day,
                clock.used_today + lease.size,
                :max_per_day
            FROM (
                SELECT extract(epoch FROM at)::double precision AS now,
                       (at AT TIME ZONE 'UTC')::date AS day,
                       CASE WHEN t.day = (at AT TIME ZONE 'UTC')::date THEN t.used_today ELSE 0 END AS used_today
                FROM (SELECT clock_timestamp() AS at) AS reading
            ) AS clock
            -- In GHL's window as many as GHL allows, but not more than our share of it.
            CROSS JOIN LATERAL (
                SELECT LEAST(t.learned_max_requests,
                             GREATEST(1, floor(:max_requests * seconds / :interval_seconds)::integer)) AS max_requests,
                       seconds AS interval_seconds
                FROM (SELECT COALESCE(t.learned_interval_seconds, :interval_seconds) AS seconds) AS theirs
            ) AS ghl
            -- The memory only grows. What it has forgotten is at least as old as its oldest slot, so it is padded with
            -- that one: nothing given out becomes free again, whatever the limits were in between.
            CROSS JOIN LATERAL (
                SELECT array_fill(COALESCE(t.slots[1], 0), ARRAY[GREATEST(0, size - cardinality(t.slots))])
                           || t.slots AS slots,
                       GREATEST(size, cardinality(t.slots)) AS size
                FROM (SELECT GREATEST(:max_requests, ghl.max_requests) AS size) AS needed
            ) AS memory
            -- What is left of the day; and no slot may depend on another one of the same lease.
            CROSS JOIN LATERAL (
                SELECT LEAST(:count, :max_requests, ghl.max_requests, t.asked_max_requests,
                             :max_per_day - clock.used_today) AS size
            ) AS lease
            CROSS JOIN LATERAL (
                SELECT array_agg(
                    GREATEST(
                        clock.now,
                        t.blocked_until,
                        memory.slots[memory.size],
                        memory.slots[memory.size - :max_requests + nth] + :interval_seconds * :window,
                        memory.slots[memory.size - ghl.max_requests + nth] + ghl.interval_seconds * :window,
                        LEAST(t.asked_until, memory.slots[memory.size - t.asked_max_requests + nth]
                                                 + t.asked_interval_seconds * :window)
                    ) ORDER BY nth) AS slots
                FROM generate_series(1, lease.size) AS nth
            ) AS given
            -- Ours is the lowest that is asked for when it is the lower one, or when nobody's lower one holds any more.
            CROSS JOIN LATERAL (
                SELECT given.slots[lease.size] >= t.asked_until
                    OR :max_requests / :interval_seconds <= t.asked_max_requests / t.asked_interval_seconds AS is_ours
            ) AS asked
        )
    WHERE t.location_id = :location_id
      AND :max_per_day > CASE WHEN t.day = (clock_timestamp() AT TIME ZONE 'UTC')::date THEN t.used_today ELSE 0 END
    RETURNING t.slots[cardinality(t.slots) - t.leased + 1 :], extract(epoch FROM clock_timestamp())::double precision,
        t.epoch, t.learned_max_requests, t.learned_interval_seconds
""")

# Slots that were leased under a higher limit are void, in every process, as after a 429.
_LEARN = text("""
    UPDATE location_throttle
    SET learned_max_requests = :max_requests,
        learned_interval_seconds = :interval_seconds,
        learned_at = clock_timestamp(),
        epoch = epoch + CASE WHEN :max_requests / :interval_seconds
                                  < LEAST(asked_max_requests / asked_interval_seconds,
                                          learned_max_requests / learned_interval_seconds)
                             THEN 1 ELSE 0 END
    WHERE location_id = :location_id
      AND (learned_max_requests, learned_interval_seconds) IS DISTINCT FROM (:max_requests, :interval_seconds)
    RETURNING epoch
""")

_BLOCK = text("""
    UPDATE location_throttle
    SET epoch = epoch + 1,
        blocked_until = GREATEST(blocked_until, extract(epoch FROM clock_timestamp())::double precision + :pause)
    WHERE location_id = :location_id
    RETURNING epoch
""")


def _numbers(limits: Limits | _Learned) -> dict[str, int | float]:
    """The limits as parameters; a whole number of seconds, too, is divided as a fraction."""
    return asdict(limits) | {"interval_seconds": float(limits.interval_seconds)}


def _register(engine: Engine, location_id: str, limits: Limits) -> None:
    with engine.begin() as connection:
        connection.execute(_REGISTER, {"location_id": location_id, **_numbers(limits)})


def _reserve(engine: Engine, location_id: str, count: int, limits: Limits) -> _Lease | None:
    """Reserves `count` slots, or what is left of the day; None when nothing is."""
    values = {"location_id": location_id, "count": count, "window": 1 + GUARD, **_numbers(limits)}
    with engine.begin() as connection:
        row = connection.execute(_RESERVE, values).one_or_none()
    if row is None:
        return None
    learned = None if row[3] is None else _Learned(max_requests=row[3], interval_seconds=row[4])
    return _Lease(slots=list(row[0]), now=row[1], epoch=row[2], learned=learned)


def _learn(engine: Engine, location_id: str, learned: _Learned) -> int | None:
    """The epoch from now on; None when the row had it already."""
    with engine.begin() as connection:
        return connection.execute(_LEARN, {"location_id": location_id, **_numbers(learned)}).scalar_one_or_none()


def _block(engine: Engine, location_id: str, pause_seconds: float) -> int:
    with engine.begin() as connection:
        return int(connection.execute(_BLOCK, {"location_id": location_id, "pause": pause_seconds}).scalar_one())


def _current_epoch(engine: Engine, location_id: str) -> int:
    query = text("SELECT epoch FROM location_throttle WHERE location_id = :location_id")
    with engine.connect() as connection:
        return int(connection.execute(query, {"location_id": location_id}).scalar_one())
