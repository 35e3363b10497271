"""Hydration of every active location, every night."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.hydration.assets import HydrationConfig
from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.attempts import HYDRATION, held_back
from ghl_pipeline.orchestration.scheduled_runs import runs_of_due_locations
from ghl_pipeline.orchestration.staggering import Rhythm

# 02:00 to 05:50 UTC.
NIGHTLY = Rhythm(
    "nightly_hydration", timedelta(days=1), places=24, apart=timedelta(minutes=10), first=timedelta(hours=2)
)


def hydration_of(locations: list[str]) -> dg.RunConfig:
    """The configuration of a run that does all steps at some locations."""
    config = HydrationConfig(locations=locations)
    return dg.RunConfig(ops={"lead_hydration": config})


def nightly_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="nightly_hydration",
        job=hydrate_leads,
        cron_schedule="*/10 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Each active location once a night, at its own time between 02:00 and 06:00 UTC; goes on where an "
        "interrupted run stopped. A new one, and one whose night was missed, at once.",
    )
    def nightly_hydration(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return runs_of_due_locations(
                context,
                connection,
                NIGHTLY,
                job=hydrate_leads.name,
                capability=HYDRATION,
                locations=active_locations(connection, with_token=True),
                held=held_back(connection, HYDRATION),
                run_config=hydration_of,
            )

    return nightly_hydration
