"""URLs from settings, the two databases, the engine's promises, and what is said when a connection fails."""

import socket
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, Engine, make_url, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from ghl_pipeline.database import connection as module
from ghl_pipeline.database.connection import (
    DatabaseUrls,
    check_connection,
    create_engine,
    database_urls,
    describe,
    drop_databases,
    ensure_databases,
)
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.names import own_name

PASSWORD = "s3cr3t/pass"


def settings(**values: str) -> Settings:
    return Settings.model_validate(values)


@pytest.fixture
def urls(administration: Connection, database_server: URL) -> Iterator[DatabaseUrls]:
    """Two databases of which neither exists yet."""
    name = f"ghl_pipeline_test_{own_name()}_connection"
    app = database_server.set(database=name)
    dagster = app.set(database=f"{name}_dagster", drivername="postgresql+psycopg2")
    yield DatabaseUrls(app=app, dagster=dagster)
    for url in (app, dagster):
        administration.execute(text(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)"))


@pytest.fixture
def powerless(administration: Connection, database_server: URL) -> Iterator[URL]:
    """The server's `postgres` database as a role that may log in and nothing else."""
    role = f"ghl_pipeline_test_{own_name()}"
    administration.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'powerless'"))
    yield database_server.set(username=role, password="powerless")
    administration.execute(text(f"DROP ROLE {role}"))


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_given_url_serves_both_databases_each_with_its_driver(scheme: str) -> None:
    urls = database_urls(
        settings(database_url=f"{scheme}://user:s3cr3t%2Fpass@db.example.com:6543/agency?sslmode=require")
    )
    assert urls.app.drivername == "postgresql+psycopg"
    assert urls.dagster.drivername == "postgresql+psycopg2"
    assert (urls.app.database, urls.dagster.database) == ("agency", "agency_dagster")
    for url in (urls.app, urls.dagster):
        assert (url.host, url.port, url.password, url.query["sslmode"]) == ("db.example.com", 6543, PASSWORD, "require")


def test_dagsters_database_can_be_on_another_server() -> None:
    urls = database_urls(
        settings(
            database_url="postgresql://u:p@one.example.com/agency",
            dagster_database_url="postgresql+psycopg2://u:p@two.example.com/history",
        )
    )
    assert describe(urls.dagster) == "postgresql://u@two.example.com/history"


@pytest.mark.parametrize(
    "unusable",
    [
        f"mysql://user:{PASSWORD}@host/db",
        f"postgresql+asyncpg://user:{PASSWORD}@host/db",
        f"sqlite:///{PASSWORD}.db",
        f"postgresql://user:{PASSWORD}@host:port/db",
        "postgresql://user:s3cr3t%2Fpass@host",
        PASSWORD,
    ],
)
@pytest.mark.parametrize("variable", ["GHL_PIPELINE_DATABASE_URL", "GHL_PIPELINE_DAGSTER_DATABASE_URL"])
def test_an_unusable_url_names_its_variable_and_nothing_of_its_value(variable: str, unusable: str) -> None:
    values = {"GHL_PIPELINE_DATABASE_URL": "postgresql://u:p@host/db", variable: unusable}
    with pytest.raises(ConfigurationError, match=rf"{variable} .*postgresql://USER") as caught:
        database_urls(settings(**values))
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_without_a_url_the_embedded_server_is_attached_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    class Attached:
        def __init__(self, home: Path, os_user: str | None) -> None:
            made.append(home)

        def attach(self) -> "Attached":
            return self

        def url(self, database: str) -> URL:
            return URL.create("postgresql+psycopg", "u", PASSWORD, "127.0.0.1", 5000, database)

    monkeypatch.setattr(module, "EmbeddedPostgres", Attached)
    module._embedded_server.cache_clear()
    try:
        for _ in range(2):
            urls = database_urls(settings(home="/nowhere", database_name="agency"))
            assert (urls.app.database, urls.dagster.database) == ("agency", "agency_dagster")
    finally:
        module._embedded_server.cache_clear()
    assert made == [Path("/nowhere")]


def test_a_described_url_has_no_password_wherever_it_hides() -> None:
    url = make_url("postgresql://user:s3cr3t@host:5432/db?password=s3cr3t&sslpassword=s3cr3t&sslmode=require")
    assert describe(url) == "postgresql://user@host:5432/db?sslmode=require"


# --- databases --------------------------------------------------------------------------------------------------------


def test_missing_databases_are_made_and_existing_ones_left_alone(urls: DatabaseUrls) -> None:
    ensure_databases(urls)
    engine = create_engine(urls.app)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (n int)"))
    ensure_databases(urls)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('kept')")) == "kept"
    drop_databases(urls)  # although the engine still holds a connection
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        check_connection(create_engine(urls.app))
    drop_databases(urls)
    engine.dispose()


def test_processes_that_make_the_same_databases_at_once_all_succeed(urls: DatabaseUrls) -> None:
    with ThreadPoolExecutor(6) as pool:
        for racer in [pool.submit(ensure_databases, urls) for _ in range(6)]:
            racer.result()
    for url in (urls.app, urls.dagster):
        engine = create_engine(url)
        check_connection(engine)
        engine.dispose()


def test_who_may_not_create_a_database_is_told_what_an_administrator_runs(urls: DatabaseUrls, powerless: URL) -> None:
    theirs = DatabaseUrls(app=powerless.set(database=urls.app.database), dagster=urls.dagster)
    statement = f'CREATE DATABASE "{urls.app.database}" OWNER "{powerless.username}"'
    with pytest.raises(DatabaseUnavailable, match=f"permission denied.*Run as an administrator: {statement}"):
        ensure_databases(theirs)


def test_who_may_not_drop_a_database_is_told_so(urls: DatabaseUrls, powerless: URL) -> None:
    ensure_databases(urls)
    theirs = DatabaseUrls(app=powerless.set(database=urls.app.database), dagster=urls.dagster)
    with pytest.raises(DatabaseUnavailable, match=r"cannot be dropped: must be owner"):
        drop_databases(theirs)


# --- the engine -------------------------------------------------------------------------------------------------------


def test_sessions_are_in_utc_named_and_bounded_in_time(engine: Engine) -> None:
    with engine.connect() as connection:
        names = "TimeZone application_name statement_timeout idle_in_transaction_session_timeout"
        shown = [connection.scalar(text(f"SHOW {name}")) for name in names.split()]
    assert shown == ["UTC", "ghl_pipeline", "5min", "5min"]


def test_options_of_the_url_are_kept_beside_our_own(database_url: URL) -> None:
    engine = create_engine(database_url.update_query_dict({"options": "-c work_mem=7MB"}))
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW work_mem")) == "7MB"
        assert connection.scalar(text("SHOW TimeZone")) == "UTC"
    engine.dispose()


def test_a_pooled_connection_that_the_server_ended_is_replaced_unnoticed(
    engine: Engine, administration: Connection
) -> None:
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    administration.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != pid


def test_an_sql_error_keeps_its_code_and_loses_the_values_of_people(engine: Engine) -> None:
    canary = "canary@example.com"
    insert_client = text("INSERT INTO clients (name, location_id) VALUES ('a', 'loc1') RETURNING id")
    insert_lead = text("INSERT INTO leads (client_id, email) VALUES (:client, :email)")
    with engine.begin() as connection:
        values = {"client": connection.scalar(insert_client), "email": canary}
        connection.execute(insert_lead, values)
    with pytest.raises(IntegrityError) as duplicate, engine.begin() as connection:
        connection.execute(insert_lead, values | {"email": canary.upper()})
    with pytest.raises(DataError) as refused, engine.begin() as connection:
        connection.execute(text("SELECT CAST(:email AS text)::int"), {"email": canary})
    for error in (duplicate.value, refused.value):
        assert canary not in "".join(traceback.format_exception(error)).lower()
    assert "uq_leads_client_email" in str(duplicate.value)
    assert "SQLSTATE 23505" in str(duplicate.value)
    assert getattr(duplicate.value.orig, "sqlstate", None) == "23505"
    assert "SQLSTATE 22P02" in str(refused.value)


# --- failing ----------------------------------------------------------------------------------------------------------


def test_an_unreachable_port_a_wrong_password_and_an_unknown_database_are_told_apart(database_server: URL) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take it, and it refuses
        unreachable = database_server.set(host="127.0.0.1", port=closed.getsockname()[1], password=PASSWORD)
        cases = {
            "Connection refused": unreachable,
            "password authentication failed": database_server.set(password=PASSWORD),
            'database "no_such_database" does not exist': database_server.set(database="no_such_database"),
        }
        for reason, url in cases.items():
            where = f"Database {url.database} on {url.host}:{url.port} cannot be reached"
            engine = create_engine(url)
            with pytest.raises(DatabaseUnavailable, match=rf"{where}: .*{reason}.*GHL_PIPELINE_DATABASE_URL") as caught:
                check_connection(engine)
            told = "".join(traceback.format_exception(caught.value))
            assert PASSWORD not in told
            assert str(url.password) not in told
            assert "\n" not in str(caught.value)


def test_a_server_that_accepts_and_never_answers_is_given_up(
    database_server: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = create_engine(database_server.set(host="127.0.0.1", port=silent.getsockname()[1]))
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            check_connection(engine)


def test_an_unknown_host_is_named_as_the_reason(database_server: URL) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"on no-such-host\.invalid:5432 .*: failed to resolve host"):
        check_connection(create_engine(database_server.set(host="no-such-host.invalid", port=5432)))


def test_a_statement_that_runs_too_long_ends_in_an_error(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = '50ms'"))
        with pytest.raises(OperationalError, match="SQLSTATE 57014"):
            connection.execute(text("SELECT pg_sleep(30)"))
