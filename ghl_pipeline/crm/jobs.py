"""Jobs of the CRM: what the schedules and people start."""

import dagster as dg

from ghl_pipeline.crm.assets import SPECS

sync_crm = dg.define_asset_job(
    "sync_crm",
    selection=dg.AssetSelection.assets(*(spec.key for spec in SPECS)),
    description="Keeps vendors and leads of the clients that are switched on in step with GHL.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
