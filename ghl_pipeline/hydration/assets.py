"""The three assets of hydration, as three outputs of one op, so that each location moves through them on its own."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.options import BUSY_WAIT_SECONDS, DEFAULT_CONCURRENCY, Options, Step
from ghl_pipeline.hydration.work_list import Scope
from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions

GROUP = "hydration"
OWNERS = ["team:revops"]
# What a failed run says of the locations that failed.
CONSEQUENCE = "Run the failed partitions again to go on from their resume points."


class HydrationConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what sensors use."
    )
    only_new: bool = Field(default=False, description="Only leads that were never looked up.")
    fresh: bool = Field(default=False, description="Start over even where a run was interrupted.")
    dry_run: bool = Field(default=False, description="Count what would change; write nothing to leads.")
    max_leads: int | None = Field(default=None, gt=0, description="At most so many leads per location.")
    concurrency: int = Field(default=DEFAULT_CONCURRENCY, gt=0, description="Locations worked on at the same time.")
    page_size: int | None = Field(
        default=None, gt=0, le=5000, description="Leads looked up and recorded at a time; HYDRATION_PAGE_SIZE if unset."
    )
    busy_wait_seconds: float = Field(
        default=BUSY_WAIT_SECONDS,
        ge=0,
        description="How long to wait for a location that another run works on, such as a schedule's; others go on.",
    )


def _spec(step: Step, description: str, *, after: Step | None = None, kinds: set[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        step.value,
        deps=[after.value] if after else [],
        description=description,
        group_name=GROUP,
        owners=OWNERS,
        kinds=kinds,
        partitions_def=location_partitions,
        skippable=True,
    )


SPECS = [
    _spec(
        Step.ELIGIBLE_LEADS,
        "The work list of a location. Grain: one row per lead that misses phone, e-mail, first name, last name or "
        "company name, or has an e-mail but no link to its contact. Unit of all counts: leads.",
        kinds={"postgres"},
    ),
    _spec(
        Step.RESOLVED_CONTACTS,
        "The contact of each listed lead, found by search and never created. Grain: one row per lead looked up, with "
        "its outcome and the fields needed; emptied by the write-back. Units: leads, requests, seconds.",
        after=Step.ELIGIBLE_LEADS,
        kinds={"gohighlevel", "postgres"},
    ),
    _spec(
        Step.HYDRATED_LEADS,
        "The leads with their empty fields filled and their contact linked. Grain: one row per lead, written at most "
        "once per change; a value that a person typed is never overwritten. Unit: leads by outcome and by field.",
        after=Step.RESOLVED_CONTACTS,
        kinds={"postgres"},
    ),
]


@dg.multi_asset(name="lead_hydration", specs=SPECS, can_subset=True, backfill_policy=dg.BackfillPolicy.single_run())
def lead_hydration(
    context: dg.AssetExecutionContext, config: HydrationConfig, hydration: dg.ResourceParam[Hydration]
) -> Iterator[dg.MaterializeResult[None]]:
    """Repairs each location's leads from its contacts; one that fails is named at the end and stops no other."""
    locations = asked_locations(context, config.locations)
    result = run_stoppable(context, hydration.run(locations, AssetHistory(context), _options(context, config)))
    if result.skipped:
        context.log.warning("%d locations were done before in this attempt and were skipped", len(result.skipped))
    if result.failures:
        raise run_failure(result.failures, len(locations), CONSEQUENCE)
    # Every event was logged when its step was done; a result yielded here would be a second one for each partition.
    yield from ()


def _options(context: dg.AssetExecutionContext, config: HydrationConfig) -> Options:
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    return Options(
        steps=frozenset(step for step in Step if step.value in selected),
        scope=Scope.NEVER_LOOKED_UP if config.only_new else Scope.ALL,
        fresh=config.fresh,
        dry_run=config.dry_run,
        max_leads=config.max_leads,
        concurrency=config.concurrency,
        page_size=config.page_size,
        busy_wait_seconds=config.busy_wait_seconds,
    )
