"""The three assets of the CRM, as three outputs of one op: one fetch of a location's contacts serves all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine

from ghl_pipeline.crm.checks import CHECKS, evaluate
from ghl_pipeline.crm.client_settings import why_left_out
from ghl_pipeline.crm.crm import ASSETS, CRM_CONTACTS, CRM_LEADS, CRM_VENDORS, DEFAULT_CONCURRENCY, Crm
from ghl_pipeline.crm.fetched import FetchMode
from ghl_pipeline.crm.report import CrmReport
from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.reports import History, Report
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions

GROUP = "crm"
OWNERS = ["team:revops"]
# What a failed run says of the locations that failed.
CONSEQUENCE = "What could be written is; nobody was marked missing who could not be looked up."


class CrmConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the schedules use."
    )
    full: bool = Field(
        default=False, description="Look everybody up, also where only changes would be asked for: sees deletions."
    )
    dry_run: bool = Field(
        default=False, description="Count what would change; write nothing, tell it as observations only."
    )
    accept_missing: bool = Field(
        default=False, description="Mark missing contacts also where they are more than CRM_MOST_MISSING."
    )
    concurrency: int = Field(default=DEFAULT_CONCURRENCY, gt=0, description="Locations worked on at the same time.")


def _spec(name: str, description: str, *, after: str | None = None, kinds: set[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        name,
        deps=[after] if after else [],
        description=description,
        group_name=GROUP,
        owners=OWNERS,
        kinds=kinds,
        partitions_def=location_partitions,
        skippable=True,
    )


SPECS = [
    _spec(
        CRM_CONTACTS,
        "The contacts of a location that matter to its client, fetched once, and what each is: vendor, lead, staff or "
        "other. Held in memory only. Grain: one contact. Units: contacts by class and reason, requests by what they "
        "were for, seconds.",
        kinds={"gohighlevel"},
    ),
    _spec(
        CRM_VENDORS,
        "The client's vendors, in step with their contacts. Grain: one row per vendor, matched by contact, then by "
        "e-mail; one whose contact GHL said to be gone is marked, never deleted. Unit: vendors by what became of them.",
        after=CRM_CONTACTS,
        kinds={"postgres"},
    ),
    _spec(
        CRM_LEADS,
        "The client's leads, in step with their contacts. Grain: one row per lead, matched by contact, e-mail, then "
        "opportunity; an empty value of GHL's never replaces one. Unit: leads by what became of them.",
        after=CRM_CONTACTS,
        kinds={"postgres"},
    ),
]


# Not to be had one by one: whoever asks for the vendors has fetched the leads' contacts too.
@dg.multi_asset(name="crm_sync", specs=SPECS, check_specs=CHECKS, backfill_policy=dg.BackfillPolicy.single_run())
def crm_sync(
    context: dg.AssetExecutionContext,
    config: CrmConfig,
    crm: dg.ResourceParam[Crm],
    engine: dg.ResourceParam[Engine],
) -> Iterator[dg.AssetCheckResult]:
    """Keeps each location's vendors and leads in step; one that fails is named at the end and stops no other."""
    history: History = AssetHistory(context)
    if config.dry_run:
        history = Foreseen(history)
    locations = asked_locations(context, config.locations)
    # Partitions are chosen by range, so that one of a client that is off is nobody's mistake; one that is named is.
    left_out = {} if config.locations else _left_out(engine, locations)
    result = run_stoppable(
        context,
        crm.sync(
            [each for each in locations if each not in left_out],
            history,
            full=config.full,
            dry_run=config.dry_run,
            accept_missing=config.accept_missing,
            concurrency=config.concurrency,
        ),
    )
    if not config.locations:
        left_out |= dict.fromkeys(result.busy, "another run is at work there")
    if not config.dry_run:
        for location_id, why in left_out.items():
            _tell_left_out(history, location_id, why)
    if result.skipped:
        context.log.warning("%d locations were done before in this attempt and were skipped", len(result.skipped))
    if result.busy:
        context.log.warning("%d locations were left to other runs at work there", len(result.busy))
    # Each location's events were logged when it was done; outputs yielded here would be second ones.
    yield from evaluate(engine, most_missing=crm.most_missing)
    if result.failures:
        raise run_failure(result.failures, len(locations), CONSEQUENCE)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The history as a dry run sees it: nothing was done before, and what is done now is only observed."""

    inner: History

    @property
    def attempt(self) -> str:
        """The run's."""
        return self.inner.attempt

    @property
    def run_id(self) -> str | None:
        """The run."""
        return self.inner.run_id

    def last_done(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """None: whoever looks ahead wants to see all of it."""

    def last_progress(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """None, likewise."""

    def done(self, asset: str, location_id: str, report: Report) -> None:
        """Writes an observation, by which no partition counts as materialized."""
        self.inner.progress(asset, location_id, report)

    def progress(self, asset: str, location_id: str, report: Report) -> None:
        """Writes an observation."""
        self.inner.progress(asset, location_id, report)


def _left_out(engine: Engine, locations: Sequence[str]) -> dict[str, str]:
    with engine.connect() as connection:
        return why_left_out(connection, locations)


def _tell_left_out(history: History, location_id: str, why: str) -> None:
    """Dagster counts a partition of a backfill without an event as failed."""
    nothing = CrmReport(location=location_id, mode=FetchMode.NOTHING, dry_run=False)
    for asset, told in zip(ASSETS, nothing.as_reports(), strict=True):
        history.done(asset, location_id, Report({"skipped": why, **told.values}))
