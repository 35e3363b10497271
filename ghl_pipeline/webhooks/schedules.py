"""Every hour: what webhooks lost is fetched, from EmailBison's log and by GHL's changed contacts."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.hydration.schedules import hydration_of
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.orchestration.attempts import HYDRATION, held_back
from ghl_pipeline.orchestration.scheduled_runs import runs_of_due_locations
from ghl_pipeline.orchestration.staggering import Rhythm
from ghl_pipeline.webhooks.assets import ReconcileConfig
from ghl_pipeline.webhooks.jobs import reconcile_events
from ghl_pipeline.webhooks.reconciling.many_workspaces import RECONCILE, locations_to_reconcile

RECONCILING = Rhythm(
    "hourly_reconcile", timedelta(hours=1), places=12, apart=timedelta(minutes=5), first=timedelta(minutes=4)
)
CHANGES = Rhythm(
    "hourly_changes", timedelta(hours=1), places=12, apart=timedelta(minutes=5), first=timedelta(minutes=2)
)


def reconcile_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_reconcile",
        job=reconcile_events,
        cron_schedule="4-59/5 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="EmailBison's log of each workspace that can be asked, once an hour, a twelfth of them every 5 "
        "minutes. A workspace that refused its token is left out for a day.",
    )
    def hourly_reconcile(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return runs_of_due_locations(
                context,
                connection,
                RECONCILING,
                job=reconcile_events.name,
                capability=RECONCILE,
                locations=locations_to_reconcile(connection),
                held=held_back(connection, RECONCILE),
                run_config=lambda due: dg.RunConfig(ops={"event_reconcile": ReconcileConfig(locations=due)}),
                nobody="no active client has an EmailBison workspace that can be asked",
            )

    return hourly_reconcile


def changed_contacts_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_changes",
        job=hydrate_leads,
        cron_schedule="2-59/5 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Each active location once an hour, a twelfth of them every 5 minutes; of one where nothing "
        "changed it takes a request or two. A location that refused its token is left out for a day.",
    )
    def hourly_changes(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return runs_of_due_locations(
                context,
                connection,
                CHANGES,
                job=hydrate_leads.name,
                capability=HYDRATION,
                locations=active_locations(connection, with_token=True),
                held=held_back(connection, HYDRATION),
                run_config=hydration_of,
            )

    return hourly_changes
