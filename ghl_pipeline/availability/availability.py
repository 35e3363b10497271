"""The free times of many clients in one process; one that hangs or fails neither stops nor delays the rest.

Bounded twice: each client has its own time, and the run ends before its own is over. Nobody is begun whose whole time
does not fit any more; those are first in the next run, because the order is by when they were last tried.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from ghl_pipeline.availability.client_calendars import ClientCalendar, calendar_access, longest_waiting_first
from ghl_pipeline.availability.outcomes import Reason, SlotsStale, State
from ghl_pipeline.availability.providers import OpenCalendly, Providers
from ghl_pipeline.availability.reasons import reason_of
from ghl_pipeline.availability.refresh import Looked, Refresh
from ghl_pipeline.availability.report import AvailabilityReport, AvailabilityResult
from ghl_pipeline.availability.slot_store import Stored, store_look
from ghl_pipeline.errors import LocationBusy, PipelineError
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.many_locations import work_on_locations
from ghl_pipeline.orchestration.reports import History, NoHistory
from ghl_pipeline.privacy.tokens import TokenCipher

CAPABILITY = "availability"
AVAILABILITY_SLOTS = "availability_slots"
# Those that hang are waiting, and cost next to nothing. While fewer hang than that, they hold up nobody; if more do,
# the others wait for a client's time, 20 s, per fifty.
DEFAULT_CONCURRENCY = 50
# Of the run's time, for reading and writing rows; at most so many seconds.
RESERVE_SHARE, MOST_RESERVE_SECONDS = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class AvailabilityRules:
    """Bounds of a run, in seconds, and days of slots that Calendly is asked for at once."""

    client_seconds: float = 20.0
    run_seconds: float = 300.0
    calendly_chunk_days: int = 31

    @property
    def budget_seconds(self) -> float:
        """A client's time, which half of a short run has to hold."""
        return min(self.client_seconds, self.run_seconds / 2)

    @property
    def reserve_seconds(self) -> float:
        """What of a run is left to the database."""
        return min(self.run_seconds * RESERVE_SHARE, MOST_RESERVE_SECONDS)


class Availability:
    """The capability with its collaborators. Safe to use from one event loop at a time."""

    def __init__(
        self,
        *,
        engine: Engine,
        cipher: TokenCipher,
        open_ghl: OpenClient,
        open_calendly: OpenCalendly,
        rules: AvailabilityRules | None = None,
    ) -> None:
        self._engine = engine
        self._cipher = cipher
        self._open_ghl = open_ghl
        self._open_calendly = open_calendly
        self._rules = rules or AvailabilityRules()

    def __repr__(self) -> str:
        return "Availability()"

    async def refresh(
        self,
        location_ids: Sequence[str],
        history: History | None = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> AvailabilityResult:
        """Brings free times up to date, those first that have waited longest; each is told when it is done.

        A location whose provider fails is a failure, told as progress only; its old times are kept and marked. One
        whose link is wrong, or whose calendar is off, is none: that is a state in which it stays until somebody acts.

        Args:
            location_ids: which; repeated ones count once.
            history: of `availability_slots`; None outside a run.
            concurrency: locations worked on at the same time.

        Raises:
            asyncio.CancelledError: the run was stopped; what was written is whole clients.
        """
        started = time.monotonic()
        told = history or NoHistory()
        latest_begin = started + self._rules.run_seconds - self._rules.reserve_seconds - self._rules.budget_seconds
        failed: list[AvailabilityReport] = []

        def in_order() -> list[str]:
            with self._engine.connect() as connection:
                return longest_waiting_first(connection, location_ids)

        async def one(location_id: str) -> AvailabilityReport:
            report, error = await self._refreshed(location_id)
            if error is not None:
                failed.append(report)
                await in_thread(told.progress, AVAILABILITY_SLOTS, location_id, report.as_report())
                raise error
            await in_thread(told.done, AVAILABILITY_SLOTS, location_id, report.as_report())
            return report

        result = await work_on_locations(
            self._engine,
            await in_thread(in_order),
            one,
            capability=CAPABILITY,
            run_id=told.run_id,
            counts=AvailabilityReport.as_dict,
            concurrency=concurrency,
            may_begin=lambda: time.monotonic() <= latest_begin,
        )
        busy = tuple(f.location_id for f in result.failures if f.error_class == LocationBusy.__name__)
        return AvailabilityResult(
            (*result.reports.values(), *failed),
            tuple(failure for failure in result.failures if failure.location_id not in busy),
            busy,
            result.not_begun,
            round(time.monotonic() - started, 3),
        )

    async def _refreshed(self, location_id: str) -> tuple[AvailabilityReport, Exception | None]:
        """Looks at one client's calendar and writes what came of it; the error is for the run, and is written too."""
        started = time.monotonic()
        calendar = await in_thread(self._calendar, location_id)
        if calendar is None or not calendar.is_configured:
            return AvailabilityReport(location=location_id, state=None), None
        async with Providers(self._engine, self._cipher, calendar, self._open_ghl, self._open_calendly) as providers:
            looked = await self._look(calendar, providers)
        stored = await in_thread(store_look, self._engine, calendar, looked)
        seconds = round(time.monotonic() - started, 3)
        return _report(location_id, looked, stored, providers.requests, seconds), looked.error

    async def _look(self, calendar: ClientCalendar, providers: Providers) -> Looked:
        """The look within its time; whatever goes wrong is a stale one with its reason."""
        budget = self._rules.budget_seconds
        refresh = Refresh(
            calendar, providers, budget_seconds=budget, calendly_chunk_days=self._rules.calendly_chunk_days
        )
        try:
            async with asyncio.timeout(budget):
                return await refresh.look()
        except TimeoutError:
            return Looked(State.STALE, Reason.TIMEOUT, error=SlotsStale(calendar.location_id, Reason.TIMEOUT))
        except PipelineError as error:
            return Looked(State.STALE, reason_of(error), error=error)
        except Exception as error:  # noqa: BLE001 - a bug in one client's look must not leave its times as if fresh
            return Looked(State.STALE, reason_of(error), error=error)

    def _calendar(self, location_id: str) -> ClientCalendar | None:
        with self._engine.connect() as connection:
            return calendar_access(connection, location_id)


def _report(location_id: str, looked: Looked, stored: Stored, requests: int, seconds: float) -> AvailabilityReport:
    return AvailabilityReport(
        location=location_id,
        state=looked.state,
        reason=looked.reason,
        provider=looked.resolved.provider if looked.resolved else None,
        resolved_by=looked.resolved.by if looked.resolved else None,
        slots=stored.slots,
        added=stored.added,
        removed=stored.removed,
        changed_meanwhile=not stored.is_current,
        requests=requests,
        seconds=seconds,
    )
