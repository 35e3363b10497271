"""`ghl-pipeline doctor`: findings for people and for programs, and exit codes for scripts."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


def found(document: Any, level: str = "problem") -> set[tuple[str | None, str]]:
    """Location and check of the findings of a level."""
    return {(each["location"], each["check"]) for each in document["findings"] if each["level"] == level}


def test_a_sound_project_ends_with_0_and_the_same_work_goes_on_as_before(
    cli: Cli, engine: Engine, project: Settings, sandbox: Sandbox
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=3, leads=40)
    ended = cli("doctor", "--json")
    assert ended.code == 0, ended.out + ended.err
    document = ended.document()
    assert document["counts"]["problem"] == 0
    assert {each["location"] for each in document["findings"]} == {None, *(place.id for place in agency.locations)}
    assert found(document, "warning") >= {(None, "settings")}, "the sandbox is not GHL"
    for place in agency.locations:
        stats = sandbox.stats(place.id)
        assert 0 < stats["requests"] < 20
        assert stats["creates"] == stats["updates"] == stats["deletes"] == 0
    assert cli("backfill").code == 0


def test_people_see_a_table_and_a_line_for_each_finding_with_what_to_do(
    cli: Cli, add_client: AddClient, sandbox: Sandbox
) -> None:
    well, ill = add_client("Well", contacts=crowd(30, "well")), add_client("Ill")
    sandbox.faults(ill.location.id, token_revoked=True)
    ended = cli("doctor")
    assert ended.code == 1
    lines = [line for line in ended.out.splitlines() if line.startswith("problem ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"problem  {ill.location.id}, token: TokenRejected")
    assert f"ghl-pipeline clients set-token {ill.location.id}" in lines[0]
    assert re.search(rf"{well.location.id} +\d+ +\d+ +0\b", ended.out), "its row counts no problem"
    for secret in (well.location.token, ill.location.token, "@"):
        assert secret not in ended.out + ended.err


def test_one_location_is_shown_with_what_is_well(cli: Cli, add_client: AddClient, sandbox: Sandbox) -> None:
    client, other = add_client(contacts=crowd(30, "one"), time_zone="UTC"), add_client("Other")
    ended = cli("doctor", "--location", client.location.id)
    assert ended.code == 0
    assert f"{client.location.id}, groups: addresses asked in groups are answered rightly" in ended.out
    assert f"{client.location.id}, search: answers; 30 contacts" in ended.out
    assert sandbox.stats(other.location.id)["requests"] == 0
    assert cli("doctor", "--client", "Acme", "--json").code == 0


def test_a_location_that_no_client_has_is_the_caller_s_mistake(cli: Cli, project: Settings) -> None:
    ended = cli("doctor", "--location", "NoSuchLocation000000")
    assert (ended.code, ended.out) == (2, "")
    assert "clients list" in ended.err


def test_without_a_client_it_says_how_to_add_one(cli: Cli, project: Settings) -> None:
    ended = cli("doctor")
    assert ended.code == 0
    assert "ghl-pipeline clients add" in ended.out


@pytest.mark.parametrize(
    ("variable", "value", "code", "check"),
    [
        ("GHL_REQUESTS_PER_10S", "many", 3, "settings"),
        ("GHL_PIPELINE_DATABASE_URL", "mysql://localhost/x", 3, "settings"),
        ("GHL_PIPELINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing", 4, "database"),
        ("GHL_PIPELINE_TOKEN_KEYS", "no-key", 1, "token keys"),
    ],
)
def test_a_broken_side_of_ours_is_a_finding_with_the_exit_code_of_its_kind(
    cli: Cli,
    add_client: AddClient,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    code: int,
    check: str,
) -> None:
    add_client()
    monkeypatch.setenv(variable, value)
    ended = cli("doctor", "--json")
    assert ended.code == code
    document = ended.document()
    assert found(document) == {(None, check)}
    (problem,) = (each for each in document["findings"] if each["level"] == "problem")
    assert problem["text"]
    assert problem["advice"]
    assert cli("doctor").code == code


def test_tables_of_another_version_are_found(cli: Cli, add_client: AddClient, engine: Engine) -> None:
    add_client()
    with engine.begin() as connection:
        connection.execute(text("UPDATE ghl_pipeline_alembic_version SET version_num = '0001'"))
    ended = cli("doctor", "--json")
    assert (ended.code, found(ended.document())) == (4, {(None, "database")})
    assert "ghl-pipeline db upgrade" in ended.out


def test_a_key_that_fits_no_token_is_found_at_every_location(
    cli: Cli, add_client: AddClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = [add_client("One").location.id, add_client("Two").location.id]
    monkeypatch.setenv("GHL_PIPELINE_TOKEN_KEYS", SecretStr("A" * 43 + "=").get_secret_value())
    ended = cli("doctor", "--json")
    assert (ended.code, found(ended.document())) == (1, {(place, "token") for place in places})
