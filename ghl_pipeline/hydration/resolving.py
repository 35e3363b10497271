"""The step `resolved_contacts` of one location: plan, pull, look up page by page, retry what failed.

Each page is stored before the history says so: a kill between the two costs one page asked twice and never a lead
passed over. While a page is asked for, the last one is written into `leads` (`PageWriter`).
"""

import logging
import time
from dataclasses import replace

from ghl_pipeline.ghl.errors import GhlError, GhlUnreachable, RateLimited, RequestRejected, TransientGhlError
from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.hydration import list_pages as pages
from ghl_pipeline.hydration import pulled
from ghl_pipeline.hydration.list_counts import ToPlan, count_to_plan, lookup_counts
from ghl_pipeline.hydration.location_report import ResumePoint, Spent, progress_report, resolved_report
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.options import Step
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.page_writer import PageWriter
from ghl_pipeline.hydration.plan import Plan, Way
from ghl_pipeline.hydration.planning import make_plan
from ghl_pipeline.hydration.pull import ask_about_nobody, pull
from ghl_pipeline.hydration.pulled_source import PulledContacts
from ghl_pipeline.hydration.resolve import ContactSource, LeadKey, resolve_page
from ghl_pipeline.hydration.work_list import WorkList
from ghl_pipeline.hydration.workplace import Workplace
from ghl_pipeline.locations.learning import save_group_size
from ghl_pipeline.orchestration.blocking import in_thread

log = logging.getLogger(__name__)

# Progress of a pull is told that often at most; its exact cursor is in the list.
TELL_EVERY_SECONDS = 1.0


