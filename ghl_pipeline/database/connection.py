"""How the project reaches PostgreSQL: which URLs, which engine options, and what is said when it cannot.

Belongs here: URLs from the settings, creating and dropping the two databases, the engine, and errors about
connections. Not here: what is in the databases (`tables/`, `migrate.py`) and how the embedded server is run
(`embedded.py`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, NullPool, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from ghl_pipeline.database.embedded import EmbeddedPostgres
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable
from ghl_pipeline.settings import Settings

APP_DRIVER: Final = "postgresql+psycopg"
# Dagster's storage writes NOTIFY with a bound parameter, which psycopg 3 sends to the server and PostgreSQL refuses;
# plain `postgresql://` means psycopg 3 since SQLAlchemy 2.1, so the driver is always spelled out.
DAGSTER_DRIVER: Final = "postgresql+psycopg2"

CONNECT_TIMEOUT_SECONDS: Final = 10
# Longer than any statement of ours on 100,000 leads, shorter than a person's patience with a stuck page.
STATEMENT_TIMEOUT_SECONDS: Final = 300
# A transaction that idles this long belongs to a hung process and keeps others off its rows.
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS: Final = 300
# A machine or server that vanished without a word is noticed within a minute, by either side, also with unanswered data
# under way. Else the rows that its transaction had locked, such as a location's throttle, stay locked for 5 minutes,
# and its own writes hang for 15.
KEEPALIVE_SECONDS: Final = 30
KEEPALIVE_PROBES: Final = 3
GONE_AFTER_MS: Final = 60_000
# The same of this side, as libpq (psycopg and psycopg2) takes it.
CLIENT_KEEPALIVES: Final = {
    "keepalives_idle": KEEPALIVE_SECONDS,
    "keepalives_interval": 10,
    "keepalives_count": KEEPALIVE_PROBES,
    "tcp_user_timeout": GONE_AFTER_MS,
}

# And of the server's side, as options of a session.
SERVER_KEEPALIVES: Final = (
    f"-c tcp_keepalives_idle={KEEPALIVE_SECONDS}",
    "-c tcp_keepalives_interval=10",
    f"-c tcp_keepalives_count={KEEPALIVE_PROBES}",
    f"-c tcp_user_timeout={GONE_AFTER_MS}",
)

_ACCEPTED_DRIVERS: Final = ("postgres", "postgresql", APP_DRIVER)
_SECRET_PARAMETERS: Final = ("password", "sslpassword", "passfile")
# libpq puts where and what it tried before the reason; a server's refusal follows FATAL.
_REASONS: Final = (
    re.compile(r"FATAL:\s+(?P<reason>[^\n]+)"),
    re.compile(r"failed: (?!.*failed: )(?P<reason>[^\n]+)"),
    re.compile(r"(?P<reason>failed to resolve host)"),
    re.compile(r"(?P<reason>connection timeout expired)"),
)


@dataclass(frozen=True)
class DatabaseUrls:
    """Where the dashboard database and Dagster's storage are. Two databases, by default of one server."""

    app: URL
    dagster: URL


def database_urls(settings: Settings) -> DatabaseUrls:
    """The URLs of both databases; attaches to the embedded server, once per process, when the settings name none.

    Raises:
        ConfigurationError: a URL cannot be used; the text names the variable, never the value.
        DatabaseUnavailable: the embedded server does not start.
    """
    if settings.database_url is None:
        server = _embedded_server(settings.home, settings.postgres_os_user).attach()
        app = server.url(settings.database_name)
    else:
        app = _parse(settings.database_url, "GHL_PIPELINE_DATABASE_URL", _ACCEPTED_DRIVERS)
    if settings.dagster_database_url is None:
        dagster = app.set(database=f"{app.database}_dagster")
    else:
        accepted = (*_ACCEPTED_DRIVERS, DAGSTER_DRIVER)
        dagster = _parse(settings.dagster_database_url, "GHL_PIPELINE_DAGSTER_DATABASE_URL", accepted)
    return DatabaseUrls(app=app.set(drivername=APP_DRIVER), dagster=dagster.set(drivername=DAGSTER_DRIVER))


