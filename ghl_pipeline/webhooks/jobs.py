"""Jobs of events: what the sensor, the schedule and people start."""

import dagster as dg

from ghl_pipeline.orchestration.selections import assets_of
from ghl_pipeline.webhooks.assets import event_handling, event_reconcile

handle_events = dg.define_asset_job(
    "handle_events",
    selection=assets_of(event_handling),
    description="Handles the events that are due in the inbox.",
    executor_def=dg.in_process_executor,
)

reconcile_events = dg.define_asset_job(
    "reconcile_events",
    selection=assets_of(event_reconcile),
    description="Fills the inbox with what webhooks lost.",
    executor_def=dg.in_process_executor,
)
