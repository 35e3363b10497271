"""Vendors and leads kept in step: changes every hour, everything every week."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Connection, Engine

from ghl_pipeline.crm.assets import CrmConfig
from ghl_pipeline.crm.client_settings import crm_locations
from ghl_pipeline.crm.crm import CAPABILITY
from ghl_pipeline.crm.full_passes import last_full_passes
from ghl_pipeline.crm.jobs import sync_crm
from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.orchestration.scheduled_runs import runs_of_due_locations
from ghl_pipeline.orchestration.staggering import Rhythm

HOURLY = Rhythm("hourly_crm", timedelta(hours=1), places=12, apart=timedelta(minutes=5), first=timedelta(minutes=3))
# Sundays, 03:00 to 20:30 UTC: a full pass takes as many requests as there are vendors and leads.
WEEKLY = Rhythm("weekly_crm", timedelta(weeks=1), places=36, apart=timedelta(minutes=30), first=timedelta(hours=3))


def hourly_crm_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_crm",
        job=sync_crm,
        cron_schedule="3-59/5 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Contacts that changed, of each client whose vendors and leads are kept in step, once an hour, a "
        "twelfth of them every 5 minutes; three requests a location where nothing did. A location that refused its "
        "token, or where too many are missing, is left out for a day.",
    )
    def hourly_crm(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return _runs(context, connection, HOURLY, full=False)

    return hourly_crm


def weekly_crm_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="weekly_crm",
        job=sync_crm,
        cron_schedule="*/30 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="A full pass, which alone can see that a contact is gone, of each client whose vendors and leads "
        "are kept in step: once a week, at its own time on Sunday between 03:00 and 21:00 UTC. One that never had one, "
        "and one whose week was missed, at once.",
    )
    def weekly_crm(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        with engine.connect() as connection:
            return _runs(context, connection, WEEKLY, full=True)

    return weekly_crm


def _runs(
    context: dg.ScheduleEvaluationContext, connection: Connection, rhythm: Rhythm, *, full: bool
) -> list[dg.RunRequest] | dg.SkipReason:
    return runs_of_due_locations(
        context,
        connection,
        rhythm,
        job=sync_crm.name,
        capability=CAPABILITY,
        locations=crm_locations(connection),
        # That too many are missing costs all lookups to find out, and stays so until a person has looked.
        held=held_back(connection, CAPABILITY, also=(TooManyMissing.__name__,)),
        run_config=lambda due: dg.RunConfig(ops={"crm_sync": CrmConfig(locations=due, full=full)}),
        begun=last_full_passes(connection) if full else None,
        nobody="no client that is switched on for it has a usable token",
    )