@cache
def _embedded_server(home: Path, os_user: str | None) -> EmbeddedPostgres:
    # One object per process: it holds the lock that says "somebody uses the server" until the process ends.
    return EmbeddedPostgres(home, os_user=os_user)


def _parse(secret: SecretStr, variable: str, accepted: tuple[str, ...]) -> URL:
    advice = (
        "Use the form postgresql://USER:PASSWORD@HOST:5432/DATABASE (special characters in the password %-encoded)."
    )
    try:
        url = sqlalchemy.make_url(secret.get_secret_value().strip())
    except (ArgumentError, ValueError):
        # `from None`: the cause quotes parts of the URL.
        raise ConfigurationError(f"{variable} is not a database URL. {advice}") from None
    if url.drivername not in accepted:
        raise ConfigurationError(f"{variable} must be a PostgreSQL URL, not {url.drivername}://. {advice}")
    if not url.database:
        raise ConfigurationError(f"{variable} names no database. {advice}")
    return url


def describe(url: URL) -> str:
    """The URL as psql takes it: without our driver and without password, also one that hides among the parameters."""
    public = url.difference_update_query(_SECRET_PARAMETERS)
    # Made anew: `set(password=None)` means "leave it as it is".
    return URL.create(
        "postgresql", public.username, None, public.host, public.port, public.database, public.query
    ).render_as_string()


def ensure_databases(urls: DatabaseUrls) -> None:
    """Creates whichever of the two databases is missing. Two processes may do so at once.

    Raises:
        DatabaseUnavailable: the server does not answer, or the user may not create databases; then the text holds
            the statement that an administrator can run.
    """
    for url in (urls.app, urls.dagster):
        if not _exists(url):
            _create(url)


def drop_databases(urls: DatabaseUrls) -> None:
    """Drops both databases with everything in them, ending the sessions that use them.

    Raises:
        DatabaseUnavailable: the server does not answer, or the user may not drop them.
    """
    for url in (urls.app, urls.dagster):
        with _administration(url) as connection:
            try:
                connection.execute(text(f"DROP DATABASE IF EXISTS {_quoted(connection, url.database)} WITH (FORCE)"))
            except DBAPIError as error:
                raise DatabaseUnavailable(
                    f"Database {url.database} on {_server(url)} cannot be dropped: {failure_reason(error)}. "
                    f"Drop it as its owner or as an administrator."
                ) from None


def _exists(url: URL) -> bool:
    # Asked of the server, not guessed from a failed connection: that has no error code and a translated text.
    try:
        with _administration(url) as connection:
            found = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": url.database})
            return found.scalar() is not None
    except DatabaseUnavailable:
        # A hosted server may keep its users out of `postgres`; then the database itself must answer.
        with _connected(url):
            return True


def _create(url: URL) -> None:
    with _administration(url) as connection:
        # template0: a session on template1 would block the copy, and none can be on template0.
        statement = f"CREATE DATABASE {_quoted(connection, url.database)} TEMPLATE template0 ENCODING 'UTF8'"
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            # The other process of a race may be seen as the finished database or as the row it is about to commit.
            if isinstance(error.orig, psycopg.errors.DuplicateDatabase | psycopg.errors.UniqueViolation):
                return
            owner = f" OWNER {_quoted(connection, url.username)}" if url.username else ""
            raise DatabaseUnavailable(
                f"Database {url.database} on {_server(url)} is missing and cannot be created: {failure_reason(error)}. "
                f"Run as an administrator: {statement.replace(' TEMPLATE', f'{owner} TEMPLATE')};"
            ) from None


def _quoted(connection: Connection, name: str | None) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name or "")


@contextmanager
def _administration(url: URL) -> Iterator[Connection]:
    """A connection outside any transaction to the server's `postgres` database."""
    with _connected(url.set(database="postgres")) as connection:
        yield connection


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(
        url.set(drivername=APP_DRIVER),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
    )
    with opened(engine) as connection:
        yield connection


