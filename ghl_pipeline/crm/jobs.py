"""Jobs of the CRM: what the schedules and people start."""

import dagster as dg

from ghl_pipeline.crm.assets import crm_sync
from ghl_pipeline.orchestration.selections import assets_of

sync_crm = dg.define_asset_job(
    "sync_crm",
    selection=assets_of(crm_sync),
    description="Keeps vendors and leads of the clients that are switched on in step with GHL.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
