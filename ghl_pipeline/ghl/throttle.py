"""The request budget of a location, shared by every process through one row in PostgreSQL.

GHL allows a location 100 requests in any 10 seconds and 200,000 a day. Libraries that promise such a limit over several
processes were measured to break it (docs/decisions/0005-own-throttle.md), hence own code: the row holds the times of
the last slots on the *database* clock, and one `UPDATE ... RETURNING` reserves the next ones, see `throttle_row.py`.
Here is how a process uses them: one of its waiters at a time waits for the next slot, the others wait for it.

A slot is a promise about time, so a slot that could not be used when it was due is given back, and one whose request
left later than that is moved. A process that is late again and again moves its slot first, where that harms nobody. How
much too late is too late is the guard: windows are kept 1.5 % longer than GHL's, which is the jitter a slot may have.
"""

import asyncio
import logging
import time
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine

from ghl_pipeline.ghl import throttle_row as row
from ghl_pipeline.ghl.errors import CallFacts, DailyQuotaReached
from ghl_pipeline.ghl.throttle_row import GUARD, RECHECK_AFTER_SECONDS, Learned, Limits

__all__ = ["Limits", "LocationThrottle", "Throttle", "quota_resets_at"]

log = logging.getLogger(__name__)

# More slots in one lease mean fewer UPDATEs, but also more slots lost when the process stalls.
LEASE = 5
# Beyond these a header is no limit that GHL would set; what is learned outlives the process, so it has to make sense.
LARGEST_LIMIT = 100_000
LONGEST_INTERVAL_SECONDS = 86_400.0


