"""Vendors and leads kept in step: changes every hour, everything every week."""

from collections.abc import Sequence

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.crm.assets import CrmConfig
from ghl_pipeline.crm.client_settings import crm_locations
from ghl_pipeline.crm.crm import CAPABILITY
from ghl_pipeline.crm.jobs import sync_crm
from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.orchestration.attempts import held_back

# So many locations overlap well in one process; more are spread over the runs that the queue lets go at once.
LOCATIONS_PER_RUN = 250


def hourly_crm_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="hourly_crm",
        job=sync_crm,
        cron_schedule="37 * * * *",
        execution_timezone="UTC",
        default_status=default_status,
        description="Contacts that changed, of all clients whose vendors and leads are kept in step; three requests a "
        "location where nothing did. A location that refused its token, or where too many are missing, is left out "
        "for a day.",
    )
    def hourly_crm(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        return _requests(engine, f"crm-{context.scheduled_execution_time:%Y%m%d%H}", full=False)

    return hourly_crm


def weekly_crm_schedule(default_status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule, with the status it has before somebody switches it in the UI."""

    @dg.schedule(
        name="weekly_crm",
        job=sync_crm,
        cron_schedule="0 3 * * 0",
        execution_timezone="UTC",
        default_status=default_status,
        description="A full pass, which alone can see that a contact is gone, of all clients whose vendors and leads "
        "are kept in step.",
    )
    def weekly_crm(
        context: dg.ScheduleEvaluationContext, engine: dg.ResourceParam[Engine]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        return _requests(engine, f"crm-full-{context.scheduled_execution_time:%Y%m%d}", full=True)

    return weekly_crm


def _requests(engine: Engine, run_key: str, *, full: bool) -> list[dg.RunRequest] | dg.SkipReason:
    with engine.connect() as connection:
        # That too many are missing costs all lookups to find out, and stays so until a person has looked.
        refused = held_back(connection, CAPABILITY, also=(TooManyMissing.__name__,))
        locations = [each for each in crm_locations(connection) if each not in refused]
    if not locations:
        return dg.SkipReason(
            f"no client that is switched on for it has a usable token ({len(refused)} locations refused theirs, or "
            "wait for a person)"
        )
    return [
        dg.RunRequest(
            run_key=f"{run_key}-{number}",
            run_config=dg.RunConfig(ops={"crm_sync": CrmConfig(locations=list(batch), full=full)}),
            tags={"ghl_pipeline/locations": str(len(batch))},
        )
        for number, batch in enumerate(_batches(locations))
    ]


def _batches(locations: Sequence[str]) -> list[Sequence[str]]:
    return [locations[at : at + LOCATIONS_PER_RUN] for at in range(0, len(locations), LOCATIONS_PER_RUN)]
