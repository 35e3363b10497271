"""The schedules of the CRM: whom they ask for, and when."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.crm import schedules
from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.crm.schedules import hourly_crm_schedule, weekly_crm_schedule
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.privacy.tokens import TokenCipher

SUNDAY = datetime(2026, 5, 3, 3, 0, tzinfo=UTC)
Schedule = Callable[[dg.DefaultScheduleStatus], dg.ScheduleDefinition]

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


def due(engine: Engine, schedule: Schedule) -> list[dg.RunRequest]:
    context = dg.build_schedule_context(scheduled_execution_time=SUNDAY, resources={"engine": engine})
    return list(schedule(dg.DefaultScheduleStatus.STOPPED).evaluate_tick(context).run_requests or [])


def asked_for(requests: list[dg.RunRequest]) -> list[tuple[list[str], bool]]:
    configs = [request.run_config["ops"]["crm_sync"]["config"] for request in requests]
    return [(config["locations"], config["full"]) for config in configs]


def test_every_hour_changes_are_asked_for_and_every_week_everything(engine: Engine, locations: list[str]) -> None:
    assert asked_for(due(engine, hourly_crm_schedule)) == [(locations, False)]
    assert asked_for(due(engine, weekly_crm_schedule)) == [(locations, True)]
    assert [request.run_key for request in due(engine, hourly_crm_schedule)] == ["crm-2026050303-0"]
    assert [request.run_key for request in due(engine, weekly_crm_schedule)] == ["crm-full-20260503-0"]


@of_both
def test_only_clients_that_can_be_worked_on_and_are_switched_on_are_asked_for(
    engine: Engine, locations: list[str], schedule: Schedule
) -> None:
    off, tokenless, inactive, good = locations
    with engine.begin() as connection:
        set_crm(connection, off, enabled=False)
        connection.execute(
            text("UPDATE clients SET ghl_token_encrypted = NULL WHERE location_id = :id"), {"id": tokenless}
        )
        deactivate_client(connection, inactive)
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [[good]]


@of_both
def test_a_location_that_refused_its_token_rests_until_the_client_changes(
    engine: Engine, locations: list[str], schedule: Schedule
) -> None:
    refused, *others = locations
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO location_attempts (location_id, capability, state, error_class, ended_at)
                VALUES (:id, 'crm', 'failed', 'TokenRejected', now() + interval '1 second')
            """),
            {"id": refused},
        )
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [others]
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_attempts SET ended_at = now() - interval '25 hours'"))
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [locations]


@of_both
def test_a_location_where_too_many_are_missing_rests_until_somebody_has_looked(
    engine: Engine, locations: list[str], schedule: Schedule
) -> None:
    stopped, accepted, *others = locations
    attempt = text("""
        INSERT INTO location_attempts (location_id, capability, state, error_class, ended_at)
        VALUES (:id, 'crm', :state, :error, now())
    """)
    with engine.begin() as connection:
        for location_id in (stopped, accepted):
            connection.execute(attempt, {"id": location_id, "state": "failed", "error": "TooManyMissing"})
        connection.execute(attempt, {"id": accepted, "state": "succeeded", "error": None})
        assert held_back(connection, "crm") == set(), "it is no refusal, and holds back nothing else"
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [[accepted, *others]]
    with engine.begin() as connection:
        set_crm(connection, stopped, discover=False)
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [locations]
    with engine.begin() as connection:
        connection.execute(attempt, {"id": stopped, "state": "failed", "error": "TooManyMissing"})
        connection.execute(text("UPDATE location_attempts SET ended_at = ended_at + interval '1 second'"))
        set_crm(connection, stopped, discover=False)
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [[accepted, *others]], "nothing was changed"
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_attempts SET ended_at = now() - interval '25 hours'"))
        connection.execute(text("UPDATE clients SET name = name || '!'"))
    assert [asked for asked, _ in asked_for(due(engine, schedule))] == [locations]


@of_both
def test_many_locations_are_spread_over_runs(
    engine: Engine, locations: list[str], schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "LOCATIONS_PER_RUN", 3)
    requests = due(engine, schedule)
    assert [asked for asked, _ in asked_for(requests)] == [locations[:3], locations[3:]]
    assert [request.run_key and request.run_key[-2:] for request in requests] == ["-0", "-1"]


@of_both
def test_without_a_client_that_is_switched_on_nothing_is_started(engine: Engine, schedule: Schedule) -> None:
    assert due(engine, schedule) == []


def test_both_are_off_until_they_are_switched_on() -> None:
    for automation, status in ((False, "STOPPED"), (True, "RUNNING")):
        found = {each.name: each.default_status.name for each in build_defs(automation=automation).schedules or []
                 if isinstance(each, dg.ScheduleDefinition)}  # fmt: skip
        assert (found["hourly_crm"], found["weekly_crm"]) == (status, status)
