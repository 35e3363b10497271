"""Jobs of the accounts: what the schedule and people start."""

import dagster as dg

from ghl_pipeline.senders.assets import SPEC

sync_senders = dg.define_asset_job(
    "sync_senders",
    selection=dg.AssetSelection.assets(SPEC.key),
    description="Lists the clients' EmailBison accounts, and gives leads whose account cannot send another one.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
