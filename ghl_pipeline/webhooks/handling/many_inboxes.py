"""The events of many locations in one run, which looks on for a while: a burst of events is then one run, not many."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.many_locations import LocationsResult, work_on_locations
from ghl_pipeline.webhooks.handling.handle_events import EventHandling
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline.webhooks.inbox.claims import HANDLING, due_locations

# A person who writes writes again soon; a new run takes 3 s of a core to start and up to 5 s to be asked for.
LINGER_SECONDS = 20.0
LONGEST_RUN_SECONDS = 600.0
POLL_SECONDS = 1.0
# Few runs may linger at a time (`dagster.yaml`), so one that keeps others waiting for a place ends.
LOOK_FOR_OTHERS_SECONDS = 3.0
# All of them share the ten threads, and connections, of blocking database calls.
CONCURRENCY = 50


async def handle_inboxes(
    handling: EventHandling,
    location_ids: Sequence[str],
    *,
    run_id: str | None = None,
    told: Callable[[str, EventsReport], None] | None = None,
    linger_seconds: float = 0.0,
    longest_seconds: float = LONGEST_RUN_SECONDS,
) -> LocationsResult[EventsReport]:
    """Handles what is due at each location, and what becomes due until none had anything for `linger_seconds`.

    Args:
        handling: the capability.
        location_ids: which; more than can be worked on at once are not lingered at.
        run_id: of the Dagster run, None outside one.
        told: called with the report of each location that had events, when its work ends; may block.
        linger_seconds: for how long a location is looked at again after the last event of any; cut short when events of
            other locations wait for a run.
        longest_seconds: afterwards no location is looked at again.

    Raises:
        asyncio.CancelledError: the run was stopped.
    """
    run = _Run(len(set(location_ids)), linger_seconds, longest_seconds)

    async def work(location_id: str) -> EventsReport:
        report = EventsReport()
        while True:
            with run.at_work():
                latest = await handling.handle_location(location_id)
            if latest.looked_at:
                report += latest
                run.had_events()
            if run.is_over():
                break
            await asyncio.sleep(POLL_SECONDS)
        if told is not None and report.looked_at:
            await in_thread(told, location_id, report)
        return report

    look = asyncio.create_task(_end_when_others_wait(handling.engine, frozenset(location_ids), run))
    try:
        return await work_on_locations(
            handling.engine,
            location_ids,
            work,
            capability=HANDLING,
            run_id=run_id,
            counts=EventsReport.counts,
            concurrency=CONCURRENCY,
        )
    finally:
        look.cancel()
        await asyncio.wait([look])


async def _end_when_others_wait(engine: Engine, ours: frozenset[str], run: "_Run") -> None:
    """Returns when the run has been told to linger no more: others had something due at two looks in a row."""

    def waiting() -> set[str]:
        with engine.connect() as connection:
            return set(due_locations(connection, rested=True)) - ours

    before: set[str] = set()
    while run.lingers:
        await asyncio.sleep(LOOK_FOR_OTHERS_SECONDS)
        try:
            now = await in_thread(waiting)
        except SQLAlchemyError:
            continue  # whoever handles events meets it too, and says so
        if before & now:
            run.linger_no_more()
        before = now


class _Run:
    """Whether any location is at work, and when one last had events."""

    def __init__(self, locations: int, linger_seconds: float, longest_seconds: float) -> None:
        now = time.monotonic()
        self._linger_seconds = linger_seconds if locations <= CONCURRENCY else 0.0
        self._ends_at = now + longest_seconds
        self._had_events_at = now
        self._at_work = 0
        self._over = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    @property
    def lingers(self) -> bool:
        """Whether it looks on after the last event."""
        return self._linger_seconds > 0

    def linger_no_more(self) -> None:
        """What is under way is ended; nothing is looked at again."""
        self._linger_seconds = 0.0

    def had_events(self) -> None:
        self._had_events_at = time.monotonic()

    def is_over(self) -> bool:
        """Once it is, it is for all: a location that ended alone would be left to the next run while others go on."""
        now = time.monotonic()
        is_quiet = self._at_work == 0 and now >= self._had_events_at + self._linger_seconds
        self._over = self._over or not self._linger_seconds or is_quiet or now >= self._ends_at
        return self._over
