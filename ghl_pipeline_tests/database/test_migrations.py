"""The migrations make exactly the tables the code works with, once, wholly or not at all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, Engine, Table, inspect, text

from ghl_pipeline.database import migrate
from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.database.migrate import current_revision, head_revision, require_migrated, upgrade
from ghl_pipeline.database.tables import clients, leads, metadata
from ghl_pipeline.errors import DatabaseUnavailable


@pytest.fixture
def empty(administration: Connection, database_url: URL) -> Iterator[Engine]:
    """A database without the pipeline's tables."""
    name = f"{database_url.database}_empty"
    administration.execute(text(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy"))
    engine = create_engine(database_url.set(database=name))
    yield engine
    engine.dispose()
    administration.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def table_names(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_the_migrated_schema_is_the_one_the_code_works_with(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_server_default": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert differences == []


def test_constraints_have_the_names_that_the_code_gives_them(engine: Engine) -> None:
    """Alembic's comparison does not look at the names of primary keys, foreign keys and checks."""
    found = inspect(engine)
    for table in metadata.sorted_tables:
        named = {str(constraint.name) for constraint in table.constraints}
        in_database = {
            found.get_pk_constraint(table.name)["name"],
            *(constraint["name"] for constraint in found.get_foreign_keys(table.name)),
            *(constraint["name"] for constraint in found.get_check_constraints(table.name)),
            *(constraint["name"] for constraint in found.get_unique_constraints(table.name)),
        }
        assert named == in_database


def test_every_table_says_what_it_is(engine: Engine) -> None:
    found = inspect(engine)
    assert [table.name for table in metadata.sorted_tables if not found.get_table_comment(table.name)["text"]] == []


def test_an_upgrade_makes_the_tables_and_a_second_one_changes_nothing(empty: Engine) -> None:
    assert current_revision(empty) is None
    with pytest.raises(DatabaseUnavailable, match=r"no ghl_pipeline tables yet. Run: ghl-pipeline db upgrade"):
        require_migrated(empty)
    upgrade(empty)
    assert current_revision(empty) == head_revision()
    with empty.begin() as connection:
        connection.execute(clients.insert().values(name="kept", location_id="loc1"))
    upgrade(empty)
    require_migrated(empty)
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM clients")) == 1


def test_upgrades_at_the_same_time_wait_for_each_other(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other processes do not see this process's lock; without it, the database's lock alone has to do.
    monkeypatch.setattr(migrate, "_one_upgrade_per_process", _NoLock())
    with ThreadPoolExecutor(4) as pool:
        for racer in [pool.submit(upgrade, empty) for _ in range(4)]:
            racer.result()
    require_migrated(empty)


class _NoLock:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_failed_migration_leaves_nothing_behind_and_can_be_repeated(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE location_learning (in_the_way int)"))  # the last table of the revision
    with pytest.raises(DatabaseUnavailable, match=r"failed and was undone: .*location_learning.*already exists"):
        upgrade(empty)
    assert table_names(empty) == {"location_learning"}
    assert current_revision(empty) is None
    with empty.begin() as connection:
        connection.execute(text("DROP TABLE location_learning"))
    upgrade(empty)
    require_migrated(empty)


def test_dagsters_own_version_table_in_the_same_database_is_left_alone(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('dagster')"))
    upgrade(empty)
    with empty.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == ["dagster"]
    assert current_revision(empty) == head_revision()


def test_a_database_of_a_newer_version_is_named_and_not_touched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    for refused in (require_migrated, upgrade):
        with pytest.raises(DatabaseUnavailable, match="newer version of ghl_pipeline"):
            refused(engine)
    assert current_revision(engine) == "9999"


def test_a_database_of_an_older_version_is_told_to_upgrade(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "head_revision", lambda: "9999")
    with pytest.raises(DatabaseUnavailable, match=r"older than this version's 9999. Run: ghl-pipeline db upgrade"):
        require_migrated(engine)


def test_the_migrations_are_found_in_a_folder_with_a_percent_sign(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "100%" / "migrate.py"))
    config: Config = migrate._config()
    assert config.get_main_option("script_location") == str(tmp_path / "100%" / "migrations")


# --- what the database keeps by itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [clients, leads], ids=lambda table: str(table.name))
def test_updated_at_moves_with_a_change_and_only_then(engine: Engine, table: Table) -> None:
    name = table.name
    with engine.begin() as connection:
        client = connection.scalar(clients.insert().values(name="a", location_id="l1").returning(clients.c.id))
        connection.execute(leads.insert().values(client_id=client, email="person1@example.com"))
        connection.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER touch"))
        connection.execute(text(f"UPDATE {name} SET updated_at = '2020-01-01Z'"))
        connection.execute(text(f"ALTER TABLE {name} ENABLE TRIGGER touch"))
    column = "time_zone" if table is clients else "status"
    seen = []
    for statement in (f"SET {column} = {column}", f"SET {column} = 'Asia/Tokyo'"):
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {name} {statement}"))
            seen.append(connection.scalar(text(f"SELECT updated_at = now() FROM {name}")))
    assert seen == [False, True]


def test_a_downgrade_of_the_first_revision_leaves_an_empty_database(empty: Engine) -> None:
    upgrade(empty)
    with empty.begin() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert table_names(empty) == {migrate.VERSION_TABLE}
    upgrade(empty)
    require_migrated(empty)


def test_an_upgrade_tells_how_each_location_stands_from_the_attempts_on_record(empty: Engine) -> None:
    def to(revision: str) -> None:
        with empty.begin() as connection:
            config = migrate._config()
            config.attributes["connection"] = connection
            if revision == "head":
                command.upgrade(config, revision)
            else:
                command.downgrade(config, revision)

    upgrade(empty)
    to("0005")
    attempts = [
        ("well", "failed", "GhlTimeout", False, "{}"), ("well", "succeeded", None, None, "{}"),
        ("failing", "succeeded", None, None, "{}"), ("failing", "failed", "GhlTimeout", False, "{}"),
        ("failing", "failed", "GhlTimeout", False, "{}"), ("failing", "failed", "LocationBusy", False, "{}"),
        ("failing", "succeeded", None, None, '{"dry_run": true}'),
        ("held", "failed", "TokenRejected", True, "{}"), ("asks", "failed", "TooManyMissing", False, "{}"),
        ("quota", "failed", "DailyQuotaReached", False, "{}"), ("killed", "interrupted", None, None, "{}"),
        ("bug", "failed", "RequestRejected", True, "{}"),
    ]  # fmt: skip
    with empty.begin() as connection:
        for location, state, error, permanent, report in attempts:
            connection.execute(
                text("""
                    INSERT INTO location_attempts
                        (location_id, capability, state, error_class, permanent, report, ended_at)
                    VALUES (:location, 'hydration', :state, :error, :permanent, CAST(:report AS jsonb), now())
                """),
                {"location": location, "state": state, "error": error, "permanent": permanent, "report": report},
            )
    to("head")
    with empty.connect() as connection:
        rows = connection.execute(
            text("SELECT location_id, state, cause, failures, rerun_at IS NOT NULL, succeeded_at IS NOT NULL "
                 "FROM location_standings ORDER BY location_id")
        )  # fmt: skip
        assert [tuple(row) for row in rows] == [
            ("asks", "failed", "decision", 1, False, False),
            ("bug", "failed", "broken", 1, True, False),
            ("failing", "failed", "transient", 2, True, True),
            ("held", "failed", "refused", 1, False, False),
            ("killed", "interrupted", "killed", 1, True, False),
            ("quota", "failed", "quota", 0, True, False),
            ("well", "succeeded", None, 0, False, True),
        ]
