"""What people do with drafts, by functions and by commands; texts are shown only when asked for."""

import asyncio
import json
from datetime import timedelta

import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from ghl_pipeline.cli import drafts as commands
from ghl_pipeline.cli.client_drafts import set_drafts_command
from ghl_pipeline.drafts.deciding import DraftNotOpen, UnknownDraft, approve, find_draft, list_drafts, reject
from ghl_pipeline.drafts.outcomes import DraftState
from ghl_pipeline.errors import ConfigurationError, InvalidInput
from ghl_pipeline.sandbox.llm_providers import draft_for
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.drafts.conftest import Agency, Place, llm_settings

WEEK = timedelta(days=7)


@pytest.fixture
def written(place: Place) -> int:
    """The number of a pending draft."""
    place.sms()
    asyncio.run(place.write())
    return int(place.row()["id"])


def test_a_draft_is_approved_or_rejected_and_a_person_may_change_their_mind(place: Place, written: int) -> None:
    with place.engine.begin() as connection:
        assert approve(connection, written, WEEK).state is DraftState.APPROVED
    first = place.row()["decided_at"]
    assert first is not None
    with place.engine.begin() as connection:
        assert approve(connection, written, WEEK).decided_at == first, "the first time counts"
    with place.engine.begin() as connection:
        assert reject(connection, written, WEEK).state is DraftState.REJECTED
    assert place.row()["decided_at"] > first
    assert place.openai.calls == 1, "and nothing is written anew"


def test_no_draft_for_somebody_who_opted_out_since_is_approved(place: Place, written: int) -> None:
    place.sql("UPDATE leads SET opted_out_at = now()")
    with place.engine.begin() as connection:
        with pytest.raises(DraftNotOpen, match="must not be written to"):
            approve(connection, written, WEEK)
        assert reject(connection, written, WEEK).state is DraftState.REJECTED


def test_what_failed_or_does_not_exist_cannot_be_decided(place: Place) -> None:
    place.sms()
    place.always("refusal", "refusal")
    asyncio.run(place.write())
    failed = int(place.row()["id"])
    with place.engine.begin() as connection:
        for decide in (approve, reject):
            with pytest.raises(DraftNotOpen, match="refused"):
                decide(connection, failed, WEEK)
            with pytest.raises(UnknownDraft):
                decide(connection, failed + 1, WEEK)


def test_a_draft_says_when_somebody_wrote_meanwhile(place: Place, written: int) -> None:
    lead = int(place.row()["lead_id"])
    place.message(lead, minutes=0, direction="outbound")
    with place.engine.connect() as connection:
        assert find_draft(connection, written, WEEK).answered


def test_drafts_are_listed_newest_first_by_location_and_state(agency: Agency) -> None:
    place, other = agency.place(), agency.place("Other")
    for each in (place, other, place):
        each.sms()
        asyncio.run(each.drafts().write([place.id, other.id]))
    with agency.engine.begin() as connection:
        approve(connection, int(other.row()["id"]), WEEK)
        everywhere = list_drafts(connection, WEEK)
        assert [each.location_id for each in everywhere] == [place.id, other.id, place.id]
        assert [each.client_id for each in list_drafts(connection, WEEK, location_ids=[other.id])] == [other.client_id]
        assert len(list_drafts(connection, WEEK, state=DraftState.PENDING)) == 2
        assert len(list_drafts(connection, WEEK, limit=1)) == 1
    assert "body" not in everywhere[0].as_dict()
    assert place.rows()[0]["body"] not in repr(everywhere)


# --- commands


@pytest.fixture
def run(project: Settings, place: Place, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """A runner in an environment with both providers."""
    for name, value in llm_settings(place.sandbox, database_url=project.database_url).as_environment().items():
        if name.startswith(("OPENAI", "ANTHROPIC", "DRAFT")):
            monkeypatch.setenv(name, value)
    return CliRunner()


def document(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_drafts_are_written_looked_at_and_decided_at_the_command_line(run: CliRunner, place: Place) -> None:
    place.sms()
    told = document(run.invoke(commands.app, ["write", "--json"]))
    assert [each["drafted"] for each in told["locations"]] == [{"sms": 1}]  # type: ignore[attr-defined]
    body = place.row()["body"]
    assert body == draft_for(place.openai.requests[0].prompt)
    number = str(place.row()["id"])
    for words in (["list"], ["list", "--json"], ["show", number], ["show", number, "--json"]):
        shown = run.invoke(commands.app, words)
        assert shown.exit_code == 0
        assert body not in shown.output
    assert body in run.invoke(commands.app, ["show", number, "--text"]).output
    assert document(run.invoke(commands.app, ["show", number, "--text", "--json"]))["body"] == body
    assert document(run.invoke(commands.app, ["approve", number, "--json"]))["state"] == "approved"
    assert "rejected" in run.invoke(commands.app, ["reject", number]).output
    assert isinstance(run.invoke(commands.app, ["approve", "999"]).exception, UnknownDraft)


def test_writing_ends_in_a_failure_when_every_draft_failed(run: CliRunner, place: Place) -> None:
    place.sms()
    place.always("500", "500")
    result = run.invoke(commands.app, ["write"])
    assert result.exit_code == 1
    assert "drafts list --state failed" in result.output
    assert run.invoke(commands.app, ["write"]).exit_code == 0, "nothing was tried: it rests"


def test_the_list_says_which_drafts_are_outdated(run: CliRunner, place: Place, written: int) -> None:
    place.message(int(place.row()["lead_id"]), "Hello?", minutes=0)
    listed = document(run.invoke(commands.app, ["list", "--json"]))["drafts"]
    assert [each["outdated"] for each in listed] == [True]  # type: ignore[attr-defined]
    assert isinstance(run.invoke(commands.app, ["approve", str(written)]).exception, DraftNotOpen)


def test_writing_without_a_key_says_which_setting_is_missing(
    run: CliRunner, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    error = run.invoke(commands.app, ["write"]).exception
    assert isinstance(error, ConfigurationError)
    assert "OPENAI_API_KEY" in str(error)


def test_a_client_is_switched_on_with_its_tone_and_off_again(engine: Engine, run: CliRunner, agency: Agency) -> None:
    off = agency.place("Off", on=False)
    set_drafts = typer.Typer()
    set_drafts.command()(set_drafts_command)
    error = run.invoke(commands.app, ["write", "--location", off.id]).exception
    assert isinstance(error, InvalidInput)
    assert "set-drafts" in str(error)
    stored = document(run.invoke(set_drafts, ["Off", "--tone", "Warm.", "--slots", "2", "--json"]))
    assert (stored["enabled"], stored["tone"], stored["slots_offered"]) == (True, "Warm.", 2)
    off.sms()
    assert run.invoke(commands.app, ["write", "--location", off.id]).exit_code == 0
    assert "Warm." in off.openai.requests[0].prompt
    assert "No replies" in run.invoke(set_drafts, ["Off", "--off"]).output
    assert run.invoke(set_drafts, ["Off", "--slots", "11"]).exit_code == 2
