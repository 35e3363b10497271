"""One location's vendors and leads brought in step with its contacts: asked for, decided, then written.

Nothing is written before everything is known and the share of the missing is believed. What was seen is remembered only
after all of it is written, so a run that fails or is killed anywhere is made good by the next one. Rows that somebody
else wrote in between are left out of that, and looked up again.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import Engine

from ghl_pipeline.crm.client_settings import CrmClient, crm_client
from ghl_pipeline.crm.custom_fields import FieldIds, normal_key
from ghl_pipeline.crm.fetch import fetch
from ghl_pipeline.crm.fetch_rules import FetchRules, Remembered
from ghl_pipeline.crm.fetched import Fetched, FetchMode
from ghl_pipeline.crm.identifiers import Identifiers, Side, load_identifiers
from ghl_pipeline.crm.lead_store import lead_rules
from ghl_pipeline.crm.memory import load_remembered, remember
from ghl_pipeline.crm.missing import MOST_MISSING, Missing, TooManyMissing, check_share
from ghl_pipeline.crm.report import CrmPartlyFailed, CrmReport, WouldStop
from ghl_pipeline.crm.row_store import RowStore, SideCounts
from ghl_pipeline.crm.sync_plan import Place, SyncPlan, make_plan
from ghl_pipeline.crm.vendor_store import vendor_rules
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlError, PermanentGhlError, ScopeMissing
from ghl_pipeline.ghl.payloads import User
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.locations.learning import load_learned, save_group_size
from ghl_pipeline.orchestration.blocking import in_thread

NO_FIELDS = (
    "The token lacks the scope locations/customFields.readonly, so what custom fields hold was left as it is here; add "
    "it to the private integration"
)
NO_USERS = (
    "The token lacks the scope users.readonly, so only contacts of type staff were taken for staff; add it to the "
    "private integration"
)


@dataclass(frozen=True, slots=True)
class CrmRules:
    """What is relied on.

    Attributes:
        fetch: how contacts are fetched.
        most_missing: the share of a side, 0 to 1, above which nobody is marked missing before a person was asked.
        protected: statuses of leads, lower-case, that a tag never changes.
        group_size: ids or addresses that a location's first search asks for at once.
    """

    fetch: FetchRules = field(default_factory=FetchRules)
    most_missing: float = MOST_MISSING
    protected: frozenset[str] = frozenset()
    group_size: int = 50


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How a run is asked for.

    Attributes:
        full: everybody is looked up, even if changes would do.
        dry_run: everything is asked and counted, nothing written or remembered.
        accept_missing: a person was asked about the missing and said yes.
    """

    full: bool = False
    dry_run: bool = False
    accept_missing: bool = False


@dataclass(frozen=True, slots=True)
class _Start:
    """What is known before anything is asked."""

    settings: CrmClient
    identifiers: Identifiers
    remembered: Remembered

    @property
    def has_work(self) -> bool:
        """Whether there is anybody to ask for."""
        return bool(self.identifiers.rows) or self.settings.discover


