"""Gives the roles of `roles.py` their rights in both databases, and says who else has some.

Each table's rights change in a transaction of their own: a policy needs the table for a moment, and one transaction
over all tables would keep runs off all of them, or deadlock with one. An interruption leaves some tables with the old
rights; the next time all are given anew.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.connection import DatabaseUrls, create_engine, failure_reason, opened
from ghl_pipeline.database.roles import (
    ROLES,
    advisory_lock_statements,
    create_roles,
    dagster_statements,
    schema_statements,
    table_statements,
)
from ghl_pipeline.database.tables import metadata
from ghl_pipeline.errors import DatabaseUnavailable

_LOCK_TIMEOUT: Final = "5s"
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Step:
    """Statements that belong into one transaction, in the database of `url`."""

    url: URL
    statements: Sequence[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in their order, and what an operator has to know.

    Attributes:
        steps: what is run.
        others: roles without a policy that have rights on the tables: row-level security hides all rows from them.
        locks_are_public: whether anybody may go on taking advisory locks, because only a superuser can change that.
    """

    steps: Sequence[Step]
    others: Sequence[str]
    locks_are_public: bool


def plan_roles(urls: DatabaseUrls) -> Plan:
    """What would be run, for both databases as they are now.

    Raises:
        DatabaseUnavailable: one of them cannot be reached, or has no tables yet.
    """
    with _connected(urls.dagster) as connection:
        dagster = _place_of(connection, urls.dagster, "runs")
    is_shared = (urls.app.host, urls.app.port, urls.app.database) == (
        urls.dagster.host,
        urls.dagster.port,
        urls.dagster.database,
    )
    steps = [
        Step(urls.app, [create_roles()]),
        # Before the pipeline's own: where both share a database, those take back what is granted on all tables here.
        Step(urls.dagster, dagster_statements(str(urls.dagster.database), *dagster, is_shared=is_shared)),
    ]
    if not _is_same_server(urls):
        steps.insert(1, Step(urls.dagster, [create_roles()]))
    with _connected(urls.app) as connection:
        schema, owner = _place_of(connection, urls.app, "clients")
        others = list(
            connection.execute(
                _OTHERS, {"schema": schema, "own": [*ROLES, owner], "tables": list(metadata.tables)}
            ).scalars()
        )
        bypass = set(connection.execute(_BYPASS, {"names": others}).scalars())
        is_superuser = bool(connection.execute(text("SELECT current_setting('is_superuser') = 'on'")).scalar())
        locks = list(connection.execute(_ADVISORY_LOCKS).scalars())
    steps.append(Step(urls.app, schema_statements(schema, owner)))
    steps += [Step(urls.app, statements) for _, statements in table_statements(schema)]
    if is_superuser:
        steps.append(Step(urls.app, advisory_lock_statements(locks, [owner, *others])))
    return Plan(steps, [name for name in others if name not in bypass], locks_are_public=not is_superuser)


def apply_roles(plan: Plan) -> None:
    """Runs the plan. A table that is busy is waited for, 5 s at a time.

    Raises:
        DatabaseUnavailable: this user may not do it, or a table was busy for too long; what was done stays, and doing
            it again is harmless.
    """
    engines: dict[str, Engine] = {}
    try:
        for step in plan.steps:
            key = step.url.render_as_string(hide_password=False)
            engine = engines.setdefault(key, create_engine(step.url, pool_size=1))
            _run(engine, step)
    finally:
        for engine in engines.values():
            engine.dispose()


def as_script(plan: Plan) -> str:
    """The plan for `psql`, which connects to each database in turn."""
    return "\n".join(_script_lines(plan))


def _script_lines(plan: Plan) -> Iterator[str]:
    database = None
    for step in plan.steps:
        if step.url.database != database:
            database = step.url.database
            yield f'\\connect "{database}"'
        if len(step.statements) == 1:
            yield f"{step.statements[0]};"
        else:
            yield from ("BEGIN;", *(f"{each};" for each in step.statements), "COMMIT;")


def _run(engine: Engine, step: Step) -> None:
    for left in reversed(range(_TRIES)):
        try:
            with opened(engine) as connection, connection.begin():
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                for statement in step.statements:
                    connection.exec_driver_sql(statement)
        except DBAPIError as error:
            if left and isinstance(error.orig, _PASSING):
                time.sleep(0.2)
                continue
            raise DatabaseUnavailable(
                f"Rights in database {step.url.database} cannot be given: {failure_reason(error)}. Run it as the owner "
                "of the tables who may create roles, or print the statements for somebody who may: ghl-pipeline db "
                "roles"
            ) from None
        else:
            return


# Somebody works on the table; or, as roles belong to the whole server, somebody gives rights in another database.
_PASSING: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.InternalError_)


def _place_of(connection: Connection, url: URL, table: str) -> tuple[str, str]:
    """Schema and owner of a table."""
    row = connection.execute(_PLACE, {"table": table}).one_or_none()
    if row is None:
        raise DatabaseUnavailable(f"Database {url.database} has no tables yet. Run: ghl-pipeline db upgrade")
    return row.schema, row.owner


def _is_same_server(urls: DatabaseUrls) -> bool:
    return (urls.app.host, urls.app.port) == (urls.dagster.host, urls.dagster.port)


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    engine = create_engine(url, pool_size=1)
    try:
        with opened(engine) as connection:
            yield connection
    finally:
        engine.dispose()


_PLACE = text("""
    SELECT relnamespace::regnamespace::text AS schema, pg_get_userbyid(relowner) AS owner
    FROM pg_class WHERE oid = to_regclass(:table)
""")
_OTHERS = text("""
    WITH relation AS (
        SELECT oid, relacl FROM pg_class
        WHERE relkind = 'r' AND relnamespace = to_regnamespace(:schema) AND relname = ANY(CAST(:tables AS text[]))
    ), item AS (
        SELECT grantee FROM relation CROSS JOIN LATERAL aclexplode(relacl)
        UNION SELECT grantee FROM relation JOIN pg_attribute ON attrelid = relation.oid
        CROSS JOIN LATERAL aclexplode(attacl)
    )
    SELECT pg_get_userbyid(grantee) AS name FROM item
    WHERE grantee <> 0 AND pg_get_userbyid(grantee) <> ALL(CAST(:own AS text[])) ORDER BY 1
""")
_BYPASS = text(
    "SELECT rolname FROM pg_roles WHERE rolname = ANY(CAST(:names AS text[])) AND (rolsuper OR rolbypassrls)"
)
_ADVISORY_LOCKS = text("""
    SELECT oid::regprocedure::text FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory_(xact_)?lock' ORDER BY 1
""")
