"""Messages of every active location, every 15 minutes: what webhooks lost, and all of them where there are none."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.conversations.assets import MessageImportConfig
from ghl_pipeline.conversations.conversations import CAPABILITY
from ghl_pipeline.conversations.jobs import import_messages
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.orchestration.scheduled_runs import runs_of_due_locations
from ghl_pipeline.orchestration.staggering import Rhythm

IMPORT = Rhythm("message_import", timedelta(minutes=15), places=3, apart=timedelta(minutes=5))


def message_import_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="message_import",
        job=import_messages,
        cron_schedule="*/5 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="New text messages of each active location every 15 minutes, a third of them every 5; a location "
        "that an earlier import is still at is left to it, and so is one that refused its token, for a day.",
    )
    def message_import(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return runs_of_due_locations(
                context,
                connection,
                IMPORT,
                job=import_messages.name,
                capability=CAPABILITY,
                locations=active_locations(connection, with_token=True),
                held=held_back(connection, CAPABILITY),
                run_config=lambda due: dg.RunConfig(ops={"message_import": MessageImportConfig(locations=due)}),
            )

    return message_import
