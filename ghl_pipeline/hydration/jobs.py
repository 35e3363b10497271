"""Jobs of hydration: what schedules, sensors and people start."""

import dagster as dg

from ghl_pipeline.hydration.assets import SPECS

hydrate_leads = dg.define_asset_job(
    "hydrate_leads",
    selection=dg.AssetSelection.assets(*[spec.key for spec in SPECS]),
    description="All three steps: list the eligible leads, resolve their contacts, write the fields back.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
