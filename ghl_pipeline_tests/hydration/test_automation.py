"""What starts hydration by itself: the new-lead sensor, the nightly schedule; and what keeps the partitions."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text

from ghl_pipeline.database.tables import leads
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.hydration.schedules import nightly_schedule
from ghl_pipeline.hydration.sensors import new_lead_sensor
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline.locations.sensors import location_partitions_sensor
from ghl_pipeline.orchestration import scheduled_runs
from ghl_pipeline.orchestration.attempts import record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.partitions import LOCATION
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings

FIRST, SECOND = "FirstLocation0000001", "SecondLocation000002"


@pytest.fixture
def clients(engine: Engine, project: Settings) -> dict[str, int]:
    """Two active clients with tokens; their ids by location."""
    cipher = TokenCipher.from_settings(project)
    with engine.begin() as connection:
        return {
            location: add_client(
                connection, cipher, name=location, location_id=location, token=SecretStr("pit-0000")
            ).id
            for location in (FIRST, SECOND)
        }


def add_lead(engine: Engine, client_id: int, **columns: object) -> int:
    with engine.begin() as connection:
        statement = insert(leads).values(client_id=client_id, **columns).returning(leads.c.id)
        return int(connection.execute(statement).scalar_one())


class NewLeads:
    """Ticks the sensor and keeps its cursor, as the daemon does."""

    def __init__(self, engine: Engine, instance: DagsterInstance) -> None:
        self._engine, self._instance = engine, instance
        self._sensor = new_lead_sensor(dg.DefaultSensorStatus.STOPPED)
        self.cursor: str | None = None

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self._instance, cursor=self.cursor, resources={"engine": self._engine}
        )
        result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return list(result.run_requests or [])


@pytest.fixture
def new_leads(engine: Engine, instance: DagsterInstance) -> NewLeads:
    return NewLeads(engine, instance)


def locations_of(request: dg.RunRequest) -> list[str]:
    config = request.run_config["ops"]["lead_hydration"]["config"]
    assert config["only_new"] is True
    found: list[str] = config["locations"]
    return found


def test_leads_from_before_the_first_tick_are_a_backfills_job(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    add_lead(engine, clients[FIRST], email="old@example.com")
    assert new_leads.tick() == []


def test_they_are_not_taken_for_new_at_a_later_tick_either(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    add_lead(engine, clients[FIRST], email="old@example.com")
    assert [new_leads.tick() for _ in range(3)] == [[], [], []]


def test_a_lead_that_was_committed_late_is_requested_although_a_newer_one_was_seen(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    """Ids are given out before their transactions commit."""
    new_leads.tick()
    with engine.begin() as slow:
        slow.execute(insert(leads).values(client_id=clients[FIRST], email="slow@example.com"))
        add_lead(engine, clients[FIRST], email="quick@example.com")
        (first,) = new_leads.tick()
    (second,) = new_leads.tick()
    assert second.tags["ghl_pipeline/leads"] == "2"
    assert second.run_key != first.run_key


def test_one_run_is_requested_for_all_locations_with_new_leads(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    new_leads.tick()
    add_lead(engine, clients[FIRST], email="a@example.com")
    add_lead(engine, clients[FIRST], email="b@example.com")
    add_lead(engine, clients[SECOND], email="a@example.com")
    (request,) = new_leads.tick()
    assert locations_of(request) == [FIRST, SECOND]
    assert request.tags["ghl_pipeline/leads"] == "3"


def test_a_location_without_due_work_is_not_requested(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    new_leads.tick()
    add_lead(
        engine, clients[FIRST], email="a@example.com", ghl_contact_id="A" * 20, phone="+13055550123",
        first_name="Ada", last_name="Byron", company_name="Engines",
    )  # fmt: skip
    with engine.begin() as connection:
        deactivate_client(connection, SECOND)
    add_lead(engine, clients[SECOND], email="a@example.com")
    assert new_leads.tick() == []


def test_a_lead_that_an_event_is_about_is_left_to_the_event(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    new_leads.tick()
    lead_id = add_lead(engine, clients[FIRST], email="a@example.com")
    values = {"client_id": clients[FIRST], "location_id": FIRST, "lead_id": lead_id}
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO webhook_events (provider, dedupe_key, event_type, client_id, location_id, lead_id)
                VALUES ('emailbison', 'an event', 'LEAD_REPLIED', :client_id, :location_id, :lead_id)
            """),
            values,
        )
    assert new_leads.tick() == []
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_events SET state = 'dead'"))
    assert [locations_of(request) for request in new_leads.tick()] == [[FIRST]]


