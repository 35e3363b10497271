"""Keeps the `location` partitions in step with the active clients."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.partition_sync import sync_partitions


def location_partitions_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor, with the status it has before somebody switches it in the UI."""

    @dg.sensor(
        name="location_partitions",
        minimum_interval_seconds=30,
        default_status=default_status,
        description="Adds a partition for every active client's location; removes one once its client is deactivated "
        "and nothing works on it.",
    )
    def keep_location_partitions(
        context: dg.SensorEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> dg.SkipReason:
        # A read that fails raises here, so it can never look like an empty list of clients.
        with engine.connect() as connection:
            active = active_locations(connection)
        change = sync_partitions(context.instance, active)
        return dg.SkipReason(
            f"{len(active)} active locations: {len(change.added)} partitions added, {len(change.removed)} removed, "
            f"{len(change.kept_busy)} of deactivated clients kept because something works on them"
        )

    return keep_location_partitions
