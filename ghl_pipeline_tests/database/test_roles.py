"""What receiver, worker and viewers may do in a real database, and what they may not."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from ghl_pipeline.database import migrate
from ghl_pipeline.database.connection import DAGSTER_DRIVER, DatabaseUrls
from ghl_pipeline.database.connection import create_engine as pipeline_engine
from ghl_pipeline.database.granting import Plan, apply_roles, as_script, plan_roles
from ghl_pipeline.database.logins import add_login, give_clients, new_password, remove_viewer, viewers
from ghl_pipeline.database.roles import (
    HIDDEN_FROM_VIEWERS,
    RECEIVER,
    ROLES,
    SECRET_COLUMNS,
    VIEWER,
    VIEWER_CLIENTS,
    WORKER,
    viewer_columns,
    viewer_rows,
)
from ghl_pipeline.database.tables import metadata
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput
from ghl_pipeline.orchestration.dagster_tables import make_dagster_tables
from ghl_pipeline_tests.fixtures.names import own_name

LogIn = Callable[..., Engine]

_ROWS_OF_A_CLIENT = (
    """
    INSERT INTO messages (client_id, lead_id, provider, external_id, channel, direction, body, source, sent_at)
    VALUES (:client, :lead, 'ghl', 'M' || :number, 'sms', 'inbound', 'yes', 'webhook', now())
    """,
    """
    INSERT INTO webhook_events (provider, dedupe_key, client_id, location_id, event_type, body)
    VALUES ('ghl', 'K' || :number, :client, :location, 'InboundMessage', 'body')
    """,
    "INSERT INTO location_attempts (location_id, capability) VALUES (:location, 'hydration')",
    """
    INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id, token_encrypted)
    VALUES (:client, 'https://bison.example.com', :number, 'gAAAsecret')
    """,
)


@pytest.fixture
def urls(database_url: URL, dagster_url: URL) -> DatabaseUrls:
    return DatabaseUrls(app=database_url, dagster=dagster_url.set(drivername=DAGSTER_DRIVER))


@pytest.fixture
def plan(urls: DatabaseUrls) -> Plan:
    """The roles with all of their rights, in this test's databases."""
    plan = plan_roles(urls)
    apply_roles(plan)
    return plan


@pytest.fixture
def log_in(plan: Plan, engine: Engine, database_url: URL) -> Iterator[LogIn]:
    """An engine as a login of a role: `log_in(VIEWER, clients=[1])`. The logins are dropped at the end."""
    made: list[tuple[str, Engine]] = []

    def logged_in(role: str, *, clients: list[int] | None = None, database: URL | None = None) -> Engine:
        name, password = f"test_{own_name()}", new_password()
        with engine.begin() as connection:
            add_login(connection, name, role, password)
            if clients is not None:
                give_clients(connection, name, clients)
        url = (database or database_url).set(username=name, password=password.get_secret_value())
        made.append((name, pipeline_engine(url, pool_size=2)))
        return made[-1][1]

    yield logged_in
    for name, opened in made:
        opened.dispose()
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
def two_clients(engine: Engine) -> tuple[int, int]:
    """Two clients with a token, a lead, a message, an event and attempts each."""
    ids = []
    with engine.begin() as connection:
        for number in (1, 2):
            client = connection.execute(
                text(
                    "INSERT INTO clients (name, location_id, ghl_token_encrypted) "
                    "VALUES (:name, :location, 'gAAAsecret') RETURNING id"
                ),
                {"name": f"Client {number}", "location": f"Location{number:016}"},
            ).scalar_one()
            lead = connection.execute(
                text("INSERT INTO leads (client_id, email) VALUES (:client, :email) RETURNING id"),
                {"client": client, "email": f"person.{number}@example.com"},
            ).scalar_one()
            values = {"client": client, "lead": lead, "number": number, "location": f"Location{number:016}"}
            for statement in _ROWS_OF_A_CLIENT:
                connection.execute(text(statement), values)
            ids.append(client)
    return ids[0], ids[1]


def refused(engine: Engine, statement: str) -> bool:
    """Whether PostgreSQL says that this login may not."""
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            return True
        raise
    return False


def scalars(engine: Engine, statement: str) -> list[object]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(statement).scalars())


# --- every table, also the next one


def test_every_table_says_whose_its_rows_are_or_is_hidden_with_a_reason() -> None:
    undecided = [each.name for each in metadata.sorted_tables if viewer_rows(each) is None]
    assert sorted(undecided) == sorted(HIDDEN_FROM_VIEWERS)