def quota_resets_at(now: datetime) -> datetime:
    """When the day of the quota ends: the next midnight, UTC."""
    return (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


class Throttle(Protocol):
    """What the client needs of a throttle."""

    async def acquire(self, facts: CallFacts) -> float:
        """Waits until one request may be sent; returns the seconds waited. Raises DailyQuotaReached."""

    async def sent(self, at: float) -> None:
        """Tells when the request of the slot that this task took last has left, on `time.monotonic()`."""

    async def refused(self, pause_seconds: float | None) -> None:
        """Tells that GHL answered 429, so that everybody pauses (None: for one interval)."""

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Tells what GHL's headers say the limit is."""


@dataclass(frozen=True, slots=True)
class _Slot:
    due: float  # time.monotonic(), at the latest
    epoch: int
    at: float  # the same moment in the row
    due_at_the_earliest: float


# The slot that a task took last.
_taken: ContextVar[_Slot | None] = ContextVar("taken", default=None)


class LocationThrottle:
    """One location's budget as this process sees it. Used from one event loop.

    Interactive work (one lead, a webhook) has slots that no backfill takes; it asks for them with `interactive`.
    """

    def __init__(self, engine: Engine, location_id: str, limits: Limits, *, interactive: bool = False) -> None:
        self._engine = engine
        self._location_id = location_id
        self._limits = limits
        self._interactive = interactive
        self._learned: Learned | None = None  # as the row had it at the last lease
        self._slots: deque[_Slot] = deque()
        self._epoch = 0
        self._epoch_known_at = 0.0  # time.monotonic()
        self._waiting = 0
        self._lease_size = LEASE
        self._was_late = False  # the slot before
        self._turn = asyncio.Lock()
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
            # One at a time, so that no more than a lease is ever promised ahead, however many wait.
            async with self._turn:
                while not await self._take_next(facts):
                    pass
        finally:
            self._waiting -= 1
        return time.monotonic() - started

    async def sent(self, at: float) -> None:
        """The request of the slot taken last left at `at`, on `time.monotonic()`.

        If that was late (a connection had to be made, a busy process), the slot is moved in the row, so that the one a
        window later comes later too.
        """
        slot = _taken.get()
        if slot is not None and (late := at - slot.due_at_the_earliest) > self._lateness_allowed():
            await asyncio.to_thread(row.move, self._engine, self._location_id, slot.at, slot.at + late)

    async def refused(self, pause_seconds: float | None) -> None:
        """GHL answered 429: makes all leased slots void, in every process, and blocks the location for a while."""
        self._slots.clear()
        interval = self._learned.interval_seconds if self._learned else self._limits.interval_seconds
        pause = interval if pause_seconds is None else pause_seconds
        self._heard_of(await asyncio.to_thread(row.block, self._engine, self._location_id, pause))
        log.warning("location %s: rate refused (429), all requests pause for %.1f s", self._location_id, pause)

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Remembers what GHL's headers say, for every process, now and later: the lower of it and ours holds."""
        learned = Learned(max_requests, interval_seconds)
        sensible = 1 <= max_requests <= LARGEST_LIMIT and 0 < interval_seconds <= LONGEST_INTERVAL_SECONDS
        if not sensible or learned == self._learned:
            return
        self._learned = learned
        await self._register_once()
        epoch = await asyncio.to_thread(row.learn, self._engine, self._location_id, learned)
        if epoch is None:
            return
        self._heard_of(epoch)
        log.info(
            "location %s: GHL allows %d requests per %.1f s, ours are %d per %.1f s; the lower holds",
            self._location_id, max_requests, interval_seconds, self._limits.max_requests, self._limits.interval_seconds,
        )  # fmt: skip

    async def _take_next(self, facts: CallFacts) -> bool:
        """Waits for the next slot and takes it. False when it turned out void, so that the caller tries again."""
        if not self._slots:
            await self._lease(facts)
        slot = self._slots[0]
        if (wait := slot.due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if time.monotonic() - self._epoch_known_at > RECHECK_AFTER_SECONDS:
            await self._recheck_epoch()
        if not self._slots or self._slots[0] is not slot:
            return False  # a refusal has cleared them
        self._slots.popleft()
        if slot.epoch != self._epoch:
            return False  # void; another one may have been promised for the same moment, so it is not given back
        if time.monotonic() - slot.due > self._lateness_allowed():
            self._lease_size = 1  # a process that is this busy wastes what it is promised ahead
            used = await self._use_late(slot) if self._was_late else None
            self._was_late = True
            if used is None:
                await asyncio.to_thread(row.move, self._engine, self._location_id, slot.at, None)
                return False
            slot = used
        else:
            self._was_late = False
        _taken.set(slot)
        return True

    async def _use_late(self, slot: _Slot) -> _Slot | None:
        """The missed slot as one of now, if that harms nobody.

        On a machine with more to do than it can, every slot comes too late, also the next one. Only given back, they
        were asked for without end: 1,000 locations on two cores made 320 reservations a second for one request.
        """
        late = await asyncio.to_thread(
            row.use_late, self._engine, self._location_id, slot.at, slot.epoch, self._limits.max_requests
        )
        return None if late is None else _Slot(late.answered_at, late.epoch, late.slots[0], late.asked_at)

    def _lateness_allowed(self) -> float:
        window = self._limits.interval_seconds
        if self._learned:
            window = min(window, self._learned.interval_seconds)
        return min(window * GUARD, RECHECK_AFTER_SECONDS)

    async def _lease(self, facts: CallFacts) -> None:
        await self._register_once()
        count = max(1, min(self._lease_size, self._waiting))
        self._lease_size = min(LEASE, self._lease_size + 1)
        asked = time.monotonic()
        leased = await asyncio.to_thread(
            row.reserve, self._engine, self._location_id, count, self._limits, is_interactive=self._interactive
        )
        if leased is None:
            raise DailyQuotaReached(facts, resets_at=quota_resets_at(datetime.now(UTC)))
        self._heard_of(leased.epoch)
        self._epoch_known_at = asked
        self._learned = leased.learned
        # The answer's time on our clock stands for `now`: too late by the way back, never too early. It was taken in
        # the thread, so that a busy event loop counts as lateness.
        self._slots.extend(
            _Slot(leased.answered_at + ahead, leased.epoch, at, leased.asked_at + ahead)
            for at in leased.slots
            for ahead in [at - leased.now]
        )

    async def _recheck_epoch(self) -> None:
        asked = time.monotonic()
        self._heard_of(await asyncio.to_thread(row.current_epoch, self._engine, self._location_id))
        self._epoch_known_at = asked

    def _heard_of(self, epoch: int) -> None:
        # An answer that was under way while another one told of a refusal must not bring the old epoch back.
        self._epoch = max(self._epoch, epoch)

    async def _register_once(self) -> None:
        if not self._registered:
            await asyncio.to_thread(row.register, self._engine, self._location_id, self._limits)
            self._registered = True
