"""The messages asset: one op for many locations, each materialized at the moment it is done."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from ghl_pipeline.conversations.conversations import DEFAULT_CONCURRENCY, SMS_MESSAGES, Conversations
from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions

# What a failed run says of the locations that failed.
CONSEQUENCE = "The next import goes on from what was stored."


class MessageImportConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the schedule uses."
    )
    from_start: bool = Field(
        default=False, description="As far back as a first import (SMS_IMPORT_FIRST_DAYS), for leads linked since."
    )
    concurrency: int = Field(default=DEFAULT_CONCURRENCY, gt=0, description="Locations worked on at the same time.")


SPEC = dg.AssetSpec(
    SMS_MESSAGES,
    description="The text messages of a client's leads, from GHL's export. Grain: one row per message, however it came "
    "(webhook or import); a message of nobody's lead is counted and left out. Units: messages, leads, requests, "
    "seconds.",
    group_name="conversations",
    owners=["team:revops"],
    kinds={"gohighlevel", "postgres"},
    partitions_def=location_partitions,
    skippable=True,
)


@dg.multi_asset(name="message_import", specs=[SPEC], backfill_policy=dg.BackfillPolicy.single_run())
def message_import(
    context: dg.AssetExecutionContext, config: MessageImportConfig, conversations: dg.ResourceParam[Conversations]
) -> Iterator[dg.MaterializeResult[None]]:
    """Imports each location's messages since its last import; one that fails is named at the end and stops no other."""
    locations = asked_locations(context, config.locations)
    work = conversations.import_messages(
        locations, AssetHistory(context), from_start=config.from_start, concurrency=config.concurrency
    )
    result = run_stoppable(context, work)
    if result.skipped:
        context.log.warning("%d locations were done before in this attempt and were skipped", len(result.skipped))
    if result.busy:
        context.log.warning("%d locations were left to other imports at work there", len(result.busy))
    if result.failures:
        raise run_failure(result.failures, len(locations), CONSEQUENCE)
    # Every event was logged when its location was done; a result yielded here would be a second one for each.
    yield from ()
