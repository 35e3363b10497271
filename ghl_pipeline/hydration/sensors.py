"""Starts hydration for leads that have just been created."""

from datetime import UTC, datetime

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.hydration.assets import HydrationConfig
from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.hydration.new_leads import Cursor, find_new_leads


def new_lead_sensor(default_status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor, with the status it has before somebody switches it in the UI."""

    @dg.sensor(
        name="new_leads",
        job=hydrate_leads,
        minimum_interval_seconds=30,
        default_status=default_status,
        description="One run for all locations with new leads; asks for those leads only.",
    )
    def new_leads(context: dg.SensorEvaluationContext, engine: dg.ResourceParam[Engine]) -> dg.SensorResult:
        new = find_new_leads(engine, Cursor.parse(context.cursor) if context.cursor else None)
        if not new.locations:
            return dg.SensorResult(skip_reason="no new leads", cursor=str(new.cursor))
        config = HydrationConfig(locations=list(new.locations), only_new=True)
        request = dg.RunRequest(
            # The same leads are asked for once an hour until they were looked up: while their run waits in the queue
            # it is not requested twice, and when it failed it is requested again.
            run_key=f"new-leads-{new.key}-{datetime.now(UTC):%Y%m%d%H}",
            run_config=dg.RunConfig(ops={"lead_hydration": config}),
            tags={"ghl_pipeline/leads": str(new.leads), "ghl_pipeline/locations": str(len(new.locations))},
        )
        return dg.SensorResult(run_requests=[request], cursor=str(new.cursor))

    return new_leads
