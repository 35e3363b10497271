"""The one place where the Dagster objects meet. Loading it connects to nothing; resources do when a run needs them.

`defs` is what `workspace.yaml` and `dg` load; tests and the command line call `build_defs` with resources of their own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
from sqlalchemy import Connection, Engine

from ghl_pipeline.availability.assets import availability_refresh
from ghl_pipeline.availability.build import build_availability
from ghl_pipeline.availability.client_calendars import calendar_locations
from ghl_pipeline.availability.jobs import refresh_availability
from ghl_pipeline.availability.schedules import availability_schedule
from ghl_pipeline.conversations.assets import message_import
from ghl_pipeline.conversations.jobs import import_messages
from ghl_pipeline.conversations.schedules import message_import_schedule
from ghl_pipeline.crm.assets import crm_sync
from ghl_pipeline.crm.build import build_crm
from ghl_pipeline.crm.client_settings import crm_locations
from ghl_pipeline.crm.jobs import sync_crm
from ghl_pipeline.crm.schedules import hourly_crm_schedule, weekly_crm_schedule
from ghl_pipeline.database.connection import create_engine, database_urls
from ghl_pipeline.database.migrate import require_migrated
from ghl_pipeline.drafts.assets import draft_writing
from ghl_pipeline.drafts.build import build_drafts
from ghl_pipeline.drafts.jobs import write_drafts
from ghl_pipeline.drafts.sensors import reply_drafts_sensor
from ghl_pipeline.hydration.assets import lead_hydration
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.jobs import hydrate_leads
from ghl_pipeline.hydration.schedules import nightly_schedule
from ghl_pipeline.hydration.sensors import new_lead_sensor
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.locations.emailbison import locations_with_workspace
from ghl_pipeline.locations.sensors import location_partitions_sensor
from ghl_pipeline.operations.alerting.alerting import build_alerting
from ghl_pipeline.operations.assets import operations_report
from ghl_pipeline.operations.checks import location_checks
from ghl_pipeline.operations.housekeeping import (
    Housekeeping,
    alerts_chore,
    attempts_chore,
    compute_logs_chore,
    evaluations_chore,
    history_chore,
    previous_tokens_chore,
    run_events_chore,
    runs_chore,
)
from ghl_pipeline.operations.jobs import keep_house, report_operations
from ghl_pipeline.operations.reruns import Rerunnable
from ghl_pipeline.operations.schedules import housekeeping_schedule, operations_report_schedule
from ghl_pipeline.operations.sensors import (
    alert_delivery_sensor,
    alert_failures_sensor,
    report_after_failure_sensor,
    rerun_sensor,
)
from ghl_pipeline.orchestration.asked_runs import Work
from ghl_pipeline.orchestration.rerun_rules import RerunRules
from ghl_pipeline.orchestration.standings import use_rules
from ghl_pipeline.privacy import redaction
from ghl_pipeline.senders.assets import sender_sync
from ghl_pipeline.senders.build import build_senders
from ghl_pipeline.senders.jobs import sync_senders
from ghl_pipeline.senders.schedules import senders_schedule
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline.webhooks.assets import WEBHOOK_EVENTS, event_handling, event_reconcile
from ghl_pipeline.webhooks.build import build_event_handling, build_message_import, build_reconciling
from ghl_pipeline.webhooks.inbox.dead_letters import bodies_chore
from ghl_pipeline.webhooks.jobs import handle_events, reconcile_events
from ghl_pipeline.webhooks.reconciling.many_workspaces import locations_to_reconcile
from ghl_pipeline.webhooks.schedules import changed_contacts_schedule, reconcile_schedule
from ghl_pipeline.webhooks.sensors import webhook_inbox_sensor


@contextmanager
def open_engine(settings: Settings) -> Iterator[Engine]:
    """An engine on the migrated dashboard database, disposed at the end.

    Raises:
        ConfigurationError, DatabaseUnavailable: with what to do.
    """
    engine = create_engine(database_urls(settings).app)
    use_rules(engine, RerunRules.of(settings))
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


def capability(
    build: Callable[[Settings, Engine], object], description: str
) -> Callable[[dg.InitResourceContext], Iterator[object]]:
    """A resource that is put together from the settings, with a database of its own, for the time of a run."""

    @dg.resource(description=description)
    def resource(_context: dg.InitResourceContext) -> Iterator[object]:
        settings = load_settings()
        with open_engine(settings) as engine:
            yield build(settings, engine)

    return resource


@contextmanager
def open_housekeeping(settings: Settings, engine: Engine) -> Iterator[Housekeeping]:
    """What is kept for how long, with a connection to Dagster's own database, which is closed at the end."""
    dagster = create_engine(database_urls(settings).dagster, pool_size=1)
    try:
        yield Housekeeping(
            [
                attempts_chore(engine, settings.keep_attempts_days),
                alerts_chore(engine, settings.keep_attempts_days),
                previous_tokens_chore(engine),
                bodies_chore(engine, settings.webhook_keep_bodies_days),
                history_chore(dagster, settings.keep_history_days, settings.keep_daily_history_days),
                run_events_chore(dagster, settings.keep_run_events_days),
                evaluations_chore(dagster, settings.keep_run_events_days),
                # A run that goes takes its materializations along.
                runs_chore(
                    dagster,
                    report_operations.name,
                    max(settings.keep_run_events_days, settings.keep_history_days, settings.keep_daily_history_days),
                ),
                compute_logs_chore(settings.home, settings.keep_run_events_days),
            ]
        )
    finally:
        dagster.dispose()