@dataclass(frozen=True, slots=True)
class LocationSync:
    """One run at one location. Two at the same location must not be under way at once.

    Attributes:
        engine: the dashboard database.
        access: the location and its client.
        client: the location's, throttled.
        rules: what is relied on.
        options: how it is asked for.
    """

    engine: Engine
    access: LocationAccess
    client: LocationClient
    rules: CrmRules
    options: SyncOptions = field(default_factory=SyncOptions)

    async def run(self) -> CrmReport:
        """Brings the location's vendors and leads in step.

        Raises:
            CrmOff: the client is not switched on.
            TooManyMissing: so many contacts are gone that a person has to look; nothing was written. Of a dry run
                it is `WouldStop`, which has the report.
            CrmPartlyFailed: some rows could not be looked up; the others are in step. It has the report.
            GhlError: GHL is down, or the location refuses; nothing was written.
        """
        began = time.monotonic()
        start = await in_thread(self._start)
        if not start.has_work:
            return CrmReport(location=self.access.location_id, mode=FetchMode.NOTHING, dry_run=self.options.dry_run)
        place, warnings = await self._place(start.settings)
        fetched = await self._fetched(start)
        plan = await in_thread(make_plan, start.identifiers, fetched, place)
        would_stop: TooManyMissing | None = None
        try:
            missing = self._missing(start.identifiers, plan, accept=self.options.accept_missing)
        except TooManyMissing as error:
            if not self.options.dry_run:
                raise
            would_stop, missing = error, self._missing(start.identifiers, plan, accept=True)
        vendors, leads = await in_thread(self._write, start.identifiers, fetched, plan)
        report = replace(
            self._report(fetched, plan, vendors, leads),
            share_missing={side.value: round(each.share, 4) for side, each in missing.items()},
            requests=self.client.usage.calls,
            seconds=round(time.monotonic() - began, 3),
            seconds_waited_on_limit=round(self.client.usage.waited_seconds, 3),
            warnings=(*warnings, *fetched.notes, *_warnings(plan)),
        )
        if would_stop is not None:
            raise WouldStop(report, would_stop)
        if fetched.failed:
            raise CrmPartlyFailed(report, _curable_first(fetched))
        return report

    def _missing(self, identifiers: Identifiers, plan: SyncPlan, *, accept: bool) -> Mapping[Side, Missing]:
        return check_share(
            identifiers,
            plan.vendors.lost | plan.leads.lost,
            location_id=self.access.location_id,
            most_missing=self.rules.most_missing,
            accept=accept,
        )

    def _start(self) -> _Start:
        with self.engine.connect() as connection:
            settings = crm_client(connection, self.access.location_id)
            # The time before the rows: whoever is written after it is seen to by the next run.
            remembered = load_remembered(connection, self.access.client_id)
            return _Start(settings, load_identifiers(connection, self.access.client_id), remembered)

    async def _place(self, settings: CrmClient) -> tuple[Place, list[str]]:
        """How the location's contacts are read, and what a person should know of that."""
        warnings: list[str] = []
        fields, users = FieldIds({}), tuple[User, ...]()
        try:
            fields = FieldIds.find(settings.keys, await self.client.custom_fields())
        except ScopeMissing:
            warnings.append(NO_FIELDS)
        else:
            configured = {normal_key(name) for name in settings.field_keys}
            if unknown := [name.value for name in fields.missing if name in configured]:
                warnings.append(f"The location has no custom field with the key configured for {', '.join(unknown)}")
        try:
            users = await self.client.users()
        except ScopeMissing:
            warnings.append(NO_USERS)
        return Place(users, fields, self.access.default_region, settings.discover), warnings

    async def _fetched(self, start: _Start) -> Fetched:
        location_id = self.access.location_id
        learned = await in_thread(load_learned, self.engine, location_id, self.rules.group_size)
        remembers = None if self.options.dry_run else self.engine
        knowledge = LocationKnowledge(self.client, learned, remembers, detailed=True)
        try:
            return await fetch(
                self.client,
                knowledge,
                start.identifiers,
                start.remembered,
                self.rules.fetch,
                discover=start.settings.discover,
                full=self.options.full,
            )
        finally:
            size = knowledge.group_size
            if remembers and (size.size, size.ceiling) != (learned.group_size, learned.group_ceiling):
                await in_thread(save_group_size, self.engine, location_id, size.size, size.ceiling)

    def _write(self, identifiers: Identifiers, fetched: Fetched, plan: SyncPlan) -> tuple[SideCounts, SideCounts]:
        """Writes both sides, then what was seen: a kill before that costs the next run the same calls, and nobody."""
        client_id, dry_run = self.access.client_id, self.options.dry_run
        vendors = RowStore(self.engine, client_id, vendor_rules(), dry_run=dry_run)
        vendors.write(plan.vendors.rows)
        vendors.create(plan.vendors.new)
        of_leads = lead_rules(self.rules.protected, fetched.began_at)
        leads = RowStore(self.engine, client_id, of_leads, dry_run=dry_run)
        leads.write(plan.leads.rows)
        leads.create(plan.leads.new)
        if not dry_run:
            with self.engine.begin() as connection:
                again = [*vendors.left_to_the_next_run(connection), *leads.left_to_the_next_run(connection)]
                remember(connection, client_id, identifiers, fetched, again)
        return vendors.counts, leads.counts

    def _report(self, fetched: Fetched, plan: SyncPlan, vendors: SideCounts, leads: SideCounts) -> CrmReport:
        calls = {"custom_fields": 1, "users": 1, **asdict(fetched.calls)}
        return CrmReport(
            location=self.access.location_id,
            mode=fetched.mode,
            dry_run=self.options.dry_run,
            vendors_updated=vendors.updated,
            vendors_created=vendors.created,
            vendors_missing_in_ghl=vendors.missing,
            vendors_back=vendors.back,
            leads_updated=leads.updated,
            leads_created=leads.created,
            leads_deleted=leads.missing,
            leads_back=leads.back,
            ghl_contacts_fetched=len(fetched.contacts),
            classes=plan.classes,
            reasons=plan.reasons,
            reclassified=plan.reclassified,
            known_staff=plan.known_staff,
            errors=len(fetched.failed),
            conflicts=vendors.conflicts + leads.conflicts + plan.vendors.conflicts + plan.leads.conflicts,
            ambiguous=plan.vendors.ambiguous + plan.leads.ambiguous,
            changed_meanwhile=vendors.changed_meanwhile + leads.changed_meanwhile,
            coverage_unread=plan.coverage_unread,
            unreadable_fields=plan.unreadable_fields,
            calls={name: count for name, count in calls.items() if count},
        )


def _warnings(plan: SyncPlan) -> list[str]:
    if not plan.known_staff:
        return []
    told = (
        f"{plan.known_staff} vendors or leads are linked to contacts of staff, so that nothing of these is taken over; "
        f"if they are none, change the contact's type in GHL, or the e-mail or phone that it shares with a user"
    )
    return [told]


def _curable_first(fetched: Fetched) -> GhlError:
    """One of the errors: one that another run may cure if there is any, so that nothing curable counts as permanent."""
    errors = list(fetched.failed.values())
    return next((error for error in errors if not isinstance(error, PermanentGhlError)), errors[0])
