"""Hydration of every active location, every night."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.hydration.assets import HydrationConfig
from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.locations.clients import active_locations

# So many locations overlap well in one process; more are spread over the runs that the queue lets go at once.
LOCATIONS_PER_RUN = 250
# A location that somebody works on at two o'clock is waited for.
BUSY_WAIT_SECONDS = 600.0


def nightly_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="nightly_hydration",
        job=hydrate_leads,
        cron_schedule="0 2 * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="All active locations at 02:00 UTC, many per run; goes on where an interrupted run stopped.",
    )
    def nightly_hydration(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            locations = active_locations(connection, with_token=True)
        if not locations:
            return dg.SkipReason("there is no active client with a token")
        night = context.scheduled_execution_time.date().isoformat()
        batches = [locations[at : at + LOCATIONS_PER_RUN] for at in range(0, len(locations), LOCATIONS_PER_RUN)]
        return [
            dg.RunRequest(
                run_key=f"nightly-{night}-{number}",
                run_config=dg.RunConfig(
                    ops={"lead_hydration": HydrationConfig(locations=batch, busy_wait_seconds=BUSY_WAIT_SECONDS)}
                ),
                tags={"ghl_pipeline/locations": str(len(batch))},
            )
            for number, batch in enumerate(batches)
        ]

    return nightly_hydration
