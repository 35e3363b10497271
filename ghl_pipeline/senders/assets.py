"""The asset of the accounts: listed, and the leads repaired whose account cannot send."""

from collections.abc import Iterator, Sequence

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine

from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.partitions import location_partitions
from ghl_pipeline.senders.checks import CHECKS, evaluate
from ghl_pipeline.senders.report import LEFT_TO_ANOTHER, SendersReport
from ghl_pipeline.senders.senders import SENDER_ACCOUNTS, Senders


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
    locations = _locations(context, config.locations)

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
        raise _failure(result.failures, len(locations))


def _locations(context: dg.AssetExecutionContext, configured: Sequence[str]) -> list[str]:
    """The configured locations, else those of the run's partitions; a run without either has none to look at."""
    if configured or not (context.has_partition_key or context.has_partition_key_range):
        return list(configured)
    return list(context.partition_keys)


def _failure(failures: Sequence[FailedLocation], locations: int) -> dg.Failure:
    """The run's failure: how many locations, and each with its reason. Nothing is retried blindly."""
    return dg.Failure(
        f"{len(failures)} of {locations} locations failed; the others are done. Each reason is in this event's "
        "metadata. Accounts of a list that was not whole were left as they are; the next run lists them again.",
        metadata={
            "failed_locations": dg.MetadataValue.json(
                {f.location_id: {"error": f.error_class, "text": f.text, "permanent": f.permanent} for f in failures}
            )
        },
        allow_retries=False,
    )
