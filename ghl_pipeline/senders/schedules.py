"""Every hour: the accounts of every client whose EmailBison workspace can be asked."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.locations.emailbison import locations_with_workspace
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.orchestration.scheduled_runs import runs_of_due_locations
from ghl_pipeline.orchestration.staggering import Rhythm
from ghl_pipeline.senders.assets import SendersConfig
from ghl_pipeline.senders.jobs import sync_senders
from ghl_pipeline.senders.report import CAPABILITY

HOURLY = Rhythm("hourly_senders", timedelta(hours=1), places=12, apart=timedelta(minutes=5), first=timedelta(minutes=4))


def senders_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_senders",
        job=sync_senders,
        cron_schedule="4-59/5 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="The EmailBison accounts of each active client that has a workspace, and leads whose account "
        "cannot send; each once an hour, a twelfth of them every 5 minutes. A workspace that refused its token is left "
        "out for a day.",
    )
    def hourly_senders(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return runs_of_due_locations(
                context,
                connection,
                HOURLY,
                job=sync_senders.name,
                capability=CAPABILITY,
                locations=locations_with_workspace(connection),
                held=held_back(connection, CAPABILITY),
                run_config=lambda due: dg.RunConfig(ops={"sender_sync": SendersConfig(locations=due)}),
                nobody="no active client has an EmailBison workspace that can be asked",
            )

    return hourly_senders
