"""The progress display: on a terminal, on stderr, and never beside a JSON document."""

import time

import pytest
from rich.console import Console
from sqlalchemy import Engine, text

from ghl_pipeline.cli import progress
from ghl_pipeline.hydration.progress import latest_attempt, locations_ended
from ghl_pipeline_tests.cli.conftest import AddClient, Cli

HERE, THERE, ELSEWHERE = "HereHereHereHereHere", "ThereThereThereThere", "ElsewhereElsewhereEls"


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stderr is a terminal to the display."""
    monkeypatch.setattr(progress, "err", Console(stderr=True, force_terminal=True, color_system=None))


def begin(engine: Engine, location: str) -> int:
    query = text("INSERT INTO location_attempts (location_id, capability) VALUES (:id, 'hydration') RETURNING id")
    with engine.begin() as connection:
        return int(connection.execute(query, {"id": location}).scalar_one())


def end(engine: Engine, attempt: int, state: str) -> None:
    query = text("UPDATE location_attempts SET state = :state, ended_at = now() WHERE id = :id")
    with engine.begin() as connection:
        connection.execute(query, {"id": attempt, "state": state})


@pytest.mark.usefixtures("_terminal")
@pytest.mark.parametrize("words", [("backfill", "--dry-run"), ("sync-all",), ("backfill",)], ids=" ".join)
def test_a_terminal_sees_the_work_and_programs_do_not(words: tuple[str, ...], cli: Cli, add_client: AddClient) -> None:
    add_client().add_lead(email="nobody@example.com")
    drawn = "leads written back" if words == ("backfill",) else "locations done"
    assert drawn in cli(*words).err
    told = cli(*words, "--json")
    assert told.err == ""
    told.document()


def test_what_is_no_terminal_sees_nothing(cli: Cli, add_client: AddClient) -> None:
    add_client().add_lead(email="nobody@example.com")
    for words in (("backfill", "--dry-run"), ("sync-all",)):
        assert cli(*words).err == ""


@pytest.mark.usefixtures("_terminal")
def test_the_display_counts_on_while_locations_end(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY_SECONDS", 0.01)
    seen = ""
    with progress.watch_locations_done(engine, [HERE, THERE]):
        end(engine, begin(engine, HERE), "succeeded")
        give_up_at = time.monotonic() + 10
        while "1/2" not in seen:
            assert time.monotonic() < give_up_at, seen
            time.sleep(0.02)
            seen += capsys.readouterr().err
    assert "0/2" in seen


def test_a_location_is_done_when_an_attempt_since_then_has_ended_however(engine: Engine) -> None:
    assert latest_attempt(engine) == 0
    end(engine, begin(engine, HERE), "succeeded")
    before = latest_attempt(engine)
    here, there = begin(engine, HERE), begin(engine, THERE)
    end(engine, begin(engine, ELSEWHERE), "succeeded")
    assert locations_ended(engine, [HERE, THERE], after=before) == 0
    end(engine, here, "failed")
    end(engine, begin(engine, HERE), "succeeded")
    assert locations_ended(engine, [HERE, THERE], after=before) == 1
    end(engine, there, "interrupted")
    assert locations_ended(engine, [HERE, THERE], after=before) == 2
