"""The drafts asset: one op for many locations, each materialized at the moment it is done."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine

from ghl_pipeline.drafts.checks import CHECKS, evaluate
from ghl_pipeline.drafts.drafts import REPLY_DRAFTS, Drafts
from ghl_pipeline.drafts.report import DraftsReport, busy_report
from ghl_pipeline.orchestration.asked_for import asked_locations
from ghl_pipeline.orchestration.history import AssetHistory
from ghl_pipeline.orchestration.interrupts import run_stoppable
from ghl_pipeline.orchestration.run_failure import run_failure
from ghl_pipeline.partitions import location_partitions

# What a failed run says of the locations that failed.
CONSEQUENCE = "Drafts that were stored are kept; the sensor asks for the rest again."


class DraftsConfig(dg.Config):
    """What can be set in the Launchpad."""

    locations: list[str] = Field(
        default=[], description="Location ids, any of them, instead of the run's partitions; what the sensor uses."
    )
    patient: bool = Field(
        default=False,
        description="Leave messages of the last 20 seconds to the next run: their leads may be writing on.",
    )
    again: bool = Field(default=False, description="Try what failed once more, also what was given up.")


SPEC = dg.AssetSpec(
    REPLY_DRAFTS,
    description="Replies for an operator to send, for messages of the last days that nobody answered: text messages, "
    "and e-mails that show interest. Grain: one row per message and channel, pending until a person decides. Nothing "
    "is sent. Units: messages, tokens, US dollars, seconds.",
    group_name="drafts",
    owners=["team:revops"],
    kinds={"openai", "postgres"},
    partitions_def=location_partitions,
    skippable=True,
)


@dg.multi_asset(name="draft_writing", specs=[SPEC], check_specs=CHECKS, backfill_policy=dg.BackfillPolicy.single_run())
def draft_writing(
    context: dg.AssetExecutionContext,
    config: DraftsConfig,
    drafts: dg.ResourceParam[Drafts],
    engine: dg.ResourceParam[Engine],
) -> Iterator[dg.AssetCheckResult]:
    """Writes what is wanted at each location; one that fails is named at the end and stops no other."""
    history = AssetHistory(context)
    locations = asked_locations(context, config.locations)
    if not drafts.has_key:
        context.log.warning(
            "No drafts are written: neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set. Set one in the environment."
        )

    def told(report: DraftsReport) -> None:
        # A partition of a backfill that has no event counts as failed; what the sensor asks for is no partition, and
        # an event that says nothing at each tick would bury the others.
        if report.did_something or not config.locations:
            history.done(REPLY_DRAFTS, report.location, report.as_report())

    result = run_stoppable(
        context, drafts.write(locations, history, again=config.again, patient=config.patient, told=told)
    )
    if result.skipped:
        context.log.warning("%d locations were done before in this attempt and were skipped", len(result.skipped))
    if result.busy:
        context.log.warning("%d locations were left to other runs at work there", len(result.busy))
    for location_id in () if config.locations else result.busy:
        history.done(REPLY_DRAFTS, location_id, busy_report(location_id))
    for sentence in result.refusals:
        context.log.error("%s; it was not asked again in this run. Correct its key or model", sentence)
    # Each location's event was logged when it was done; an output yielded here would be a second one.
    yield from evaluate(engine)
    if result.failures:
        raise run_failure(result.failures, len(locations), CONSEQUENCE)
