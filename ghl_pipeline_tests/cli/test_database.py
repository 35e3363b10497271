"""`ghl-pipeline db`, and what every command says when the database cannot be used."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, Engine, make_url, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import PROGRAM, Cli, run_process
from ghl_pipeline_tests.fixtures.names import own_name


@pytest.fixture
def empty(
    administration: Connection, database_url: URL, project: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """A database without tables, as the project's."""
    url = database_url.set(database=f"{database_url.database}_empty")
    administration.execute(text(f"CREATE DATABASE {url.database} TEMPLATE template0 STRATEGY file_copy"))
    monkeypatch.setenv("GHL_PIPELINE_DATABASE_URL", url.render_as_string(hide_password=False))
    engine = create_engine(url)
    yield engine
    engine.dispose()
    administration.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))


def tables(engine: Engine) -> int:
    with engine.connect() as connection:
        count = connection.scalar(text("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"))
    return int(count or 0)


def test_an_upgrade_makes_the_tables_and_a_second_one_changes_nothing(cli: Cli, empty: Engine) -> None:
    first = cli("db", "upgrade", "--json").document()
    assert first["from"] is None
    second = cli("db", "upgrade", "--json").document()
    assert second["from"] == second["to"] == first["to"]
    shown = make_url(second["database_url"])
    assert (shown.drivername, shown.password, shown.database) == ("postgresql", None, empty.url.database)
    assert "***" not in second["database_url"]
    assert "up to date" in cli("db", "upgrade").out
    assert cli("status").code == 0


@pytest.mark.parametrize("words", [("status",), ("backfill", "--json"), ("sync-all",), ("clients", "list")])
def test_a_database_without_tables_is_sent_to_the_upgrade(words: tuple[str, ...], cli: Cli, empty: Engine) -> None:
    refused = cli(*words)
    assert (refused.code, refused.out) == (4, "")
    assert "Run: ghl-pipeline db upgrade" in refused.err
    assert tables(empty) == 0


def test_a_migration_that_fails_is_undone_and_runs_when_the_cause_is_gone(cli: Cli, empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE leads (somebody_elses int)"))
    failed = cli("db", "upgrade")
    assert failed.code == 4
    assert "failed and was undone" in failed.err
    assert tables(empty) == 1
    with empty.begin() as connection:
        connection.execute(text("DROP TABLE leads"))
    assert cli("db", "upgrade").code == 0
    assert cli("status").code == 0


def test_a_migration_that_is_killed_leaves_nothing_and_runs_again(cli: Cli, empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(
            text("CREATE FUNCTION pause() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); END'")
        )
        connection.execute(
            text("CREATE EVENT TRIGGER pause ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION pause()")
        )
    sleeping = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
    with subprocess.Popen([PROGRAM, "db", "upgrade"]) as upgrade:
        give_up_at = time.monotonic() + 30
        with empty.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not (pid := connection.scalar(sleeping)):
                assert time.monotonic() < give_up_at
                time.sleep(0.05)
            upgrade.send_signal(signal.SIGKILL)
            upgrade.wait()
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            connection.execute(text("DROP EVENT TRIGGER pause"))
    assert tables(empty) == 0
    assert cli("db", "upgrade", "--json").document()["from"] is None
    assert cli("status").code == 0


@pytest.mark.parametrize("words", [("status",), ("backfill", "--json"), ("db", "upgrade"), ("demo", "--json")])
def test_a_server_that_does_not_answer_is_named_without_the_password(
    words: tuple[str, ...], cli: Cli, project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("GHL_PIPELINE_DATABASE_URL", f"postgresql://user:s3cr3t@127.0.0.1:{port}/agency")
        monkeypatch.delenv("GHL_PIPELINE_DAGSTER_DATABASE_URL")
        refused = cli(*words)
    assert (refused.code, refused.out) == (4, "")
    assert f"127.0.0.1:{port} cannot be reached: Connection refused" in refused.err
    assert "GHL_PIPELINE_DATABASE_URL" in refused.err
    assert "s3cr3t" not in refused.err


def test_dagsters_database_that_may_not_be_created_is_named_with_the_statement_to_run(
    cli: Cli, project: Settings, administration: Connection, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"ghl_pipeline_test_{own_name()}"
    administration.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'powerless'"))
    try:
        url = database_url.set(drivername="postgresql", username=role, password="powerless", database=f"{role}_dagster")
        monkeypatch.setenv("GHL_PIPELINE_DAGSTER_DATABASE_URL", url.render_as_string(hide_password=False))
        refused = cli("backfill")
    finally:
        administration.execute(text(f"DROP ROLE {role}"))
    assert (refused.code, refused.out) == (4, "")
    assert f'Run as an administrator: CREATE DATABASE "{role}_dagster" OWNER "{role}"' in refused.err
    assert "powerless" not in refused.err


# --- the embedded server


def test_the_embedded_database_is_set_up_stopped_found_again_and_removed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "notes.txt").write_text("not ours")
    own = {"GHL_PIPELINE_HOME": str(home), "GHL_PIPELINE_DATABASE_URL": "", "GHL_PIPELINE_TOKEN_KEYS": ""}
    words = ("clients", "add", "--name", "Acme", "--location", "LocationNumberOne001")
    added = run_process(*words, stdin="pit-x", **own)
    assert (added.code, added.err) == (0, "")
    assert run_process("db", "stop", **own).code == 0
    assert [c["name"] for c in run_process("clients", "list", "--json", **own).document()["clients"]] == ["Acme"]
    assert run_process("db", "remove", "--yes", **own).code == 0
    assert [path.name for path in home.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_nothing_is_removed_without_a_yes(
    answer: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgres").mkdir()
    for name in ("postgres/password", "token.key"):
        (tmp_path / name).write_text("ours")
    monkeypatch.setenv("GHL_PIPELINE_HOME", str(tmp_path))
    refused = cli("db", "remove", stdin=answer)
    assert refused.code == 2
    assert "Nothing was deleted" in refused.err
    assert (tmp_path / "token.key").exists()
    assert (tmp_path / "postgres" / "password").exists()


def test_a_home_that_is_not_ours_is_left_as_it_is(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["postgres/data/PG_VERSION", "storage/photo.jpg", "artifacts/build.zip", "token.key"]
    for name in files:
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    monkeypatch.setenv("GHL_PIPELINE_HOME", str(tmp_path / "theirs"))
    ended = cli("db", "remove", "--yes")
    assert ended.code == 0
    assert "Nothing was deleted" in ended.out
    assert all((tmp_path / "theirs" / name).read_text() == "theirs" for name in files)


def test_a_home_that_cannot_be_made_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHL_PIPELINE_HOME", f"{os.devnull}/home")
    refused = cli("status")
    assert refused.code == 4
    assert f"{os.devnull}/home" in refused.err