class Resolving:
    """Finds the contacts of one list's leads.

    Attributes:
        errors: behind the lookups that failed last.
    """

    def __init__(self, at: Workplace, work_list: WorkList, writer: PageWriter) -> None:
        self.errors: list[GhlError] = []
        self._at = at
        self._list = work_list
        self._writer = writer
        self._lookup = ContactLookup(at.client, at.knowledge.group_size, at.knowledge)
        self._location = at.client.location_id
        self._point = ResumePoint(work_list.id, 0, 0, Spent())
        self._calls_before = replace(at.client.usage)
        self._started = time.monotonic()
        self._told_at = 0.0
        self._pulling: Plan | None = None  # as far as its pull is stored

    async def run(self) -> None:
        """Looks up every lead of the list that has no answer yet.

        Raises:
            GhlError: GHL is down, or the location refuses; what was found before is stored, and where to go on.
            LeasesLost: nothing is written after that.
        """
        self._point = await in_thread(self._resume_point)
        self._spent_before, resumed_from = self._point.spent, self._point.position
        known = replace(self._at.knowledge.group_size)
        try:
            plan = await self._pulled(*await self._plan())
            await self._look_up_pages(plan)
            await self._retry_failures()
        except GhlError:
            await in_thread(self._tell_progress, self._pulling)
            raise
        finally:
            if self._at.knowledge.group_size != known:
                size = self._at.knowledge.group_size
                await in_thread(save_group_size, self._at.engine, self._location, size.size, size.ceiling)
        await in_thread(self._tell_resolved, plan, resumed_from)

    # --- the plan and its pull

    async def _plan(self) -> tuple[Plan, SearchPage | None]:
        """The list's plan, made now if it has none; with the first page of its pull if that was asked for just now."""
        plan, counts = await in_thread(self._standing_plan)
        if plan is not None:
            return plan, None
        plan, first = await make_plan(self._list, counts, self._at.client, self._at.knowledge, self._at.rules)
        await in_thread(self._store_plan, plan)
        log.info("location %s: %s", self._location, plan.in_words())
        return plan, first

    def _standing_plan(self) -> tuple[Plan | None, ToPlan]:
        """The list's plan, unless there is none or it is outgrown; and what a new one is made from."""
        with self._at.engine.begin() as connection:
            plan = pulled.load_plan(connection, self._list)
            counts = count_to_plan(connection, self._list, plan.upto if plan else 0)
            if plan is not None and plan.is_outgrown(counts.unanswered, counts.beyond, counts.now):
                self._at.check_lease()
                pulled.drop_plan(connection, self._list)
                plan = None
        return plan, counts

    async def _pulled(self, plan: Plan, first: SearchPage | None) -> Plan:
        """The plan with its pull through, or given up for lookups where the location does not let itself be pulled."""
        if not plan.pulled:
            self._pulling = plan
            try:
                plan = await pull(self._at.client, plan, self._keep, first)
            except (RateLimited, GhlUnreachable):
                raise
            except (RequestRejected, TransientGhlError) as error:
                # Whether GHL is down, or does not answer this one page whatever is done.
                await ask_about_nobody(self._at.client)
                reached = self._pulling
                plan = reached.by_lookups(f"the pull failed at contact {reached.received}: {error}")
            if plan.way is Way.SCAN:
                await in_thread(self._at.knowledge.keep, contacts=plan.total)
                await self._at.knowledge.try_dates(first.contacts if first else ())
        if plan.came_short:
            plan = plan.by_lookups(f"the pull brought {plan.received} of {plan.total} contacts")
        if plan.gave_up:
            log.warning("location %s: %s; its leads are looked up", self._location, plan.gave_up)
            await in_thread(self._store_plan, plan)
        if plan.way is Way.DELTA:
            await in_thread(self._settle, plan)
        await in_thread(self._tell_progress, plan)
        return plan

    def _keep(self, page: SearchPage, plan: Plan) -> None:
        self._at.check_lease()
        with self._at.engine.begin() as connection:
            pulled.keep_page(connection, self._list, plan, page.contacts)
        self._pulling = plan
        if time.monotonic() - self._told_at >= TELL_EVERY_SECONDS:
            self._tell_progress(plan)

    def _store_plan(self, plan: Plan) -> None:
        self._at.check_lease()
        with self._at.engine.begin() as connection:
            pulled.store_plan(connection, self._list, plan)
        if self._at.knowledge.contacts != self._at.knowledge.learned.contacts:
            self._at.knowledge.keep(contacts=self._at.knowledge.contacts)

    def _settle(self, plan: Plan) -> None:
        self._at.check_lease()
        with self._at.engine.begin() as connection:
            pulled.settle_unchanged(connection, self._list, plan)

    # --- the leads, page by page

    async def _look_up_pages(self, plan: Plan) -> None:
        while keys := await in_thread(self._next_page, plan):
            covered = [key.position for key in keys if key.is_covered]
            contacts = await in_thread(self._pulled_contacts, covered) if covered else []
            await self._look_up(keys, PulledContacts(keys, contacts, self._lookup), upto=keys[-1].position)

    async def _look_up(self, keys: list[LeadKey], source: ContactSource, upto: int) -> None:
        """Looks up a page, stores what came, says so in the history, and has it written meanwhile."""
        page = await resolve_page(keys, source)
        self.errors.extend(page.errors)

        def store() -> None:
            self._at.check_lease()
            with self._at.engine.begin() as connection:
                pages.store_resolutions(connection, self._list, page.resolutions, upto)
            if upto > self._point.position:
                self._point = replace(self._point, position=upto, last_lead_id=keys[-1].lead_id)
            self._tell_progress()

        await in_thread(store)
        await self._writer.page_is_stored()

    async def _retry_failures(self) -> None:
        """Asks once more for leads whose lookup failed, now that the rest is done."""
        after = 0
        self.errors.clear()
        self._lookup.try_everything_again()
        while keys := await in_thread(self._failed_page, after):
            after = keys[-1].position
            await self._look_up(keys, self._lookup, upto=self._point.position)

    def _next_page(self, plan: Plan) -> list[LeadKey]:
        with self._at.engine.connect() as connection:
            return pages.next_page(connection, self._list, plan, self._point.position, self._at.page_size)

    def _pulled_contacts(self, positions: list[int]) -> list[Contact]:
        with self._at.engine.connect() as connection:
            return pulled.contacts_of_page(connection, self._list, positions)

    def _failed_page(self, after: int) -> list[LeadKey]:
        with self._at.engine.connect() as connection:
            return pages.failed_page(connection, self._list, after, self._at.page_size)

    # --- the history

    def _resume_point(self) -> ResumePoint:
        told = self._at.history.last_progress(Step.RESOLVED_CONTACTS, self._location)
        point = ResumePoint.from_history(told, self._list)
        # A database restored from a backup may be behind the history; what it does not hold is asked again.
        return replace(point, position=min(point.position, self._list.position))

    def _point_now(self) -> ResumePoint:
        """Where the work is, with what it has cost so far."""
        calls = self._at.client.usage.calls - self._calls_before.calls
        waited = self._at.client.usage.waited_seconds - self._calls_before.waited_seconds
        return replace(self._point, spent=self._spent_before.plus(calls, time.monotonic() - self._started, waited))

    def _tell_progress(self, plan: Plan | None = None) -> None:
        self._told_at = time.monotonic()
        report = progress_report(self._point_now(), self._list.listed, plan)
        self._at.history.progress(Step.RESOLVED_CONTACTS, self._location, report)

    def _tell_resolved(self, plan: Plan, resumed_from: int) -> None:
        with self._at.engine.connect() as connection:
            counts = lookup_counts(connection, self._list)
        complete = counts[Outcome.FAILED] == 0
        report = resolved_report(
            self._point_now(), counts, plan=plan, groups=self._groups(), resumed_from=resumed_from, complete=complete
        )
        tell = self._at.history.done if complete else self._at.history.progress
        tell(Step.RESOLVED_CONTACTS, self._location, report)

    def _groups(self) -> str:
        """How leads are asked for, in words."""
        if self._at.knowledge.groups_are_wrong:
            return "one by one: GHL answered groups wrongly"
        return f"up to {self._at.knowledge.group_size.size} at a time"
