"""Jobs of availability: what the schedule and people start."""

import dagster as dg

from ghl_pipeline.availability.assets import availability_refresh
from ghl_pipeline.orchestration.selections import assets_of

refresh_availability = dg.define_asset_job(
    "refresh_availability",
    selection=assets_of(availability_refresh),
    description="The free times of the clients' calendars, as their providers show them now.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
