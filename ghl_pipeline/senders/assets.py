"""The asset of the accounts: listed, and the leads repaired whose account cannot send."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine

from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions
from ghl_pipeline.senders.checks import CHECKS, evaluate
from ghl_pipeline.senders.report import LEFT_TO_ANOTHER, SendersReport
from ghl_pipeline.senders.senders import SENDER_ACCOUNTS, Senders

# What a failed run says of the locations that failed.
CONSEQUENCE = "Accounts of a list that was not whole were left as they are; the next run lists them again."


class SendersConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the schedule uses."
    )


SPEC = dg.AssetSpec(
    SENDER_ACCOUNTS,
    description="The accounts by which a client's EmailBison workspace sends, and its leads, each with one that can. "
    "Grain: one row per account, marked when it is gone, never deleted; each lead that was given another account is on "
    "record. Units: accounts, leads by what was wrong with their account, requests, seconds.",
    group_name="senders",
    owners=["team:revops"],
    kinds={"emailbison", "postgres"},
    partitions_def=location_partitions,
    skippable=True,
)


@dg.multi_asset(name="sender_sync", specs=[SPEC], check_specs=CHECKS, backfill_policy=dg.BackfillPolicy.single_run())
def sender_sync(
    context: dg.AssetExecutionContext,
    config: SendersConfig,
    senders: dg.ResourceParam[Senders],
    engine: dg.ResourceParam[Engine],
) -> Iterator[dg.AssetCheckResult]:
    """Lists each client's accounts and repairs its leads; a location that fails is named at the end, stops no other."""
    history = AssetHistory(context)
    locations = asked_locations(context, config.locations)

    def told(location_id: str, report: SendersReport) -> None:
        history.done(SENDER_ACCOUNTS, location_id, report.told())

    result = run_stoppable(context, senders.sync(locations, run_id=history.run_id, told=told))
    if not config.locations:
        # Dagster counts a partition of a backfill without an event as failed; one that was named has to have its own.
        for location_id, report in result.reports.items():
            if report.skipped is not None:
                told(location_id, report)
        for location_id in result.busy:
            told(location_id, SendersReport(location_id, skipped=LEFT_TO_ANOTHER))
    for location_id, report in result.reports.items():
        if report.doubted_since is not None:
            context.log.warning("location %s: its list lacks most known accounts; not believed yet", location_id)
    # Each location's event was logged when it was done; outputs yielded here would be second ones.
    yield from evaluate(engine)
    if result.failures:
        raise run_failure(result.failures, len(locations), CONSEQUENCE)
