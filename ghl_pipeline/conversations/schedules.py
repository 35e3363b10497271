"""Messages of every active location, every 15 minutes: what webhooks lost, and all of them where there are none."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.conversations.assets import MessageImportConfig
from ghl_pipeline.conversations.conversations import CAPABILITY
from ghl_pipeline.conversations.jobs import import_messages
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.attempts import held_back

# So many locations overlap well in one process; more are spread over the runs that the queue lets go at once.
LOCATIONS_PER_RUN = 250


def message_import_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="message_import",
        job=import_messages,
        cron_schedule="*/15 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="New text messages of all active locations, every 15 minutes; a location that an earlier import "
        "is still at is left to it, and so is one that refused its token, for a day.",
    )
    def message_import(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            refused = held_back(connection, CAPABILITY)
            locations = [each for each in active_locations(connection, with_token=True) if each not in refused]
        if not locations:
            return dg.SkipReason(f"no active client has a usable token ({len(refused)} locations refused theirs)")
        due = context.scheduled_execution_time.strftime("%Y%m%d%H%M")
        batches = [locations[at : at + LOCATIONS_PER_RUN] for at in range(0, len(locations), LOCATIONS_PER_RUN)]
        return [
            dg.RunRequest(
                run_key=f"messages-{due}-{number}",
                run_config=dg.RunConfig(ops={"message_import": MessageImportConfig(locations=batch)}),
                tags={"ghl_pipeline/locations": str(len(batch))},
            )
            for number, batch in enumerate(batches)
        ]

    return message_import
