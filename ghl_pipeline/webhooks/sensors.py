"""Starts handling for locations whose inbox has something due."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.orchestration.in_hand import in_hand
from ghl_pipeline.orchestration.partition_sync import locations_of_runs
from ghl_pipeline.webhooks.assets import EventsConfig
from ghl_pipeline.webhooks.inbox.claims import HANDLING, due_locations
from ghl_pipeline.webhooks.jobs import handle_events

# Somebody waits for it: it goes before everything else in the queue.
PRIORITY_TAGS = {"dagster/priority": "10"}


def webhook_inbox_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor, with the status it has before somebody switches it in the UI."""

    @dg.sensor(
        name="webhook_inbox",
        job=handle_events,
        minimum_interval_seconds=5,
        default_status=default_status,
        description="One run for all locations with events to handle, unless a run is at them already.",
    )
    def webhook_inbox(
        context: dg.SensorEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> dg.RunRequest | dg.SkipReason:
        with engine.connect() as connection:
            due = due_locations(connection, rested=True)
            if not due:
                return dg.SkipReason("no events to handle")
            in_work = in_hand(connection, HANDLING, locations_of_runs(context.instance, handle_events.name))
        locations = [location_id for location_id in due if location_id not in in_work]
        if not locations:
            return dg.SkipReason(f"runs are at all {len(due)} locations with events already")
        return dg.RunRequest(
            run_config=dg.RunConfig(ops={"event_handling": EventsConfig(locations=locations)}),
            tags={**PRIORITY_TAGS, "ghl_pipeline/locations": str(len(locations))},
        )

    return webhook_inbox
