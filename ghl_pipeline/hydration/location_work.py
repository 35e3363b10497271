"""One location's way through the three steps, for one run that holds its lease.

Database and history calls block, so they run in threads and other locations go on meanwhile.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.errors import GhlError, PermanentGhlError
from ghl_pipeline.hydration import work_list as lists
from ghl_pipeline.hydration.list_counts import final_counts, reason_counts
from ghl_pipeline.hydration.location_report import LocationReport, ResumePoint, eligible_report, hydrated_report
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.page_writer import PageWriter
from ghl_pipeline.hydration.resolving import Resolving
from ghl_pipeline.hydration.work_list import WorkList
from ghl_pipeline.hydration.workplace import Workplace
from ghl_pipeline.hydration.write_back import record_failures, write_back_page
from ghl_pipeline.locations.learning import save_facts
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import PartlyFailed

# Enough ids to start looking; all of them are in work_items.
LEADS_SHOWN = 5


class LookupsFailed(PartlyFailed):
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

    def __init__(self, at: Workplace, options: Options) -> None:
        self._at = at
        self._options = options

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
        writes = Step.HYDRATED_LEADS in self._options.steps
        writer = PageWriter(partial(self._write_page, work_list) if writes else None)
        try:
            return await self._resolve_and_write(work_list, writer)
        finally:
            await writer.stop()

    async def _resolve_and_write(self, work_list: WorkList, writer: PageWriter) -> LocationReport | None:
        stopped: GhlError | None = None
        errors: list[GhlError] = []
        if Step.RESOLVED_CONTACTS in self._options.steps:
            resolving = Resolving(self._at, work_list, writer)
            try:
                await resolving.run()
            except GhlError as error:
                stopped = error
            errors = resolving.errors
        report: LocationReport | None = None
        if Step.HYDRATED_LEADS in self._options.steps:
            # What was found before GHL refused or fell silent is worth writing now, not after the night.
            started = time.monotonic()
            await writer.drain()
            report = await in_thread(self._finish, work_list, started, errors, complete=stopped is None)
        if stopped:
            raise stopped
        return report

    # --- eligible_leads

    async def _open_list(self) -> WorkList | None:
        """The list to work on. Built or topped up when `eligible_leads` is among the steps, else taken as it is."""
        changes_seen = self._at.knowledge.learned.changes_seen_until is not None

        def build() -> WorkList | None:
            # The automatic retry of a killed run carries its config; what it began afresh it goes on with.
            last = self._at.history.last_done(Step.ELIGIBLE_LEADS, self._location)
            begun = last is not None and last.get("attempt") == self._at.history.attempt
            with self._at.engine.begin() as connection:
                if Step.ELIGIBLE_LEADS not in self._options.steps:
                    return lists.current_list(connection, self._at.access.client_id)
                work_list = lists.open_list(
                    connection,
                    self._at.access.client_id,
                    self._options.scope,
                    fresh=self._options.fresh and not begun,
                    max_leads=self._options.max_leads,
                    look_up_every=self._at.rules.look_up_every if changes_seen and not self._options.fresh else None,
                )
                reasons = reason_counts(connection, work_list)
            self._at.history.done(Step.ELIGIBLE_LEADS, self._location, eligible_report(work_list, reasons))
            return work_list

        return await in_thread(build)

    # --- hydrated_leads

    def _write_page(self, work_list: WorkList) -> int:
        self._at.check_lease()
        return write_back_page(self._at.engine, work_list, self._at.access.default_region, self._at.page_size)

    def _finish(
        self, work_list: WorkList, started: float, errors: Sequence[GhlError], *, complete: bool
    ) -> LocationReport:
        """Tells the history, then closes the list: the other way round a kill between the two would lose the counts."""
        self._at.check_lease()
        with self._at.engine.begin() as connection:
            failed = record_failures(connection, work_list)
            counts = final_counts(connection, work_list)
            if counts.leads == work_list.listed:
                self._complete_pass(connection, work_list)
        told_last = self._at.history.last_progress(Step.RESOLVED_CONTACTS, self._location)
        spent = ResumePoint.from_history(told_last, work_list).spent.plus(0, time.monotonic() - started, 0)
        report = LocationReport.of(self._location, counts, spent)
        told = hydrated_report(work_list.id, report)
        if failed or counts.leads < work_list.listed:
            self._at.history.progress(Step.HYDRATED_LEADS, self._location, told)
        else:
            self._at.history.done(Step.HYDRATED_LEADS, self._location, told)
            with self._at.engine.begin() as connection:
                lists.finish(connection, work_list)
        if failed and complete:
            raise LookupsFailed(self._location, failed, work_list.listed, errors)
        return report

    def _complete_pass(self, connection: Connection, work_list: WorkList) -> None:
        until = lists.complete_pass(connection, work_list)
        if until is None:
            return
        # What GHL dates, it dates by its own clock. Behind the database's, it would have changes that we believe seen.
        here = datetime.now(UTC)
        database = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        behind = (self._at.client.heard.clock_behind_seconds or 0.0) if self._at.client.heard else 0.0
        ghl_ahead = timedelta(seconds=behind) + (here - database)
        size = self._at.knowledge.group_size.size
        save_facts(connection, self._location, size, changes_seen_until=until + min(ghl_ahead, timedelta(0)))

    @property
    def _location(self) -> str:
        return self._at.access.location_id
