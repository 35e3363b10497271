"""The schedules of the CRM: whom they ask for, and when."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.crm.schedules import WEEKLY, hourly_crm_schedule, weekly_crm_schedule
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline.orchestration import scheduled_runs
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt, held_back
from ghl_pipeline.orchestration.failures import FailedLocation, describe_failure
from ghl_pipeline.privacy.tokens import TokenCipher

# Long after whatever the tests put on record: everybody's turn has come since.
SUNDAY = datetime(2036, 5, 4, 3, 0, tzinfo=UTC)
Schedule = Callable[[dg.DefaultScheduleStatus], dg.ScheduleDefinition]
Due = Callable[..., list[dg.RunRequest]]

of_both = pytest.mark.parametrize("schedule", [hourly_crm_schedule, weekly_crm_schedule])


@pytest.fixture
def locations(engine: Engine) -> list[str]:
    """Four clients that are switched on."""
    cipher = TokenCipher([Fernet(Fernet.generate_key())], "this test")
    made = []
    with engine.begin() as connection:
        for number in range(4):
            location_id = f"ScheduledLocation{number:03}"
            add_client(connection, cipher, name=location_id, location_id=location_id, token=SecretStr("pit-1"))
            set_crm(connection, location_id, enabled=True)
            made.append(location_id)
    return made


@pytest.fixture
def due(engine: Engine, instance: DagsterInstance) -> Due:
    def requests(schedule: Schedule, at: datetime = SUNDAY) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(instance, scheduled_execution_time=at, resources={"engine": engine})
        return list(schedule(dg.DefaultScheduleStatus.STOPPED).evaluate_tick(context).run_requests or [])

    return requests


def fail(engine: Engine, failure: FailedLocation) -> None:
    attempt = begin_attempt(engine, failure.location_id, None, "crm")
    end_attempt(engine, attempt, "failed", failure=failure)


def asked_for(requests: list[dg.RunRequest]) -> list[tuple[list[str], bool]]:
    configs = [request.run_config["ops"]["crm_sync"]["config"] for request in requests]
    return [(config["locations"], config["full"]) for config in configs]


def test_every_hour_changes_are_asked_for_and_every_week_everything(due: Due, locations: list[str]) -> None:
    assert asked_for(due(hourly_crm_schedule)) == [(locations, False)]
    assert asked_for(due(weekly_crm_schedule)) == [(locations, True)]
    assert [request.run_key for request in due(hourly_crm_schedule)] == ["hourly_crm-203605040300-0"]
    assert [request.run_key for request in due(weekly_crm_schedule)] == ["weekly_crm-203605040300-0"]


@of_both
def test_only_clients_that_can_be_worked_on_and_are_switched_on_are_asked_for(
    engine: Engine, locations: list[str], due: Due, schedule: Schedule
) -> None:
    off, tokenless, inactive, good = locations
    with engine.begin() as connection:
        set_crm(connection, off, enabled=False)
        connection.execute(
            text("UPDATE clients SET ghl_token_encrypted = NULL WHERE location_id = :id"), {"id": tokenless}
        )
        deactivate_client(connection, inactive)
    assert [asked for asked, _ in asked_for(due(schedule))] == [[good]]


@of_both
def test_a_location_that_refused_its_token_rests_until_the_client_changes(
    engine: Engine, locations: list[str], due: Due, schedule: Schedule
) -> None:
    refused, *others = locations
    fail(engine, FailedLocation(refused, "TokenRejected", "a text", permanent=True))
    assert [asked for asked, _ in asked_for(due(schedule))] == [others]
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_standings SET ended_at = now() - interval '25 hours'"))
    assert [asked for asked, _ in asked_for(due(schedule))] == [locations]


@of_both
def test_a_location_where_too_many_are_missing_rests_until_somebody_has_looked(
    engine: Engine, locations: list[str], due: Due, schedule: Schedule
) -> None:
    stopped, accepted, *others = locations
    for location_id in (stopped, accepted):
        fail(engine, describe_failure(location_id, TooManyMissing("a text")))
    end_attempt(engine, begin_attempt(engine, accepted, None, "crm"), "succeeded")
    with engine.connect() as connection:
        assert held_back(connection, "crm") == set(), "it is no refusal, and holds back nothing else"
    assert [asked for asked, _ in asked_for(due(schedule))] == [[accepted, *others]]
    with engine.begin() as connection:
        set_crm(connection, stopped, discover=False)
    assert [asked for asked, _ in asked_for(due(schedule))] == [locations]
    fail(engine, describe_failure(stopped, TooManyMissing("a text")))
    with engine.begin() as connection:
        set_crm(connection, stopped, discover=False)
    assert [asked for asked, _ in asked_for(due(schedule))] == [[accepted, *others]], "nothing was changed"
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_standings SET ended_at = now() - interval '25 hours'"))
        connection.execute(text("UPDATE clients SET name = name || '!'"))
    assert [asked for asked, _ in asked_for(due(schedule))] == [locations]


@of_both
def test_many_locations_are_spread_over_runs(
    due: Due, locations: list[str], schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled_runs, "LOCATIONS_PER_RUN", 3)
    requests = due(schedule)
    assert [asked for asked, _ in asked_for(requests)] == [locations[:3], locations[3:]]
    assert [request.run_key and request.run_key[-2:] for request in requests] == ["-0", "-1"]


@of_both
def test_without_a_client_that_is_switched_on_nothing_is_started(due: Due, schedule: Schedule) -> None:
    assert due(schedule) == []


def test_both_are_off_until_they_are_switched_on() -> None:
    for automation, status in ((False, "STOPPED"), (True, "RUNNING")):
        found = {each.name: each.default_status.name for each in build_defs(automation=automation).schedules or []
                 if isinstance(each, dg.ScheduleDefinition)}  # fmt: skip
        assert (found["hourly_crm"], found["weekly_crm"]) == (status, status)


def test_a_full_pass_is_asked_for_once_a_week_whatever_the_hours_of_changes_do(
    engine: Engine, locations: list[str], due: Due
) -> None:
    """Whoever had one since the location's own time on Sunday rests until the next; failing is for reruns to end."""
    passed, hourly, failing, empty = locations
    times = {each: WEEKLY.latest_place(each, datetime.now(UTC)) for each in locations}
    with engine.begin() as connection:
        for location_id, at in times.items():
            connection.execute(
                text("""
                    UPDATE crm_clients SET full_pass_at = :at FROM clients
                    WHERE clients.id = client_id AND location_id = :id
                """),
                {"id": location_id, "at": at + timedelta(seconds=30) if location_id == passed else at - timedelta(1)},
            )
    for location_id, report in ((hourly, {"mode": "changes"}), (empty, {"mode": "nothing"})):
        end_attempt(engine, begin_attempt(engine, location_id, None, "crm"), "succeeded", report=report)
    fail(engine, FailedLocation(failing, "GhlUnreachable", "a text", permanent=False))
    now = datetime.now(UTC)
    assert [asked for asked, _ in asked_for(due(weekly_crm_schedule, at=now))] == [[hourly]]
    end_attempt(engine, begin_attempt(engine, failing, None, "crm"), "succeeded", report={"mode": "changes"})
    assert [asked for asked, _ in asked_for(due(weekly_crm_schedule, at=now))] == [[hourly, failing]]
    with engine.begin() as connection:
        set_crm(connection, passed, discover=False)
    assert asked_for(due(weekly_crm_schedule, at=now)) == [([passed, hourly, failing], True)]


def test_a_location_that_a_run_has_is_not_asked_for_again(
    engine: Engine, locations: list[str], instance: DagsterInstance, due: Due
) -> None:
    """Neither by the other schedule: both start the same job."""
    first, second, *others = locations
    run = instance.create_run_for_job(
        build_defs().resolve_job_def("sync_crm"),
        run_config={"ops": {"crm_sync": {"config": {"locations": [first, second]}}}},
        status=dg.DagsterRunStatus.STARTING,
    )
    end_attempt(engine, begin_attempt(engine, first, run.run_id, "crm"), "succeeded", report={"mode": "changes"})
    for schedule in (hourly_crm_schedule, weekly_crm_schedule):
        assert [asked for asked, _ in asked_for(due(schedule))] == [[first, *others]], "it is done with the first"