def test_no_column_that_opens_something_is_shown_to_viewers() -> None:
    names = {f"{table.name}.{column.name}" for table in metadata.sorted_tables for column in table.columns}
    assert names >= SECRET_COLUMNS
    shown = {
        f"{table.name}.{column}"
        for table in metadata.sorted_tables
        if viewer_rows(table) is not None
        for column in viewer_columns(table)
    }
    secret = re.compile(r"_encrypted|secret|password|digest|credential|_key")
    assert [name for name in shown if secret.search(name)] == ["crm_clients.field_keys"]  # keys of custom fields
    binary = {f"{table.name}.{each.name}" for table in metadata.sorted_tables for each in table.columns
              if str(each.type) in {"BLOB", "BYTEA"}}  # fmt: skip
    assert not shown & binary


def test_row_level_security_is_on_for_every_table(plan: Plan, engine: Engine) -> None:
    without = scalars(
        engine,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
        "AND NOT relrowsecurity",
    )
    assert without == ["ghl_pipeline_alembic_version"]


# --- the viewer


def test_a_viewer_sees_the_rows_of_its_client_and_nothing_of_others(
    log_in: LogIn, two_clients: tuple[int, int]
) -> None:
    mine, _ = two_clients
    viewer = log_in(VIEWER, clients=[mine])
    assert scalars(viewer, "SELECT name FROM clients") == ["Client 1"]
    assert scalars(viewer, "SELECT email FROM leads") == ["person.1@example.com"]
    assert scalars(viewer, "SELECT client_id FROM messages") == [mine]
    assert scalars(viewer, "SELECT client_id FROM webhook_events") == [mine]
    assert scalars(viewer, "SELECT location_id FROM location_attempts") == ["Location0000000000000001"]
    assert scalars(viewer, "SELECT client_id FROM viewer_clients") == [mine]
    with viewer.connect() as connection:
        for table in metadata.sorted_tables:
            if viewer_rows(table) is None:
                continue
            columns = ", ".join(viewer_columns(table))
            for row in connection.execute(text(f"SELECT {columns} FROM {table.name}")):
                assert "Client 2" not in row
                assert row._mapping.get("client_id", mine) == mine


def test_a_viewer_without_clients_sees_nothing(log_in: LogIn, two_clients: tuple[int, int]) -> None:
    viewer = log_in(VIEWER)
    assert scalars(viewer, "SELECT id FROM leads") == []
    assert scalars(viewer, "SELECT id FROM clients") == []


def test_a_viewer_reads_no_secret_and_writes_nothing(log_in: LogIn, two_clients: tuple[int, int]) -> None:
    mine, other = two_clients
    viewer = log_in(VIEWER, clients=[mine])
    for column in SECRET_COLUMNS:
        table, name = column.split(".")
        assert refused(viewer, f"SELECT {name} FROM {table}"), column
    for table in HIDDEN_FROM_VIEWERS:
        assert refused(viewer, f"SELECT count(*) FROM {table}"), table
    with viewer.connect() as connection:  # the session's setting is no protection: the tool may change it
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.commit()
        for statement in (
            f"INSERT INTO viewer_clients (role_name, client_id) VALUES (current_user, {other})",
            "UPDATE viewer_clients SET role_name = current_user",
            "DELETE FROM leads",
            "UPDATE leads SET status = 'won'",
            "CREATE TABLE mine (id int)",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ):
            with pytest.raises(DBAPIError) as raised:
                connection.exec_driver_sql(statement)
            assert isinstance(raised.value.orig, psycopg.errors.InsufficientPrivilege), statement
            connection.rollback()


def test_a_viewer_cannot_become_somebody_else(log_in: LogIn, two_clients: tuple[int, int], database_url: URL) -> None:
    mine, other = two_clients
    viewer, neighbour = log_in(VIEWER, clients=[mine]), log_in(VIEWER, clients=[other])
    for role in (neighbour.url.username, WORKER, RECEIVER, database_url.username):
        assert refused(viewer, f"SET ROLE {role}")
        assert refused(viewer, f"SET SESSION AUTHORIZATION {role}")
    # What it may become has no clients.
    with viewer.connect() as connection:
        connection.exec_driver_sql(f"SET ROLE {VIEWER}")
        assert connection.exec_driver_sql("SELECT id FROM leads").all() == []
    assert refused(viewer, "SET row_security = off; SELECT id FROM leads")


