"""One location's way through the three steps, resumable at every page.

Each page is stored before the history says so: a kill between the two costs one page asked twice and never a lead
passed over. Database and history calls block, so they run in threads and other locations go on meanwhile.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import Engine

from ghl_pipeline.errors import InvalidInput, PipelineError
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlError, PermanentGhlError
from ghl_pipeline.hydration import work_list as lists
from ghl_pipeline.hydration.blocking import in_thread
from ghl_pipeline.hydration.learning import save_group_size
from ghl_pipeline.hydration.location_report import (
    LocationReport,
    ResumePoint,
    Spent,
    eligible_report,
    hydrated_report,
    progress_report,
    resolved_report,
)
from ghl_pipeline.hydration.lookup import ContactLookup, GroupSize
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.resolve import LeadKey, resolve_page
from ghl_pipeline.hydration.work_list import WorkList
from ghl_pipeline.hydration.write_back import record_failures, write_back_page
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.orchestration.reports import History

# Enough ids to start looking; all of them are in work_items.
LEADS_SHOWN = 5


class LookupsFailed(PipelineError):
    """Some leads of a location could not be looked up; the others are written, these wait for the next run.

    `error` is one of theirs: one that a rerun may cure if there is any, so that nothing curable counts as permanent.
    """

    def __init__(self, location_id: str, lead_ids: Sequence[int], listed: int, errors: Sequence[GhlError]) -> None:
        curable = [error for error in errors if not isinstance(error, PermanentGhlError)]
        self.error = next(iter([*curable, *errors]), None)
        shown = ", ".join(map(str, lead_ids[:LEADS_SHOWN])) + (", ..." if len(lead_ids) > LEADS_SHOWN else "")
        why = f" One error: {self.error}." if self.error else ""
        advice = (
            "GHL refuses what these leads hold: correct their e-mail or contact id"
            if isinstance(self.error, PermanentGhlError)
            else "Run the location again to ask for just these"
        )
        super().__init__(
            f"LookupsFailed: location {location_id}: {len(lead_ids)} of {listed} leads could not be looked up (ids "
            f"{shown}), the others are written.{why} {advice}."
        )


class LocationWork:
    """The steps at one location, for one run that holds its lease."""

    def __init__(
        self,
        *,
        engine: Engine,
        access: LocationAccess,
        client: LocationClient,
        history: History,
        options: Options,
        group_size: GroupSize,
        default_page_size: int,
        check_lease: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._access = access
        self._client = client
        self._history = history
        self._options = options
        self._learned = group_size
        self._check_lease = check_lease
        self._page_size = options.page_size or default_page_size
        self._errors: list[GhlError] = []

    async def run(self) -> LocationReport | None:
        """Goes through the steps asked for.

        Returns:
            The location's result; None when the write-back was not among the steps.

        Raises:
            LookupsFailed: some lookups failed even when tried again; everything else is written.
            GhlError: the location refuses, or GHL is down; what was found before is written, the resume point is in
                the history.
            LeasesLost: the database forgot the lease (its connection broke), so another run may be at work; nothing is
                written after that.
        """
        work_list = await self._open_list()
        if work_list is None:
            raise InvalidInput(
                f"Location {self._location} has no work list to go on with. Materialize eligible_leads too."
            )
        stopped: GhlError | None = None
        if Step.RESOLVED_CONTACTS in self._options.steps:
            try:
                await self._resolve(work_list)
            except GhlError as error:
                stopped = error
        report: LocationReport | None = None
        if Step.HYDRATED_LEADS in self._options.steps:
            # What was found before GHL refused or fell silent is worth writing now, not after the night.
            report = await self._write(work_list, complete=stopped is None)
        if stopped:
            raise stopped
        return report

    # --- eligible_leads

    async def _open_list(self) -> WorkList | None:
        """The list to work on. Built or topped up when `eligible_leads` is among the steps, else taken as it is."""

        def build() -> WorkList | None:
            # The automatic retry of a killed run carries its config; what it began afresh it goes on with.
            last = self._history.last_done(Step.ELIGIBLE_LEADS, self._location)
            begun = last is not None and last.get("attempt") == self._history.attempt
            with self._engine.begin() as connection:
                if Step.ELIGIBLE_LEADS not in self._options.steps:
                    return lists.current_list(connection, self._access.client_id)
                work_list = lists.open_list(
                    connection,
                    self._access.client_id,
                    self._options.scope,
                    fresh=self._options.fresh and not begun,
                    max_leads=self._options.max_leads,
                )
                reasons = lists.reason_counts(connection, work_list)
            self._history.done(Step.ELIGIBLE_LEADS, self._location, eligible_report(work_list, reasons))
            return work_list

        return await in_thread(build)

    # --- resolved_contacts

    async def _resolve(self, work_list: WorkList) -> None:
        point = await in_thread(self._resume_point, work_list)
        resumed_from = point.position
        known = replace(self._learned)
        lookup = ContactLookup(self._client, self._learned)
        try:
            while keys := await in_thread(self._next_page, work_list, point.position):
                point = await self._look_up(work_list, lookup, keys, point, upto=keys[-1].position)
            point = await self._retry_failures(work_list, lookup, point)
        finally:
            if self._learned != known:
                await in_thread(save_group_size, self._engine, self._location, self._learned)
        await in_thread(self._tell_resolved, work_list, point, resumed_from)

    async def _look_up(
        self, work_list: WorkList, lookup: ContactLookup, keys: list[LeadKey], point: ResumePoint, upto: int
    ) -> ResumePoint:
        """Looks up a page, stores what came, and says so in the history; the same when it fails, one page earlier."""
        started, spent = time.monotonic(), replace(self._client.usage)
        try:
            page = await resolve_page(keys, lookup)
        except GhlError:
            failed_at = replace(point, spent=self._spent_since(point.spent, spent.calls, spent.waited_seconds, started))
            await in_thread(self._tell_progress, work_list, failed_at)
            raise
        self._errors.extend(page.errors)

        def store() -> ResumePoint:
            self._check_lease()
            with self._engine.begin() as connection:
                lists.store_resolutions(connection, work_list, page.resolutions, upto)
            reached = ResumePoint(
                work_list.id,
                upto,
                point.last_lead_id if upto == point.position else keys[-1].lead_id,
                self._spent_since(point.spent, spent.calls, spent.waited_seconds, started),
            )
            self._tell_progress(work_list, reached)
            return reached

        return await in_thread(store)

    async def _retry_failures(self, work_list: WorkList, lookup: ContactLookup, point: ResumePoint) -> ResumePoint:
        """Asks once more for leads whose lookup failed, now that the rest is done."""
        after = 0
        self._errors.clear()
        while keys := await in_thread(self._failed_page, work_list, after):
            after = keys[-1].position
            point = await self._look_up(work_list, lookup, keys, point, upto=point.position)
        return point

    def _resume_point(self, work_list: WorkList) -> ResumePoint:
        told = self._history.last_progress(Step.RESOLVED_CONTACTS, self._location)
        point = ResumePoint.from_history(told, work_list)
        # A database restored from a backup may be behind the history; what it does not hold is asked again.
        return replace(point, position=min(point.position, work_list.looked_up))

    def _next_page(self, work_list: WorkList, after: int) -> list[LeadKey]:
        with self._engine.connect() as connection:
            return lists.next_page(connection, work_list, after, self._page_size)

    def _failed_page(self, work_list: WorkList, after: int) -> list[LeadKey]:
        with self._engine.connect() as connection:
            return lists.failed_page(connection, work_list, after, self._page_size)

    def _spent_since(self, before: Spent, calls: int, waited_seconds: float, started: float) -> Spent:
        usage = self._client.usage
        return before.plus(usage.calls - calls, time.monotonic() - started, usage.waited_seconds - waited_seconds)

    def _tell_progress(self, work_list: WorkList, point: ResumePoint) -> None:
        report = progress_report(point, work_list.listed)
        self._history.progress(Step.RESOLVED_CONTACTS, self._location, report)

    def _tell_resolved(self, work_list: WorkList, point: ResumePoint, resumed_from: int) -> None:
        with self._engine.connect() as connection:
            counts = lists.lookup_counts(connection, work_list)
        complete = counts[Outcome.FAILED] == 0
        report = resolved_report(
            point, counts, group_size=self._learned.size, resumed_from=resumed_from, complete=complete
        )
        tell = self._history.done if complete else self._history.progress
        tell(Step.RESOLVED_CONTACTS, self._location, report)

    # --- hydrated_leads

    async def _write(self, work_list: WorkList, *, complete: bool) -> LocationReport:
        started = time.monotonic()

        def write() -> int:
            self._check_lease()
            return write_back_page(self._engine, work_list, self._access.default_region, self._page_size)

        while await in_thread(write):
            pass
        return await in_thread(self._finish, work_list, started, complete=complete)

    def _finish(self, work_list: WorkList, started: float, *, complete: bool) -> LocationReport:
        """Tells the history, then closes the list: the other way round a kill between the two would lose the counts."""
        with self._engine.begin() as connection:
            failed = record_failures(connection, work_list)
            counts = lists.final_counts(connection, work_list)
        spent = self._resume_point(work_list).spent.plus(0, time.monotonic() - started, 0)
        report = LocationReport.of(self._location, counts, spent)
        told = hydrated_report(work_list.id, report)
        if failed or counts.leads < work_list.listed:
            self._history.progress(Step.HYDRATED_LEADS, self._location, told)
        else:
            self._history.done(Step.HYDRATED_LEADS, self._location, told)
            with self._engine.begin() as connection:
                lists.finish(connection, work_list)
        if failed and complete:
            raise LookupsFailed(self._location, failed, work_list.listed, self._errors)
        return report

    @property
    def _location(self) -> str:
        return self._access.location_id
