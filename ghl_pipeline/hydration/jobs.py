"""Jobs of hydration: what schedules, sensors and people start."""

import dagster as dg

from ghl_pipeline.hydration.assets import lead_hydration
from ghl_pipeline.orchestration.selections import assets_of

hydrate_leads = dg.define_asset_job(
    "hydrate_leads",
    selection=assets_of(lead_hydration),
    description="All three steps: list the eligible leads, resolve their contacts, write the fields back.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