def test_what_a_viewer_computes_meets_its_own_rows_alone(log_in: LogIn, two_clients: tuple[int, int]) -> None:
    """An error or a notice of a condition quotes the row: conditions must see no row that the policy hides."""
    mine, _ = two_clients
    viewer = log_in(VIEWER, clients=[mine])
    notices: list[str] = []
    with viewer.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.add_notice_handler(lambda said: notices.append(str(said.message_primary)))
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.commit()
        connection.exec_driver_sql(
            "CREATE FUNCTION pg_temp.peek(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
            "$$ BEGIN RAISE NOTICE USING MESSAGE = value; RETURN true; END $$"
        )
        assert len(connection.exec_driver_sql("SELECT id FROM leads WHERE pg_temp.peek(email)").all()) == 1
        connection.exec_driver_sql("CREATE TEMP VIEW peeking AS SELECT email FROM leads")
        assert connection.exec_driver_sql("SELECT count(*) FROM peeking").scalar() == 1
    assert notices == ["person.1@example.com"]


def test_the_planners_statistics_tell_a_viewer_no_value(
    log_in: LogIn, two_clients: tuple[int, int], engine: Engine
) -> None:
    mine, _ = two_clients
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE leads")
        connection.exec_driver_sql("ANALYZE clients")
    viewer = log_in(VIEWER, clients=[mine])
    assert scalars(engine, "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'leads'") == [True]
    assert scalars(viewer, "SELECT attname FROM pg_stats WHERE tablename IN ('leads', 'clients')") == []
    assert refused(viewer, "SELECT stavalues1 FROM pg_statistic")
    # What others ask at the moment is theirs, too.
    asked = "SELECT query FROM pg_stat_activity WHERE usename <> current_user AND query NOT LIKE '<insufficient%%'"
    assert scalars(viewer, asked) == []


def test_a_viewer_cannot_hold_up_the_work_with_a_lock(log_in: LogIn) -> None:
    viewer, worker = log_in(VIEWER), log_in(WORKER)
    assert refused(viewer, "SELECT pg_advisory_lock(1)")
    assert refused(viewer, "SELECT pg_try_advisory_xact_lock(1, 2)")
    assert refused(viewer, "LOCK TABLE leads IN SHARE MODE")
    assert not refused(worker, "SELECT pg_advisory_xact_lock(1)")


def test_a_viewers_query_uses_the_index_of_the_clients_rows(
    log_in: LogIn, two_clients: tuple[int, int], engine: Engine
) -> None:
    mine, _ = two_clients
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO clients (name, location_id) SELECT 'N' || n, 'Other' || n FROM generate_series(1, 200) AS n"
        )
        connection.exec_driver_sql(
            "INSERT INTO leads (client_id, email) SELECT client.id, 'a.' || n || '@example.com' "
            "FROM clients AS client, generate_series(1, 100) AS n"
        )
        connection.exec_driver_sql("ANALYZE leads")
    viewer = log_in(VIEWER, clients=[mine])
    shown = "\n".join(map(str, scalars(viewer, "EXPLAIN SELECT id, email FROM leads")))
    assert "ix_leads_client" in shown or "uq_leads_client" in shown
    assert "Seq Scan on leads" not in shown


# --- the worker and the receiver


def test_a_worker_works_on_every_row_and_changes_no_table(log_in: LogIn, two_clients: tuple[int, int]) -> None:
    worker = log_in(WORKER)
    assert scalars(worker, "SELECT count(*) FROM leads") == [2]
    assert scalars(worker, "UPDATE leads SET status = 'contacted' RETURNING 1") == [1, 1]
    assert scalars(worker, "SELECT count(ghl_token_encrypted) FROM clients") == [2]
    assert scalars(worker, "DELETE FROM messages RETURNING 1") == [1, 1]
    for statement in (
        "DROP TABLE leads",
        "TRUNCATE leads",
        "ALTER TABLE leads DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE mine (id int)",
        "CREATE POLICY mine ON leads USING (true)",
        "INSERT INTO viewer_clients (role_name, client_id) SELECT 'somebody', id FROM clients",
        "UPDATE ghl_pipeline_alembic_version SET version_num = '0001'",
        f"GRANT {WORKER} TO {VIEWER}",
        "CREATE ROLE somebody",
    ):
        assert refused(worker, statement), statement


