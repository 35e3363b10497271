"""Jobs of drafts: what the sensor and people start."""

import dagster as dg

from ghl_pipeline.drafts.assets import draft_writing
from ghl_pipeline.orchestration.selections import assets_of

write_drafts = dg.define_asset_job(
    "write_drafts",
    selection=assets_of(draft_writing),
    description="Drafts for the messages that want one and have none.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
