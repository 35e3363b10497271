"""The one place where the Dagster objects meet. Loading it connects to nothing; resources do when a run needs them.

`defs` is what `workspace.yaml` and `dg` load; tests and the command line call `build_defs` with resources of their own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.conversations.assets import message_import
from ghl_pipeline.conversations.conversations import Conversations
from ghl_pipeline.conversations.jobs import import_messages
from ghl_pipeline.conversations.schedules import message_import_schedule
from ghl_pipeline.crm.assets import crm_sync
from ghl_pipeline.crm.build import build_crm
from ghl_pipeline.crm.crm import Crm
from ghl_pipeline.crm.jobs import sync_crm
from ghl_pipeline.crm.schedules import hourly_crm_schedule, weekly_crm_schedule
from ghl_pipeline.database.connection import create_engine, database_urls
from ghl_pipeline.database.migrate import require_migrated
from ghl_pipeline.hydration.assets import lead_hydration
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.hydration.schedules import nightly_schedule
from ghl_pipeline.hydration.sensors import new_lead_sensor
from ghl_pipeline.locations.sensors import location_partitions_sensor
from ghl_pipeline.privacy import redaction
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline.webhooks.assets import WEBHOOK_EVENTS, event_handling, event_reconcile
from ghl_pipeline.webhooks.build import build_event_handling, build_message_import, build_reconciling
from ghl_pipeline.webhooks.handling.handle_events import EventHandling
from ghl_pipeline.webhooks.jobs import handle_events, reconcile_events
from ghl_pipeline.webhooks.reconciling.many_workspaces import Reconciling
from ghl_pipeline.webhooks.schedules import changed_contacts_schedule, reconcile_schedule
from ghl_pipeline.webhooks.sensors import webhook_inbox_sensor


@contextmanager
def open_engine(settings: Settings) -> Iterator[Engine]:
    """An engine on the migrated dashboard database, disposed at the end.

    Raises:
        ConfigurationError, DatabaseUnavailable: with what to do.
    """
    engine = create_engine(database_urls(settings).app)
    try:
        require_migrated(engine)
        yield engine
    finally:
        engine.dispose()


@dg.resource(description="The dashboard database")
def engine_resource(_context: dg.InitResourceContext) -> Iterator[Engine]:
    """An engine for the time of a run or a tick."""
    with open_engine(load_settings()) as engine:
        yield engine


@dg.resource(description="Hydration with its database and one throttled GHL client per location")
def hydration_resource(_context: dg.InitResourceContext) -> Iterator[Hydration]:
    """The capability for the time of a run."""
    settings = load_settings()
    with open_engine(settings) as engine:
        yield build_hydration(settings, engine)


@dg.resource(description="The import of messages with its database and one throttled GHL client per location")
def conversations_resource(_context: dg.InitResourceContext) -> Iterator[Conversations]:
    """The capability for the time of a run."""
    settings = load_settings()
    with open_engine(settings) as engine:
        yield build_message_import(settings, engine)


@dg.resource(description="Handling of events, with the one object that may create a contact")
def event_handling_resource(_context: dg.InitResourceContext) -> Iterator[EventHandling]:
    """The capability for the time of a run."""
    settings = load_settings()
    with open_engine(settings) as engine:
        yield build_event_handling(settings, engine)


@dg.resource(description="The look for events that webhooks lost")
def event_reconciling_resource(_context: dg.InitResourceContext) -> Iterator[Reconciling]:
    """The capability for the time of a run."""
    settings = load_settings()
    with open_engine(settings) as engine:
        yield build_reconciling(settings, engine)


@dg.resource(description="Vendors and leads in step, with one throttled GHL client per location")
def crm_resource(_context: dg.InitResourceContext) -> Iterator[Crm]:
    """The capability for the time of a run."""
    settings = load_settings()
    with open_engine(settings) as engine:
        yield build_crm(settings, engine)


def build_defs(resources: Mapping[str, object] | None = None, *, automation: bool = False) -> dg.Definitions:
    """All assets, jobs, sensors and schedules.

    Args:
        resources: replacements by name (`engine`, `hydration`, `conversations`, `event_handling`, `event_reconciling`,
            `crm`).
        automation: whether schedules and sensors that start runs are on before somebody switches them in the UI. The
            partitions are kept in step in any case.
    """
    redaction.install()
    sensors_on = dg.DefaultSensorStatus.RUNNING if automation else dg.DefaultSensorStatus.STOPPED
    schedules_on = dg.DefaultScheduleStatus.RUNNING if automation else dg.DefaultScheduleStatus.STOPPED
    return dg.Definitions(
        assets=[lead_hydration, message_import, WEBHOOK_EVENTS, event_handling, event_reconcile, crm_sync],
        jobs=[hydrate_leads, import_messages, handle_events, reconcile_events, sync_crm],
        schedules=[
            nightly_schedule(schedules_on),
            message_import_schedule(schedules_on),
            reconcile_schedule(schedules_on),
            changed_contacts_schedule(schedules_on),
            hourly_crm_schedule(schedules_on),
            weekly_crm_schedule(schedules_on),
        ],
        sensors=[
            location_partitions_sensor(dg.DefaultSensorStatus.RUNNING),
            new_lead_sensor(sensors_on),
            webhook_inbox_sensor(sensors_on),
        ],
        resources={
            "engine": engine_resource,
            "hydration": hydration_resource,
            "conversations": conversations_resource,
            "event_handling": event_handling_resource,
            "event_reconciling": event_reconciling_resource,
            "crm": crm_resource,
            **(resources or {}),
        },
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions as Dagster loads them, with the automation that the settings ask for."""
    return build_defs(automation=load_settings().automation)