@dg.resource(description="What is kept for how long, in both databases")
def housekeeping_resource(_context: dg.InitResourceContext) -> Iterator[Housekeeping]:
    """For the time of a run."""
    settings = load_settings()
    with open_engine(settings) as engine, open_housekeeping(settings, engine) as housekeeping:
        yield housekeeping


# By the name under which the assets ask for them.
RESOURCES: Mapping[str, object] = {
    "engine": engine_resource,
    "hydration": capability(build_hydration, "Hydration with its database and one throttled GHL client per location"),
    "conversations": capability(
        build_message_import, "The import of messages with its database and one throttled GHL client per location"
    ),
    "event_handling": capability(
        build_event_handling, "Handling of events, with the one object that may create a contact"
    ),
    "event_reconciling": capability(build_reconciling, "The look for events that webhooks lost"),
    "crm": capability(build_crm, "Vendors and leads in step, with one throttled GHL client per location"),
    "drafts": capability(build_drafts, "Drafts of replies, with the providers that write them"),
    "availability": capability(build_availability, "Free times of the clients' calendars"),
    "senders": capability(build_senders, "The clients' EmailBison accounts, and leads without one"),
    "housekeeping": housekeeping_resource,
    "alerting": capability(build_alerting, "What is told of failures, and where"),
}


def _rerunnable(
    job: str, op: str, assets: Sequence[str], askable: Callable[[Connection], Collection[str]], **config: object
) -> Rerunnable:
    return Rerunnable(Work(job, frozenset(assets)), op, askable, config)


def _with_token(connection: Connection) -> list[str]:
    return active_locations(connection, with_token=True)


# How the work that failed is asked for again, by the name under which its attempts are on record.
RERUNNABLES: Mapping[str, Rerunnable] = {
    "hydration": _rerunnable(
        hydrate_leads.name,
        lead_hydration.op.name,
        ["eligible_leads", "resolved_contacts", "hydrated_leads"],
        _with_token,
    ),
    "conversations": _rerunnable(import_messages.name, message_import.op.name, ["sms_messages"], _with_token),
    "crm": _rerunnable(sync_crm.name, crm_sync.op.name, ["crm_contacts", "crm_vendors", "crm_leads"], crm_locations),
    "availability": _rerunnable(
        refresh_availability.name, availability_refresh.op.name, ["availability_slots"], calendar_locations
    ),
    "senders": _rerunnable(sync_senders.name, sender_sync.op.name, ["sender_accounts"], locations_with_workspace),
    "reconcile": _rerunnable(
        reconcile_events.name, event_reconcile.op.name, ["reconciled_events"], locations_to_reconcile
    ),
}


def build_defs(resources: Mapping[str, object] | None = None, *, automation: bool = False) -> dg.Definitions:
    """All assets, jobs, sensors and schedules.

    Args:
        resources: replacements by name, of `RESOURCES`.
        automation: whether schedules and sensors that start runs are on before somebody switches them in the UI. The
            partitions are kept in step, and failures told, in any case.
    """
    redaction.install()
    sensors_on = dg.DefaultSensorStatus.RUNNING if automation else dg.DefaultSensorStatus.STOPPED
    schedules_on = dg.DefaultScheduleStatus.RUNNING if automation else dg.DefaultScheduleStatus.STOPPED
    return dg.Definitions(
        assets=[
            lead_hydration,
            message_import,
            WEBHOOK_EVENTS,
            event_handling,
            event_reconcile,
            crm_sync,
            draft_writing,
            availability_refresh,
            sender_sync,
            operations_report,
        ],
        asset_checks=[location_checks],
        jobs=[
            hydrate_leads,
            import_messages,
            handle_events,
            reconcile_events,
            sync_crm,
            write_drafts,
            refresh_availability,
            sync_senders,
            report_operations,
            keep_house,
        ],
        schedules=[
            nightly_schedule(schedules_on),
            message_import_schedule(schedules_on),
            reconcile_schedule(schedules_on),
            changed_contacts_schedule(schedules_on),
            hourly_crm_schedule(schedules_on),
            weekly_crm_schedule(schedules_on),
            availability_schedule(schedules_on),
            senders_schedule(schedules_on),
            operations_report_schedule(schedules_on),
            housekeeping_schedule(schedules_on),
        ],
        sensors=[
            location_partitions_sensor(dg.DefaultSensorStatus.RUNNING),
            new_lead_sensor(sensors_on),
            webhook_inbox_sensor(sensors_on),
            reply_drafts_sensor(sensors_on),
            rerun_sensor(
                RERUNNABLES,
                [hydrate_leads, import_messages, sync_crm, refresh_availability, sync_senders, reconcile_events],
                sensors_on,
            ),
            report_after_failure_sensor(sensors_on),
            alert_failures_sensor(dg.DefaultSensorStatus.RUNNING),
            alert_delivery_sensor(dg.DefaultSensorStatus.RUNNING),
        ],
        resources={**RESOURCES, **(resources or {})},
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions as Dagster loads them, with the automation that the settings ask for."""
    return build_defs(automation=load_settings().automation)
