"""Every hour: what webhooks lost is fetched, from EmailBison's log and by GHL's changed contacts."""

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.hydration.assets import HydrationConfig
from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.hydration.schedules import BUSY_WAIT_SECONDS, LOCATIONS_PER_RUN
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.attempts import HYDRATION, held_back
from ghl_pipeline.webhooks.assets import ReconcileConfig
from ghl_pipeline.webhooks.jobs import reconcile_events
from ghl_pipeline.webhooks.reconciling.many_workspaces import locations_to_reconcile


def reconcile_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_reconcile",
        job=reconcile_events,
        cron_schedule="17 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Reads EmailBison's log of every workspace that can be asked, and drops old bodies of events.",
    )
    def hourly_reconcile(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> dg.RunRequest | dg.SkipReason:
        with engine.connect() as connection:
            locations = locations_to_reconcile(connection)
            if not locations and not active_locations(connection):
                return dg.SkipReason("there is no active client")
        return dg.RunRequest(
            run_key=f"reconcile-{context.scheduled_execution_time:%Y%m%d%H}",
            run_config=dg.RunConfig(ops={"event_reconcile": ReconcileConfig(locations=locations)}),
            tags={"ghl_pipeline/locations": str(len(locations))},
        )

    return hourly_reconcile


def changed_contacts_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_changes",
        job=hydrate_leads,
        cron_schedule="47 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="All active locations every hour; of one where nothing changed it takes a request or two.",
    )
    def hourly_changes(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            refused = held_back(connection, HYDRATION)
            locations = [each for each in active_locations(connection, with_token=True) if each not in refused]
        if not locations:
            return dg.SkipReason(f"no active client has a usable token ({len(refused)} locations refused theirs)")
        hour = f"{context.scheduled_execution_time:%Y%m%d%H}"
        batches = [locations[at : at + LOCATIONS_PER_RUN] for at in range(0, len(locations), LOCATIONS_PER_RUN)]
        return [
            dg.RunRequest(
                run_key=f"changes-{hour}-{number}",
                run_config=dg.RunConfig(
                    ops={"lead_hydration": HydrationConfig(locations=batch, busy_wait_seconds=BUSY_WAIT_SECONDS)}
                ),
                tags={"ghl_pipeline/locations": str(len(batch))},
            )
            for number, batch in enumerate(batches)
        ]

    return hourly_changes