def test_a_receiver_reads_no_token_and_deletes_nothing(log_in: LogIn, two_clients: tuple[int, int]) -> None:
    receiver = log_in(RECEIVER)
    assert scalars(receiver, "SELECT id FROM clients") == list(two_clients)
    for statement in (
        "SELECT ghl_token_encrypted FROM clients",
        "SELECT * FROM clients",
        "SELECT token_encrypted FROM emailbison_workspaces",
        "SELECT body FROM webhook_events",
        "SELECT calendly_token_encrypted FROM booking_calendars",
        "DELETE FROM leads",
        "DELETE FROM webhook_events",
        "UPDATE clients SET active = false",
        "INSERT INTO webhook_secrets (client_id, provider, digest) SELECT id, 'emailbison', '' FROM clients",
        "UPDATE webhook_events SET state = 'done'",
        "TRUNCATE messages",
    ):
        assert refused(receiver, statement), statement


def test_a_workers_plans_are_the_owners(log_in: LogIn, two_clients: tuple[int, int], engine: Engine) -> None:
    """A policy that lets every row through leaves no trace in a plan."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO leads (client_id, email) SELECT {two_clients[0]}, 'a.' || n || '@example.com' "
            "FROM generate_series(1, 5000) AS n"
        )
        connection.exec_driver_sql("ANALYZE leads")
    worker = log_in(WORKER)
    by_address = "lower(btrim(email)) = 'a.7@example.com' AND btrim(email) <> ''"
    for statement in (
        f"EXPLAIN SELECT id FROM leads WHERE client_id = 1 AND {by_address}",
        "EXPLAIN UPDATE leads SET phone = '1' WHERE id = 5",
        "EXPLAIN SELECT id FROM webhook_events WHERE state = 'pending' AND location_id = 'x' ORDER BY id LIMIT 5",
    ):
        assert scalars(worker, statement) == scalars(engine, statement)


def test_a_table_of_the_next_version_is_the_workers_at_once_and_nobody_elses(log_in: LogIn, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE something_new (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
    worker = log_in(WORKER)
    assert scalars(worker, "INSERT INTO something_new (note) VALUES ('x') RETURNING id") == [1]
    for other in (log_in(RECEIVER), log_in(VIEWER)):
        assert refused(other, "SELECT * FROM something_new")


# --- Dagster's database


def test_dagsters_database_is_reached_by_the_worker_alone(log_in: LogIn, urls: DatabaseUrls) -> None:
    dagster = urls.dagster.set(drivername=urls.app.drivername)
    worker = log_in(WORKER, database=dagster)
    assert scalars(worker, "SELECT count(*) FROM runs") == [0]
    assert scalars(worker, "SELECT count(*) FROM event_logs") == [0]
    assert refused(worker, "DROP TABLE runs")
    for role in (RECEIVER, VIEWER):
        with pytest.raises(OperationalError, match="permission denied for database"):
            log_in(role, database=dagster).connect()


# --- giving the rights


def test_giving_the_rights_again_changes_nothing(plan: Plan, urls: DatabaseUrls, engine: Engine) -> None:
    rights = (
        "SELECT relname || coalesce(relacl::text, '') FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "UNION ALL SELECT tablename || policyname || qual FROM pg_policies "
        "UNION ALL SELECT attrelid || attname || attacl::text FROM pg_attribute WHERE attacl IS NOT NULL ORDER BY 1"
    )
    before = scalars(engine, rights)
    apply_roles(plan_roles(urls))
    assert scalars(engine, rights) == before
    assert len(before) > 100


def test_the_printed_statements_do_the_same(
    urls: DatabaseUrls, engine: Engine, two_clients: tuple[int, int], tmp_path: Path
) -> None:
    script = as_script(plan_roles(urls))
    assert script.count("\\connect") >= 2
    assert "PASSWORD" not in script
    database = None
    for part in re.split(r"(?m)^\\connect ", script)[1:]:
        database, _, statements = part.partition("\n")
        raw = create_engine(
            urls.app.set(database=database.strip('"')), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        with raw.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.execute(statements.encode())
    assert scalars(engine, f"SELECT has_table_privilege('{WORKER}', 'leads', 'DELETE')") == [True]
    assert scalars(engine, f"SELECT has_table_privilege('{VIEWER}', 'leads', 'SELECT')") == [False]


def test_who_had_rights_before_is_named_because_row_security_hides_the_rows(
    urls: DatabaseUrls, engine: Engine, administration: Connection
) -> None:
    name = f"dashboard_{own_name()}"
    administration.execute(text(f"CREATE ROLE {name}"))
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"GRANT SELECT (id) ON leads TO {name}")
            connection.exec_driver_sql("GRANT SELECT ON clients TO PUBLIC")
        plan = plan_roles(urls)
        apply_roles(plan)
        assert plan.others == [name]
        # What was everybody's would have been the viewers', too.
        assert scalars(engine, f"SELECT has_table_privilege('{VIEWER}', 'clients', 'SELECT')") == [False]
        assert scalars(engine, f"SELECT has_function_privilege('{name}', 'pg_advisory_lock(bigint)', 'EXECUTE')") == [
            True
        ]
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
        administration.execute(text(f"DROP ROLE {name}"))


def test_a_database_without_tables_is_told_to_upgrade(urls: DatabaseUrls, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    with pytest.raises(DatabaseUnavailable, match="ghl-pipeline db upgrade"):
        plan_roles(urls)


def test_dagsters_tables_are_made_where_they_are_missing(database_url: URL) -> None:
    make_dagster_tables(database_url)
    make_dagster_tables(database_url)
    engine = pipeline_engine(database_url)
    assert scalars(engine, "SELECT count(*) FROM runs") == [0]
    engine.dispose()


def test_the_tables_can_go_back_to_a_version_without_viewers(plan: Plan, engine: Engine, log_in: LogIn) -> None:
    """The policies ask `viewer_clients`. Without them a viewer sees nothing, and the worker works on."""
    viewer, worker = log_in(VIEWER), log_in(WORKER)
    with engine.begin() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0007")
    assert scalars(viewer, "SELECT id FROM leads") == []
    assert scalars(worker, "SELECT count(*) FROM leads") == [0]
    migrate.upgrade(engine)
    assert scalars(viewer, "SELECT id FROM leads") == []


# --- logins


def test_a_login_of_somebody_else_is_left_alone(plan: Plan, engine: Engine, database_url: URL) -> None:
    with engine.begin() as connection:
        for name in (str(database_url.username), "pg_monitor", VIEWER, "Ada", "a b", ""):
            with pytest.raises(InvalidInput):
                add_login(connection, name, VIEWER, new_password())
        for password in ("short", "with a\nnew line in it"):
            with pytest.raises(InvalidInput, match="12 printable"):
                add_login(connection, "test_ada", VIEWER, SecretStr(password))


def test_a_removed_viewer_is_out_at_once(log_in: LogIn, two_clients: tuple[int, int], engine: Engine) -> None:
    viewer = log_in(VIEWER, clients=list(two_clients))
    name = str(viewer.url.username)
    with engine.connect() as connection:
        assert viewers(connection)[name] == ["Location0000000000000001", "Location0000000000000002"]
    with viewer.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM leads").scalar() == 2
        with engine.begin() as administrator:
            assert remove_viewer(administrator, name) == 2
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT count(*) FROM leads")
        connection.invalidate()
    with engine.begin() as connection, pytest.raises(InvalidInput, match="no viewer's login"):
        remove_viewer(connection, name)


def test_a_new_viewer_does_not_see_what_one_of_its_name_saw(
    log_in: LogIn, two_clients: tuple[int, int], engine: Engine
) -> None:
    """Dropped by hand, a login leaves its clients behind; so does a backup that is restored on another server."""
    name = str(log_in(VIEWER, clients=[two_clients[0]]).url.username)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP ROLE {name}")
    with engine.begin() as connection:
        add_login(connection, name, VIEWER, new_password())
        assert give_clients(connection, name, [two_clients[1]]) == ["Location0000000000000002"]
    with engine.begin() as connection:
        add_login(connection, name, VIEWER, new_password())  # only a new password
        assert viewers(connection)[name] == ["Location0000000000000002"]


def test_a_new_password_replaces_the_old_one_and_neither_is_kept_in_plain_text(
    log_in: LogIn, engine: Engine, database_url: URL
) -> None:
    viewer = log_in(VIEWER)
    password = new_password()
    with engine.begin() as connection:
        add_login(connection, str(viewer.url.username), VIEWER, password)
        kept = connection.execute(
            text("SELECT rolpassword FROM pg_authid WHERE rolname = :name"), {"name": viewer.url.username}
        ).scalar_one()
    assert kept.startswith("SCRAM-SHA-256$")
    again = pipeline_engine(viewer.url.set(password=password.get_secret_value()))
    assert scalars(again, "SELECT 1") == [1]
    again.dispose()
    viewer.dispose()
    with pytest.raises(OperationalError):
        viewer.connect()


def test_the_roles_themselves_log_nobody_in(plan: Plan, engine: Engine) -> None:
    names = ", ".join(f"'{role}'" for role in ROLES)
    logins = scalars(engine, f"SELECT count(*) FROM pg_roles WHERE rolname IN ({names}) AND NOT rolcanlogin")
    assert logins == [3]
    assert VIEWER_CLIENTS in metadata.tables
