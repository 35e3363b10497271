"""Jobs of the accounts: what the schedule and people start."""

import dagster as dg

from ghl_pipeline.orchestration.selections import assets_of
from ghl_pipeline.senders.assets import sender_sync

sync_senders = dg.define_asset_job(
    "sync_senders",
    selection=assets_of(sender_sync),
    description="Lists the clients' EmailBison accounts, and gives leads whose account cannot send another one.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
