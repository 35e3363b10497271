"""Starts drafts for locations with messages that want one."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.drafts.assets import DraftsConfig
from ghl_pipeline.drafts.drafts import Drafts
from ghl_pipeline.drafts.in_hand import failing_locations
from ghl_pipeline.drafts.jobs import write_drafts
from ghl_pipeline.drafts.wanting import CAPABILITY
from ghl_pipeline.orchestration.in_hand import in_hand
from ghl_pipeline.orchestration.partition_sync import locations_of_runs

# Somebody waits for an answer: after events, before everything else in the queue.
PRIORITY_TAGS = {"dagster/priority": "8"}


def reply_drafts_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor, with the status it has before somebody switches it in the UI."""

    @dg.sensor(
        name="reply_drafts",
        job=write_drafts,
        minimum_interval_seconds=20,
        default_status=default_status,
        description="One run for all locations with messages that want a draft, unless a run is at them already.",
    )
    def reply_drafts(
        context: dg.SensorEvaluationContext, engine: dg.ResourceParam[Engine], drafts: dg.ResourceParam[Drafts]
    ) -> dg.RunRequest | dg.SkipReason:
        if not drafts.has_key:
            return dg.SkipReason("no drafts: neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set")
        due = drafts.due()
        if not due:
            return dg.SkipReason("no message wants a draft")
        if drafts.is_refused():
            return dg.SkipReason(
                f"{len(due)} locations have such messages, but every provider refused its key or model within the "
                "hour. Correct OPENAI_API_KEY, OPENAI_MODEL, ANTHROPIC_API_KEY or ANTHROPIC_MODEL"
            )
        with engine.connect() as connection:
            left_alone = in_hand(connection, CAPABILITY, locations_of_runs(context.instance, write_drafts.name))
            left_alone |= failing_locations(connection)
        locations = [location_id for location_id in due if location_id not in left_alone]
        if not locations:
            return dg.SkipReason(f"all {len(due)} locations with such messages are at work or failed a moment ago")
        return dg.RunRequest(
            run_config=dg.RunConfig(ops={"draft_writing": DraftsConfig(locations=locations, patient=True)}),
            tags={**PRIORITY_TAGS, "ghl_pipeline/locations": str(len(locations))},
        )

    return reply_drafts
