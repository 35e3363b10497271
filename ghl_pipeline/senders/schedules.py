"""Every hour: the accounts of every client whose EmailBison workspace can be asked."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.locations.emailbison import locations_with_workspace
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.senders.assets import SendersConfig
from ghl_pipeline.senders.jobs import sync_senders
from ghl_pipeline.senders.report import CAPABILITY

# So many locations overlap well in one process; more are spread over the runs that the queue lets go at once.
LOCATIONS_PER_RUN = 250


def senders_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_senders",
        job=sync_senders,
        cron_schedule="7 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="The EmailBison accounts of all active clients that have a workspace, and leads whose account "
        "cannot send; a workspace that refused its token is left out for a day.",
    )
    def hourly_senders(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            refused = held_back(connection, CAPABILITY)
            locations = [each for each in locations_with_workspace(connection) if each not in refused]
        if not locations:
            return dg.SkipReason(
                f"no active client has an EmailBison workspace that can be asked ({len(refused)} refused their token)"
            )
        hour = f"{context.scheduled_execution_time:%Y%m%d%H}"
        batches = [locations[at : at + LOCATIONS_PER_RUN] for at in range(0, len(locations), LOCATIONS_PER_RUN)]
        return [
            dg.RunRequest(
                run_key=f"senders-{hour}-{number}",
                run_config=dg.RunConfig(ops={"sender_sync": SendersConfig(locations=batch)}),
                tags={"ghl_pipeline/locations": str(len(batch))},
            )
            for number, batch in enumerate(batches)
        ]

    return hourly_senders
