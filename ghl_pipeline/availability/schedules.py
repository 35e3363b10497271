"""Free times of every client that has a calendar, every 30 minutes."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.availability.assets import AvailabilityConfig
from ghl_pipeline.availability.availability import CAPABILITY
from ghl_pipeline.availability.client_calendars import calendar_locations, never_tried_since_change
from ghl_pipeline.availability.jobs import refresh_availability
from ghl_pipeline.orchestration.attempts import held_back

# So many locations overlap well in one process; more are spread over the runs that the queue lets go at once.
LOCATIONS_PER_RUN = 250


def availability_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="availability",
        job=refresh_availability,
        cron_schedule="*/30 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Free times of all active clients with a calendar, every 30 minutes, those first that have waited "
        "longest. A location whose token was refused, by GHL or Calendly, is left out for a day, unless its calendar "
        "was changed.",
    )
    def availability(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            refused = held_back(connection, CAPABILITY) - never_tried_since_change(connection)
            locations = [each for each in calendar_locations(connection) if each not in refused]
        if not locations:
            return dg.SkipReason(f"no active client has a calendar ({len(refused)} locations refused their tokens)")
        due = context.scheduled_execution_time.strftime("%Y%m%d%H%M")
        batches = [locations[at : at + LOCATIONS_PER_RUN] for at in range(0, len(locations), LOCATIONS_PER_RUN)]
        return [
            dg.RunRequest(
                run_key=f"availability-{due}-{number}",
                run_config=dg.RunConfig(ops={"availability_refresh": AvailabilityConfig(locations=batch)}),
                tags={"ghl_pipeline/locations": str(len(batch))},
            )
            for number, batch in enumerate(batches)
        ]

    return availability
