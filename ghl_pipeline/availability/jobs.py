"""Jobs of availability: what the schedule and people start."""

import dagster as dg

from ghl_pipeline.availability.assets import SPEC

refresh_availability = dg.define_asset_job(
    "refresh_availability",
    selection=dg.AssetSelection.assets(SPEC.key),
    description="The free times of the clients' calendars, as their providers show them now.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
