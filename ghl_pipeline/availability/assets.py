"""The asset of free times: one op for many locations, each materialized at the moment it is done."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine

from ghl_pipeline.availability.availability import AVAILABILITY_SLOTS, DEFAULT_CONCURRENCY, Availability
from ghl_pipeline.availability.checks import CHECKS, evaluate
from ghl_pipeline.availability.report import LEFT_TO_ANOTHER
from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions

# What a failed run says of the locations that failed.
CONSEQUENCE = "Free times of those that failed are those of before and marked as stale; the next run tries again."


class AvailabilityConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the schedule uses."
    )
    concurrency: int = Field(default=DEFAULT_CONCURRENCY, gt=0, description="Locations worked on at the same time.")


SPEC = dg.AssetSpec(
    AVAILABILITY_SLOTS,
    description="Free times of the next 30 days in the calendar that a client's leads book in, at GHL or Calendly. "
    "Grain: one row per client and time, UTC. A calendar that could not be asked keeps the times it has, marked as "
    "stale with the reason. Units: free times, requests, seconds.",
    group_name="availability",
    owners=["team:revops"],
    kinds={"gohighlevel", "postgres"},
    partitions_def=location_partitions,
    skippable=True,
)


@dg.multi_asset(
    name="availability_refresh", specs=[SPEC], check_specs=CHECKS, backfill_policy=dg.BackfillPolicy.single_run()
)
def availability_refresh(
    context: dg.AssetExecutionContext,
    config: AvailabilityConfig,
    availability: dg.ResourceParam[Availability],
    engine: dg.ResourceParam[Engine],
) -> Iterator[dg.AssetCheckResult]:
    """Refreshes each client's free times; a provider that fails is named at the end and stops no other client."""
    history = AssetHistory(context)
    locations = asked_locations(context, config.locations)
    work = availability.refresh(locations, history, concurrency=config.concurrency)
    result = run_stoppable(context, work)
    context.log.info("free times: %s", ", ".join(f"{name} {count}" for name, count in result.counts().items()))
    if result.not_reached:
        context.log.warning("%d locations were not reached and are first in the next run", len(result.not_reached))
    if result.busy:
        context.log.warning("%d locations were left to other runs at work there", len(result.busy))
    not_reached: tuple[str, ...] = ()
    if not config.locations:
        # Dagster counts a partition of a backfill without an event as failed, and so are those that were not reached:
        # the schedule's next run begins with them, but who asked for them by name got nothing.
        for location_id in result.busy:
            history.done(AVAILABILITY_SLOTS, location_id, LEFT_TO_ANOTHER)
        not_reached = result.not_reached
    # Each location's event was logged when it was done; a result yielded here would be a second one.
    yield from evaluate(engine)
    if result.failures or not_reached:
        raise run_failure(result.failures, len(locations), CONSEQUENCE, not_reached=not_reached)
