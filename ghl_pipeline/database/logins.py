"""Logins of the roles: made with a password that the server never sees in plain text, and taken away again.

A viewer's login is given its clients here. Nothing is made of a login that exists and is not of the role asked for: it
may be anybody's.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Final

import psycopg
from pydantic import SecretStr
from sqlalchemy import Connection, delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.connection import failure_reason
from ghl_pipeline.database.roles import VIEWER, quoted
from ghl_pipeline.database.tables import clients, viewer_clients
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput

_NAME: Final = re.compile(r"(?!pg_|ghl_pipeline_)[a-z][a-z0-9_]{0,59}")
PASSWORD_BYTES: Final = 24
SHORTEST_PASSWORD: Final = 12
# A viewer is somebody's reporting tool. The limit holds; what is set for the session the tool may change.
_VIEWER_CONNECTIONS: Final = 10
_VIEWER_SETTINGS: Final = {"default_transaction_read_only": "on", "statement_timeout": "'5min'"}


def new_password() -> SecretStr:
    """A password that nobody has to remember."""
    return SecretStr(secrets.token_urlsafe(PASSWORD_BYTES))


def add_login(connection: Connection, name: str, role: str, password: SecretStr) -> None:
    """Makes a login that is a member of one of our roles, or gives the one that is there a new password.

    Args:
        connection: of the dashboard database, in the caller's transaction.
        name: of the login.
        role: one of `roles.ROLES`.
        password: sent to the server only as what SCRAM-SHA-256 keeps of it.

    Raises:
        InvalidInput: the name or the password cannot be used, the name is somebody else's, or the role is missing.
        DatabaseUnavailable: this user may not make logins.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "The login must be 1 to 60 small letters, digits and _, begin with a letter, and with neither pg_ nor "
            "ghl_pipeline_"
        )
    text_of_it = password.get_secret_value()
    if len(text_of_it) < SHORTEST_PASSWORD or not text_of_it.isprintable():
        raise InvalidInput(f"The password must have {SHORTEST_PASSWORD} printable characters or more")
    _require_role(connection, role)
    exists = _exists(connection, name)
    if exists and not is_of_role(connection, name, role):
        raise InvalidInput(f"There is a login {name} already, and it is no {role}. Choose another name")
    limit = f" CONNECTION LIMIT {_VIEWER_CONNECTIONS}" if role == VIEWER else ""
    making = (
        f"{'ALTER' if exists else 'CREATE'} ROLE {quoted(name)} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE"
        f"{limit} PASSWORD '{_verifier(connection, name, text_of_it)}'"
    )
    if role == VIEWER and not exists:
        # Left by a login of this name that somebody dropped by hand, or that was on the server of a backup.
        connection.execute(delete(viewer_clients).where(viewer_clients.c.role_name == name))
    statements = [making, f"GRANT {role} TO {quoted(name)}"]
    if role == VIEWER:
        statements += [f"ALTER ROLE {quoted(name)} SET {what} = {value}" for what, value in _VIEWER_SETTINGS.items()]
    _run(connection, statements)


def give_clients(connection: Connection, name: str, client_ids: Sequence[int]) -> list[str]:
    """Lets a viewer's login see these clients, too.

    Returns:
        The location ids of all clients that it may see now.

    Raises:
        InvalidInput: the login is missing, or no viewer's.
    """
    if not is_of_role(connection, name, VIEWER):
        raise InvalidInput(f"{name} is no viewer's login. See: ghl-pipeline db viewers")
    rows = [{"role_name": name, "client_id": client_id} for client_id in client_ids]
    if rows:
        connection.execute(insert(viewer_clients).values(rows).on_conflict_do_nothing())
    return viewers(connection)[name]


def viewers(connection: Connection) -> dict[str, list[str]]:
    """The viewers' logins that have clients, with the location ids of these."""
    query = (
        select(viewer_clients.c.role_name, clients.c.location_id)
        .join(clients)
        .order_by(viewer_clients.c.role_name, clients.c.id)
    )
    found: dict[str, list[str]] = {}
    for name, location_id in connection.execute(query):
        found.setdefault(name, []).append(location_id)
    return found


def remove_viewer(connection: Connection, name: str) -> int:
    """Takes a viewer's clients and its login, and ends its sessions.

    Returns:
        How many clients it could see.

    Raises:
        InvalidInput: there is no such viewer.
        DatabaseUnavailable: this user may not drop it.
    """
    taken = connection.execute(delete(viewer_clients).where(viewer_clients.c.role_name == name)).rowcount
    is_viewer = is_of_role(connection, name, VIEWER)
    if not taken and not is_viewer:
        raise InvalidInput(f"{name[:60]!r} is no viewer's login. See: ghl-pipeline db viewers")
    if is_viewer:
        connection.execute(_END_SESSIONS, {"name": name})
        _run(connection, [f"DROP ROLE {quoted(name)}"])
    return taken


def is_of_role(connection: Connection, name: str, role: str) -> bool:
    """Whether the login is a direct member of the role."""
    return bool(connection.execute(_MEMBER, {"name": name, "role": role}).scalar())


def _exists(connection: Connection, name: str) -> bool:
    found = connection.execute(text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :name)"), {"name": name})
    return bool(found.scalar())


def _require_role(connection: Connection, role: str) -> None:
    if not _exists(connection, role):
        raise InvalidInput(f"There is no role {role} yet. Make it first: ghl-pipeline db roles --apply")


def _verifier(connection: Connection, name: str, password: str) -> str:
    """What the server keeps of a password, computed here: so it is in no log of statements, and cannot be reversed."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the engine's only driver
    return driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode("ascii")


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        try:
            connection.exec_driver_sql(statement)
        except DBAPIError as error:
            raise DatabaseUnavailable(
                f"The login cannot be changed: {failure_reason(error)}. Run it as a superuser, or as a user who may "
                "create roles and made those of this project"
            ) from None


_MEMBER = text("""
    SELECT EXISTS (
        SELECT FROM pg_auth_members
        WHERE member = (SELECT oid FROM pg_roles WHERE rolname = :name AND rolcanlogin)
          AND roleid = (SELECT oid FROM pg_roles WHERE rolname = :role))
""")
_END_SESSIONS = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :name")
