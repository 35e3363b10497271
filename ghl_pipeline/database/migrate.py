"""Brings the dashboard database to the tables that this version of the code expects.

Belongs here: running the revisions in `migrations/` and saying how a database stands to them. Alembic is configured in
code, so that the wheel carries its migrations and no working folder matters. The version table is our own:
`alembic_version` belongs to Dagster, whose tables may share the database.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.connection import failure_reason, opened
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput

VERSION_TABLE: Final = "ghl_pipeline_alembic_version"
UPGRADE_COMMAND: Final = "ghl-pipeline db upgrade"

# Any constant will do, as long as every version of this software uses the same one.
_UPGRADE_LOCK: Final = 4_712_655_001
_LOCK_TIMEOUT: Final = "2min"
# Alembic's `op` and `context` are module globals: two threads that migrate two databases would mix them up.
_one_upgrade_per_process: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the tables: its number and what it is about, in a line."""

    number: str
    about: str


def upgrade(engine: Engine) -> None:
    """Runs the missing revisions in one transaction. Safe to repeat, and to call from several processes at once.

    Raises:
        DatabaseUnavailable: no connection; the database is newer than the code; or a revision failed, in which case
            the database is as it was before.
    """
    _migrate(engine, lambda config: command.upgrade(config, "head"), UPGRADE_COMMAND)


def downgrade(engine: Engine, number: str) -> None:
    """Undoes every revision after this one, in one transaction, for an older version of the software.

    What only the newer revisions know is deleted with their tables and columns; everything else stays as it is.

    Args:
        engine: of a database that this version of the code made, or an older one.
        number: the revision that is the newest afterwards.

    Raises:
        DatabaseUnavailable: no connection; the database is newer than the code; or undoing failed, in which case the
            database is as it was before.
        InvalidInput: there is no such revision, or the database is older than it.
    """
    undone(engine, number)
    _migrate(engine, lambda config: command.downgrade(config, number), f"ghl-pipeline db downgrade {number}")


def undone(engine: Engine, number: str) -> list[Revision]:
    """What a downgrade to this revision would undo, the newest first.

    Raises:
        DatabaseUnavailable: no connection, no tables, or the database is newer than the code.
        InvalidInput: there is no such revision, or the database is older than it.
    """
    current = current_revision(engine)
    scripts = list(ScriptDirectory.from_config(_config()).walk_revisions())
    known = [script.revision for script in scripts]
    if current is None:
        raise DatabaseUnavailable(
            f"Database {engine.url.database} has no ghl_pipeline tables yet. Run: {UPGRADE_COMMAND}"
        )
    if current not in known:
        raise _newer_than_code(engine)
    if number not in known[known.index(current) :]:
        raise InvalidInput(
            f"There is no revision {number} at or before {current}, where database {engine.url.database} is. "
            f"There are: {', '.join(reversed(known[known.index(current) :]))}"
        )
    return [
        Revision(script.revision, (script.doc or "").rstrip("."))
        for script in scripts[known.index(current) : known.index(number)]
    ]


def _migrate(engine: Engine, change: Callable[[Config], None], again: str) -> None:
    with _one_upgrade_per_process, opened(engine) as connection:
        try:
            with connection.begin():
                # A revision may rewrite a big table; what must not last is waiting for somebody else's lock.
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                # Held to the end of the transaction: the second process waits, then finds nothing to do.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
                config = _config()
                config.attributes["connection"] = connection
                change(config)
        except CommandError:
            raise _newer_than_code(engine) from None
        except DBAPIError as error:
            raise DatabaseUnavailable(
                f"The migration of database {engine.url.database} failed and was undone: {failure_reason(error)}. "
                f"Remove the cause, then run again: {again}"
            ) from None


def current_revision(engine: Engine) -> str | None:
    """The revision the database is at; None when it was never migrated.

    Raises:
        DatabaseUnavailable: no connection.
    """
    with opened(engine) as connection:
        return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


@cache
def head_revision() -> str:
    """The revision that this version of the code expects."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("The migrations folder of ghl_pipeline is empty: the installation is incomplete.")
    return head


def require_migrated(engine: Engine) -> None:
    """Checks that the database has exactly the tables this version of the code expects.

    Raises:
        DatabaseUnavailable: no connection, or the tables are missing, older or newer; the text says what to run.
    """
    current = current_revision(engine)
    if current == head_revision():
        return
    if current is None:
        raise DatabaseUnavailable(
            f"Database {engine.url.database} has no ghl_pipeline tables yet. Run: {UPGRADE_COMMAND}"
        )
    if current not in _known_revisions():
        raise _newer_than_code(engine)
    raise DatabaseUnavailable(
        f"Database {engine.url.database} is at revision {current}, older than this version's {head_revision()}. "
        f"Run: {UPGRADE_COMMAND}"
    )


def _newer_than_code(engine: Engine) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"Database {engine.url.database} was migrated by a newer version of ghl_pipeline; this one knows revisions up "
        f"to {head_revision()}. Update the software, then run: {UPGRADE_COMMAND}"
    )


@cache
def _known_revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config()
    # ConfigParser reads a percent sign as an interpolation.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config
