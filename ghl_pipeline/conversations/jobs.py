"""Jobs of conversations: what the schedule and people start."""

import dagster as dg

from ghl_pipeline.conversations.assets import message_import
from ghl_pipeline.orchestration.selections import assets_of

import_messages = dg.define_asset_job(
    "import_messages",
    selection=assets_of(message_import),
    description="The text messages since the last import, matched to the clients' leads.",
    # Locations overlap inside one process; a process per step would only add its start-up.
    executor_def=dg.in_process_executor,
)
