"""Who the schedule asks for, and whom it holds back; and a pause of Calendly's that is longer than a step."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.availability.client_calendars import set_calendar
from ghl_pipeline.availability.schedules import availability_schedule
from ghl_pipeline.orchestration import scheduled_runs
from ghl_pipeline.orchestration.attempts import held_back
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.availability.test_assets import LINK, Runner
from ghl_pipeline_tests.availability.test_assets import locations as locations  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.availability.test_assets import runner as runner  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.availability.test_assets import settings as settings  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


def due(engine: Engine, instance: DagsterInstance) -> list[dg.RunRequest]:
    schedule = availability_schedule(dg.DefaultScheduleStatus.STOPPED)
    # Long after whatever the tests put on record: everybody's turn has come since.
    at = datetime(2036, 5, 4, 2, 31, tzinfo=UTC)
    context = dg.build_schedule_context(instance, scheduled_execution_time=at, resources={"engine": engine})
    return list(schedule.evaluate_tick(context).run_requests or [])


def test_every_half_hour_all_calendars_are_asked_for_those_first_that_waited_longest(
    locations: list[Location], engine: Engine, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, _ = locations
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE booking_calendars SET tried_at = now() FROM clients
                WHERE clients.id = client_id AND location_id = :id
            """),
            {"id": first.id},
        )
    (request,) = due(engine, runner.instance)
    config = request.run_config["ops"]["availability_refresh"]["config"]
    assert config["locations"] == [second.id, third.id, first.id]
    assert request.run_key == "availability-203605040231-0"
    monkeypatch.setattr(scheduled_runs, "LOCATIONS_PER_RUN", 2)
    assert len(due(engine, runner.instance)) == 2


def test_a_refused_token_is_left_out_for_a_day_or_until_the_calendar_is_changed(
    locations: list[Location], engine: Engine, runner: Runner, sandbox: Sandbox, settings: Settings
) -> None:
    refused = locations[0]
    sandbox.faults(refused.id, token_revoked=True)
    runner.run(locations=[refused.id])

    def asked() -> list[str]:
        return [
            id_
            for each in due(engine, runner.instance)
            for id_ in each.run_config["ops"]["availability_refresh"]["config"]["locations"]
        ]

    assert refused.id not in asked()
    with engine.begin() as connection:
        set_calendar(connection, TokenCipher.from_settings(settings), refused.id, link=f"{LINK}-2")
    assert asked()[0] == refused.id


def test_without_calendars_nothing_is_started(engine: Engine, instance: DagsterInstance) -> None:
    assert due(engine, instance) == []


def test_a_refused_calendly_token_is_held_back_until_the_calendars_row_changes(
    locations: list[Location], engine: Engine, runner: Runner, sandbox: Sandbox, settings: Settings
) -> None:
    refused = locations[0]
    host = sandbox.world.calendly.add("ada")
    host.add_event_type("Intro")
    with engine.begin() as connection:
        link, token = "https://calendly.com/ada/intro", SecretStr(host.token)
        set_calendar(connection, TokenCipher.from_settings(settings), refused.id, link=link, calendly_token=token)
    sandbox.faults(host.faults_key, token_revoked=True)
    runner.run(locations=[refused.id])
    with engine.connect() as connection:
        query = text("SELECT error_class, permanent FROM location_attempts WHERE location_id = :id")
        assert tuple(connection.execute(query, {"id": refused.id}).one()) == ("CalendlyAccessDenied", True)
        assert refused.id in held_back(connection, "availability")

    def is_asked() -> bool:
        return any(refused.id in str(request.run_config) for request in due(engine, runner.instance))

    assert not is_asked()
    # As the dashboard would, which knows nothing of `tried_at`.
    with engine.begin() as connection:
        change = text("""
            UPDATE booking_calendars SET booking_link = booking_link || '?a' FROM clients
            WHERE clients.id = client_id AND location_id = :id
        """)
        connection.execute(change, {"id": refused.id})
    assert is_asked()


def test_a_pause_that_calendly_asks_for_and_that_no_step_holds_is_a_rate_limit_and_no_hang(
    locations: list[Location], engine: Engine, runner: Runner, sandbox: Sandbox, settings: Settings
) -> None:
    location = locations[0]
    host = sandbox.world.calendly.add("ada")
    host.add_event_type("Intro")
    with engine.begin() as connection:
        link, token = "https://calendly.com/ada/intro", SecretStr(host.token)
        set_calendar(connection, TokenCipher.from_settings(settings), location.id, link=link, calendly_token=token)
    # Longer than a step, five seconds, and shorter than a client's time.
    sandbox.faults(host.faults_key, storm_requests=50, retry_after=7.0)
    runner.run(locations=[location.id])
    (seen,) = runner.observations(location)
    assert (seen["state"], seen["reason"]) == ("stale", "rate_limited")