def test_a_location_that_refused_its_token_is_not_requested_for_each_new_lead(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    new_leads.tick()
    record_refusal(engine, FailedLocation(FIRST, "TokenRejected", "a text", permanent=True), None)
    for location in (FIRST, SECOND):
        add_lead(engine, clients[location], email="a@example.com")
    assert [locations_of(request) for request in new_leads.tick()] == [[SECOND]]


def test_waiting_leads_do_not_start_a_second_run_under_another_key(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    """The first run may still be in the queue at the next tick; Dagster drops a request whose key it has seen."""
    new_leads.tick()
    add_lead(engine, clients[FIRST], email="a@example.com")
    keys = {request.run_key for _ in range(2) for request in new_leads.tick()}
    # Two when the hour changed between the ticks: leads that were not looked up in an hour are requested again.
    assert len(keys) <= 2
    assert len({str(key).rpartition("-")[0] for key in keys}) == 1


def test_a_lead_that_was_looked_up_is_not_new_any_more(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    new_leads.tick()
    lead_id = add_lead(engine, clients[FIRST], email="a@example.com")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO lead_lookups (lead_id, client_id, outcome) VALUES (:lead, :client, 'not_found')"),
            {"lead": lead_id, "client": clients[FIRST]},
        )
    assert new_leads.tick() == []


def test_a_database_that_cannot_be_read_is_no_empty_list(
    engine: Engine, clients: dict[str, int], new_leads: NewLeads
) -> None:
    new_leads.tick()
    before = new_leads.cursor
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE leads RENAME TO leads_away"))
    with pytest.raises(Exception, match="leads"):
        new_leads.tick()
    assert new_leads.cursor == before


def night(engine: Engine, instance: DagsterInstance) -> list[dg.RunRequest]:
    schedule = nightly_schedule(dg.DefaultScheduleStatus.STOPPED)
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=datetime(2026, 5, 4, 2, tzinfo=UTC), resources={"engine": engine}
    )
    return list(schedule.evaluate_tick(context).run_requests or [])


def test_every_night_all_active_locations_are_hydrated_in_few_runs(
    engine: Engine, clients: dict[str, int], instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = night(engine, instance)
    assert request.run_config["ops"]["lead_hydration"]["config"]["locations"] == [FIRST, SECOND]
    assert request.run_key == "nightly_hydration-202605040200-0"
    monkeypatch.setattr(scheduled_runs, "LOCATIONS_PER_RUN", 1)
    assert [r.run_key for r in night(engine, instance)] == [
        "nightly_hydration-202605040200-0",
        "nightly_hydration-202605040200-1",
    ]


def test_locations_whose_days_requests_are_used_up_are_left_to_the_rerun_after_the_reset(
    engine: Engine, clients: dict[str, int], instance: DagsterInstance, new_leads: NewLeads
) -> None:
    new_leads.tick()
    record_refusal(engine, FailedLocation(FIRST, "DailyQuotaReached", "a text", permanent=False), None)
    for location in (FIRST, SECOND):
        add_lead(engine, clients[location], email="a@example.com")
    with engine.begin() as connection:
        # Since then its turn has come.
        connection.execute(text("UPDATE location_attempts SET started_at = '2026-05-03 00:00+00'"))
    (request,) = night(engine, instance)
    assert request.run_config["ops"]["lead_hydration"]["config"]["locations"] == [SECOND]
    assert [locations_of(request) for request in new_leads.tick()] == [[SECOND]]
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_standings SET rerun_at = now()"))
    assert night(engine, instance)[0].run_config["ops"]["lead_hydration"]["config"]["locations"] == [FIRST, SECOND]


def test_a_night_without_active_clients_starts_nothing(
    engine: Engine, clients: dict[str, int], instance: DagsterInstance
) -> None:
    with engine.begin() as connection:
        for location in clients:
            deactivate_client(connection, location)
    assert night(engine, instance) == []


def tick_partitions(engine: Engine, instance: DagsterInstance) -> list[str]:
    sensor = location_partitions_sensor(dg.DefaultSensorStatus.RUNNING)
    sensor(dg.build_sensor_context(instance=instance, resources={"engine": engine}))
    return list(instance.get_dynamic_partitions(LOCATION))


def test_active_clients_have_a_partition(engine: Engine, clients: dict[str, int], instance: DagsterInstance) -> None:
    assert tick_partitions(engine, instance) == [FIRST, SECOND]
    assert tick_partitions(engine, instance) == [FIRST, SECOND]


def test_a_deactivated_clients_partition_goes_when_nothing_works_on_it(
    engine: Engine, clients: dict[str, int], instance: DagsterInstance
) -> None:
    tick_partitions(engine, instance)
    run = instance.create_run_for_job(
        build_defs().resolve_job_def("hydrate_leads"),
        run_config={"ops": {"lead_hydration": {"config": {"locations": [SECOND]}}}},
        status=dg.DagsterRunStatus.STARTED,
    )
    with engine.begin() as connection:
        deactivate_client(connection, SECOND)
    assert tick_partitions(engine, instance) == [FIRST, SECOND]
    instance.report_run_failed(run)
    assert tick_partitions(engine, instance) == [FIRST]


def test_a_partition_inside_a_running_range_is_busy(
    engine: Engine, clients: dict[str, int], instance: DagsterInstance
) -> None:
    tick_partitions(engine, instance)
    instance.create_run_for_job(
        build_defs().resolve_job_def("hydrate_leads"),
        tags={"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": SECOND},
        status=dg.DagsterRunStatus.STARTING,
    )
    with engine.begin() as connection:
        deactivate_client(connection, SECOND)
    assert tick_partitions(engine, instance) == [FIRST, SECOND]


def test_automation_is_off_until_somebody_switches_it_on() -> None:
    quiet, on = status_of(build_defs()), status_of(build_defs(automation=True))
    assert set(quiet) == {
        "location_partitions", "new_leads", "webhook_inbox", "reply_drafts", "rerun_failed",
        "report_after_failure", "alert_failures", "alert_delivery",
        "nightly_hydration", "hourly_changes", "message_import", "hourly_reconcile", "hourly_crm", "weekly_crm",
        "availability", "hourly_senders", "operations_report", "daily_housekeeping",
    }  # fmt: skip
    assert [name for name, running in quiet.items() if running] == [
        "location_partitions", "alert_failures", "alert_delivery",
    ]  # fmt: skip
    assert all(on.values())


def status_of(definitions: dg.Definitions) -> dict[str, bool]:
    running = {dg.DefaultSensorStatus.RUNNING, dg.DefaultScheduleStatus.RUNNING}
    found = [*(definitions.sensors or []), *(definitions.schedules or [])]
    return {
        item.name: item.default_status in running
        for item in found
        if isinstance(item, dg.SensorDefinition | dg.ScheduleDefinition)
    }