def create_engine(
    url: URL,
    *,
    pool_size: int = 10,
    connect_timeout_seconds: int = CONNECT_TIMEOUT_SECONDS,
    statement_timeout_seconds: int = STATEMENT_TIMEOUT_SECONDS,
) -> Engine:
    """A pooled engine whose sessions are in UTC and whose errors hold no values.

    Args:
        url: of either database; the driver is set to psycopg 3.
        pool_size: connections kept open; as many again may be opened for a while.
        connect_timeout_seconds: for each host of the URL; libpq takes 1 for 2.
        statement_timeout_seconds: after which the server ends a statement.
    """
    options = " ".join(
        [
            *_session_options(url),
            "-c timezone=UTC",
            f"-c statement_timeout={statement_timeout_seconds}s",
            f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_SECONDS}s",
            *SERVER_KEEPALIVES,
        ]
    )
    engine = sqlalchemy.create_engine(
        url.set(drivername=APP_DRIVER).difference_update_query(["options"]),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        # Parameters and, below, DETAIL lines are people's e-mails and phones.
        hide_parameters=True,
        connect_args={
            "application_name": "ghl_pipeline",
            "connect_timeout": connect_timeout_seconds,
            "options": options,
            **CLIENT_KEEPALIVES,
        },
    )
    event.listen(engine, "handle_error", _withhold_values)
    return engine


def _session_options(url: URL) -> tuple[str, ...]:
    given = url.query.get("options", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _withhold_values(context: sqlalchemy.ExceptionContext) -> None:
    """Rewrites a server error to its code and primary text: DETAIL, CONTEXT and data errors quote the row's values.

    The types, `sqlstate` and `diag` stay, so callers can still tell a unique violation on one index from another.
    """
    original = context.original_exception
    if not isinstance(original, psycopg.Error) or original.sqlstate is None:
        return  # raised by the driver itself, which quotes no values, or while connecting
    # Class 22, data exception: 'invalid input syntax for type integer: "..."'.
    primary = "a value was refused" if original.sqlstate.startswith("22") else original.diag.message_primary
    safe = f"{primary} (SQLSTATE {original.sqlstate})"
    original.args = (safe,)
    wrapped = context.sqlalchemy_exception
    if wrapped is not None:
        wrapped.args = (f"({type(original).__name__}) {safe}",)


def check_connection(engine: Engine) -> None:
    """Opens a connection and asks for an answer.

    Raises:
        DatabaseUnavailable: with host, port, database name, the server's reason and what to do.
    """
    with opened(engine) as connection:
        connection.execute(text("SELECT 1"))


@contextmanager
def opened(engine: Engine) -> Iterator[Connection]:
    """A connection of the engine.

    Raises:
        DatabaseUnavailable: it cannot be made; with host, port, database name, the server's reason and what to do.
    """
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise unavailable(engine.url, error) from None
    with connection:
        yield connection


def unavailable(url: URL, error: BaseException) -> DatabaseUnavailable:
    """The error to raise for a failed connection: where, why in the server's words, and what to do."""
    return DatabaseUnavailable(
        f"Database {url.database} on {_server(url)} cannot be reached: {failure_reason(error)}. "
        f"Check that the server runs and that GHL_PIPELINE_DATABASE_URL names the right host, user, password and "
        f"database; without that variable an embedded server is used."
    )


def _server(url: URL) -> str:
    host = url.host or url.query.get("host") or "the local socket"
    return f"{host}:{url.port or 5432}"


def failure_reason(error: BaseException) -> str:
    """One line of the driver's text, which names host, port, user and database but neither password nor values."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.Error) and original.sqlstate is not None:
        return original.diag.message_primary or original.sqlstate
    found = next(filter(None, (pattern.search(str(original)) for pattern in _REASONS)), None)
    return found["reason"].rstrip(".") if found else type(original).__name__
