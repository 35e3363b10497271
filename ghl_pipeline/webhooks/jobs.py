"""Jobs of events: what the sensor, the schedule and people start."""

import dagster as dg

from ghl_pipeline.webhooks.assets import HANDLED_EVENTS, RECONCILED_EVENTS

handle_events = dg.define_asset_job(
    "handle_events",
    selection=dg.AssetSelection.assets(HANDLED_EVENTS.key),
    description="Handles the events that are due in the inbox.",
    executor_def=dg.in_process_executor,
)

reconcile_events = dg.define_asset_job(
    "reconcile_events",
    selection=dg.AssetSelection.assets(RECONCILED_EVENTS.key),
    description="Fills the inbox with what webhooks lost, and drops old bodies.",
    executor_def=dg.in_process_executor,
)
