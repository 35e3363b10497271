"""Free times of every client that has a calendar, every 30 minutes."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.availability.assets import AvailabilityConfig
from ghl_pipeline.availability.availability import CAPABILITY
from ghl_pipeline.availability.client_calendars import calendar_locations, never_tried_since_change
from ghl_pipeline.availability.jobs import refresh_availability
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.orchestration.scheduled_runs import runs_of_due_locations
from ghl_pipeline.orchestration.staggering import Rhythm

REFRESH = Rhythm(
    "availability", timedelta(minutes=30), places=6, apart=timedelta(minutes=5), first=timedelta(minutes=1)
)


def availability_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="availability",
        job=refresh_availability,
        cron_schedule="1-59/5 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Free times of each active client with a calendar every 30 minutes, a sixth of them every 5, those "
        "first that have waited longest. A location whose token was refused, by GHL or Calendly, is left out for a "
        "day, unless its calendar was changed.",
    )
    def availability(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return runs_of_due_locations(
                context,
                connection,
                REFRESH,
                job=refresh_availability.name,
                capability=CAPABILITY,
                locations=calendar_locations(connection),
                held=held_back(connection, CAPABILITY) - never_tried_since_change(connection),
                run_config=lambda due: dg.RunConfig(ops={"availability_refresh": AvailabilityConfig(locations=due)}),
                nobody="no active client has a calendar that may be asked",
            )

    return availability
