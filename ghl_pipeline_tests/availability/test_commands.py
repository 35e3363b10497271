"""Calendars at the command line: given to a client, refreshed, and seen in the status; never the link."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from ghl_pipeline.cli.availability import availability
from ghl_pipeline.cli.client_calendar import set_calendar_command
from ghl_pipeline.cli.status import status
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.errors import InvalidInput, LocationBusy, UnknownClient
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.availability.conftest import WIDGET
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

Command = Callable[..., Result]
SLUG = "quorvath-roof"


@pytest.fixture
def command(project: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `set-calendar`, `availability` or `status` in this process."""
    monkeypatch.setenv("CALENDLY_API_URL", f"{sandbox.url}/_calendly")
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command("set-calendar")(set_calendar_command)
    app.command("availability")(availability)
    app.command("status")(status)

    def run(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    return run


@pytest.fixture
def location(engine: Engine, project: Settings, sandbox: Sandbox) -> Location:
    made = sandbox.add_location()
    made.calendars.add("Roof", widget_slug=SLUG)
    with engine.begin() as connection:
        cipher = TokenCipher.from_settings(project)
        add_client(connection, cipher, name="Acme", location_id=made.id, token=SecretStr(made.token))
    return made


def document(result: Result) -> Any:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def test_a_calendar_is_given_refreshed_and_shown(command: Command, location: Location) -> None:
    stored = command("set-calendar", "Acme", "--link", f"{WIDGET}/bookings/{SLUG}")
    assert stored.exit_code == 0
    assert f"availability --location {location.id}" in stored.output
    refreshed = document(command("availability", "--json"))
    assert (refreshed["fresh"], refreshed["failed"], refreshed["requests"]) == (1, [], 3)
    (one,) = refreshed["locations"]
    assert (one["location"], one["state"], one["resolved_by"]) == (location.id, "fresh", "slug")
    shown = command("availability", "--location", location.id)
    assert (shown.exit_code, "cache" in shown.output) == (0, True)
    (standing,) = document(command("status", "--json"))["locations"]
    assert (standing["calendar"], standing["calendar_reason"], standing["free_slots"]) == ("fresh", None, one["slots"])
    seen = command("status").output
    assert "Calendars" in seen
    assert SLUG not in stored.output + shown.output + seen


def test_a_failure_is_named_with_since_when_and_why(command: Command, location: Location, sandbox: Sandbox) -> None:
    command("set-calendar", "Acme", "--link", f"{WIDGET}/bookings/{SLUG}")
    sandbox.faults(location.id, token_revoked=True)
    failed = command("availability", "--json")
    assert failed.exit_code == 1
    told = document(failed)
    assert told["stale_by_reason"] == {"token_refused": 1}
    assert [each["error"] for each in told["failed"]] == ["TokenRejected"]
    assert "TokenRejected" in command("availability").output
    (standing,) = document(command("status", "--json"))["locations"]
    assert (standing["calendar"], standing["calendar_reason"]) == ("stale", "token_refused")
    assert standing["calendar_stale_since"] is not None
    assert "availability" in standing["failing"]
    assert f"{location.id}: GHL refuses the client's token" in command("status").output


def test_a_link_that_cannot_be_used_is_said_at_once_and_once_in_the_status(
    command: Command, location: Location
) -> None:
    stored = command("set-calendar", "Acme", "--link", f"https://{SLUG}.example.com/book")
    assert stored.exit_code == 0
    assert "no page of a GHL calendar" in stored.output
    assert command("availability").exit_code == 0
    seen = command("status").output
    assert seen.count("no page of a GHL calendar") == 1
    assert SLUG not in stored.output + seen


def test_a_token_comes_from_stdin_and_what_is_not_given_stays(
    command: Command, location: Location, sandbox: Sandbox, engine: Engine
) -> None:
    host = sandbox.world.calendly.add("ada")
    host.add_event_type("Intro")
    first = command("set-calendar", "Acme", "--link", "https://calendly.com/ada/intro")
    assert "--calendly-token" in first.output
    second = document(command("set-calendar", "Acme", "--calendly-token", "--json", stdin=f"{host.token}\n"))
    assert (second["link"], second["has_calendly_token"], second["state"]) == ("calendly", True, "never")
    assert document(command("availability", "--json"))["fresh"] == 1
    emptied = command("set-calendar", "Acme", "--link", "")
    assert "has no calendar now" in emptied.output
    assert document(command("availability", "--json"))["locations"] == []
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT calendly_token_encrypted FROM booking_calendars")).scalar_one()
    assert host.token not in stored


def test_a_client_without_a_calendar_is_told_how_to_give_one(command: Command, location: Location) -> None:
    told = command("availability", "--location", location.id)
    assert (told.exit_code, f"set-calendar {location.id} --link" in told.output) == (0, True)
    assert "Calendars" not in command("status").output


def test_a_calendar_that_another_run_is_at_is_left_to_it_and_is_no_failure(
    command: Command, location: Location, engine: Engine
) -> None:
    command("set-calendar", "Acme", "--link", f"https://example.com/widget/bookings/{SLUG}")
    with AdvisoryLocks(engine).hold(f"availability of location {location.id}") as held:
        assert held
        ended = command("availability", "--json")
    found = json.loads(ended.stdout)
    assert (found["busy"], found["failed"], found["locations"]) == ([location.id], [], [])
    assert ended.exit_code == LocationBusy.exit_code


def test_what_cannot_be_used_is_refused(command: Command, location: Location) -> None:
    assert isinstance(command("set-calendar", "Nobody", "--link", "x").exception, UnknownClient)
    assert isinstance(command("set-calendar", "Acme", "--calendar", "roof").exception, InvalidInput)
    assert isinstance(command("set-calendar", "Acme", "--calendly-token", stdin="\n").exception, InvalidInput)
