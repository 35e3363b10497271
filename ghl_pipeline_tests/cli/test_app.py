"""What holds for every command: help, exit codes, settings, terminals of all kinds."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from sqlalchemy import Engine

from ghl_pipeline.cli import status as status_module
from ghl_pipeline.cli.app import app
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable, InvalidInput, LocationBusy, PipelineError
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline_tests.cli.conftest import PROGRAM, AddClient, Cli, run_process

CANARY = "canary.person@example.com"


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group as the words one types."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        yield words
        inner = getattr(command, "commands", {})
        waiting.extend(((*words, name), each) for name, each in inner.items())


def test_the_commands_are_those_of_the_manual() -> None:
    assert {" ".join(words) for words in commands()} == {
        "", "alerts", "alerts list", "alerts test", "availability", "backfill", "clients", "clients add",
        "clients deactivate", "clients import", "clients list", "clients reactivate", "clients rotate-token",
        "clients set-calendar", "clients set-crm", "clients set-drafts", "clients set-emailbison",
        "clients set-token", "clients webhook-url", "crm-sync", "db", "db add-login", "db add-viewer",
        "db downgrade", "db purge", "db remove", "db remove-viewer", "db roles", "db stop", "db upgrade",
        "db version", "db viewers", "demo", "dev", "doctor", "drafts", "drafts approve", "drafts list",
        "drafts reject", "drafts show", "drafts write", "events", "events handle", "events list", "events purge",
        "events reconcile", "events replay", "events show", "import-messages", "keys", "keys check", "keys new",
        "keys retire", "keys rotate", "metrics", "sandbox", "senders", "senders heal", "senders list",
        "senders sync", "status", "sync-all", "sync-lead", "ui", "webhooks", "worker",
    }  # fmt: skip


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_explains_itself_without_a_database(words: tuple[str, ...], cli: Cli) -> None:
    shown = cli(*words, "--help")
    assert shown.code == 0
    assert f"Usage: {' '.join(['ghl-pipeline', *words])}" in shown.words()
    assert shown.err == ""


@pytest.mark.parametrize(
    "words",
    [
        ("no-such-command",),
        ("backfill", "--no-such-option"),
        ("backfill", "--max-leads", "0"),
        ("backfill", "--requests-per-10s", "0"),
        ("backfill", "--concurrency", "many"),
        ("sync-lead",),
        ("sync-lead", "seven"),
        ("demo", "--locations", "0"),
        ("sandbox", "--port", "70000"),
        ("clients", "add", "--name", "Acme"),
    ],
    ids=" ".join,
)
def test_words_that_are_no_command_end_with_2(words: tuple[str, ...], cli: Cli) -> None:
    ended = cli(*words)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err != ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PipelineError("Told."), 1),
        (InvalidInput("Told."), 2),
        (ConfigurationError("Told."), 3),
        (DatabaseUnavailable("Told."), 4),
        (LocationBusy("Told."), 5),
    ],
)
def test_an_expected_error_is_one_line_and_its_exit_code(
    error: PipelineError, code: int, cli: Cli, project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Engine, **__: object) -> None:
        raise error

    monkeypatch.setattr(status_module, "look_at", fail)
    ended = cli("status", "--json")
    assert (ended.code, ended.out, ended.err) == (code, "", "Told.\n")


def test_a_bug_ends_with_70_and_shows_where_it_is_but_no_persons_value(
    cli: Cli, project: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(_: Engine, **__: object) -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr(status_module, "look_at", stumble)
    ended = cli("status")
    assert ended.code == 70
    assert "This is a bug" in ended.err
    assert "KeyError" in caplog.text
    assert "in stumble" in caplog.text
    assert CANARY not in caplog.text + ended.err


# --- settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GHL_REQUESTS_PER_10S", "s3cr3t"),
        ("GHL_REQUESTS_PER_10S", "0"),
        ("GHL_TIMEOUT_SECONDS", "-1.5"),
        ("GHL_API_URL", "s3cr3t.example.com/api"),
        ("GHL_API_URL", "ftp://s3cr3t.example.com"),
        ("GHL_PIPELINE_DATABASE_NAME", "s3cr3t; DROP"),
        ("GHL_PIPELINE_DATABASE_URL", "mysql://user:s3cr3t@localhost/agency"),
        ("GHL_PIPELINE_DATABASE_URL", "s3cr3t"),
        ("GHL_PIPELINE_DAGSTER_DATABASE_URL", "postgresql://user:s3cr3t@localhost"),
        ("GHL_PIPELINE_TOKEN_KEYS", "s3cr3t"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_without_its_value(
    variable: str, value: str, cli: Cli, project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    ended = cli("backfill")
    assert ended.code == 3
    assert variable in ended.err
    assert ended.err.count("\n") == 1
    assert "s3cr3t" not in ended.err


def test_the_env_file_is_read_and_real_variables_win(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_environment / ".env").write_text("GHL_REQUESTS_PER_10S=40\nGHL_REQUESTS_PER_DAY=1000\nOTHER=x\n")
    monkeypatch.setenv("GHL_REQUESTS_PER_DAY", "2000")
    settings = load_settings()
    assert (settings.requests_per_10s, settings.requests_per_day) == (40, 2000)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHL_PIPELINE_DATABASE_URL", "")
    assert load_settings().uses_embedded_database


def test_an_env_file_that_is_not_text_is_named(cli: Cli, own_environment: Path) -> None:
    (own_environment / ".env").write_bytes(b"GHL_PIPELINE_HOME=/tmp/caf\xe9\n")
    ended = cli("status")
    assert ended.code == 3
    assert str(own_environment / ".env") in ended.err


def test_variables_of_other_programs_are_not_taken_for_settings(
    own_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {
        "HOME": "/elsewhere",
        "DATABASE_URL": "mysql://x/y",
        "API_URL": "https://other.example.com",
        "TIMEOUT_SECONDS": "x",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.home == own_environment / ".ghl_pipeline"
    assert settings.database_url is None
    assert settings.api_url == "https://services.leadconnectorhq.com"


# --- terminals


def test_a_reader_that_stops_reading_is_no_error(add_client: AddClient) -> None:
    add_client("Acme")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        ended = subprocess.run(
            [PROGRAM, "clients", "list", "--json"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == ""


def test_a_terminal_that_knows_only_ascii_shows_every_name(add_client: AddClient) -> None:
    add_client("Café Zürich")
    for_people = run_process("clients", "list", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert (for_people.code, for_people.err) == (0, "")
    assert r"Caf\xe9 Z\xfcrich" in for_people.out
    for_programs = run_process("clients", "list", "--json", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert [client["name"] for client in for_programs.document()["clients"]] == ["Café Zürich"]


def test_a_table_in_a_pipe_is_not_cut(add_client: AddClient, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    agency = add_client("Acme")
    monkeypatch.setenv("COLUMNS", "20")
    assert agency.location.id in cli("clients", "list").out
