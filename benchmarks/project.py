"""The pipeline as a user has it, on databases of its own: settings, clients, leads, and `ghl-pipeline` as a child.

The databases are on the embedded server of the benchmarks' home folder, with fsync as a real one has it. They are named
after the process that made them, and dropped at the end; those of a killed benchmark are dropped by the next one.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from benchmarks.harness import HOME, Child, ChildResult
from benchmarks.sandbox import SandboxLocation
from ghl_pipeline.database.connection import DatabaseUrls, create_engine, drop_databases, ensure_databases
from ghl_pipeline.database.embedded import EmbeddedPostgres, ServerAddress
from ghl_pipeline.database.migrate import upgrade
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings

UNKNOWN_EVERY = 5
"""Every fifth lead is of nobody at GHL, as after a campaign with bought addresses."""
_PREFIX = "benchmark_"

_ADD_LEADS = text("""
    INSERT INTO leads (client_id, email)
    SELECT :client_id,
           CASE WHEN number % :every = 0 THEN 'nobody.' ELSE 'person.' END || number || '@example.com'
    FROM generate_series(1, :leads) AS number
""")
_REPAIRED = text("""
    SELECT count(*) FROM leads WHERE client_id = :client_id
    AND ghl_contact_id <> '' AND phone <> '' AND first_name <> '' AND last_name <> '' AND company_name <> ''
""")
_ROWS = text("""
    SELECT email, ghl_contact_id, phone, first_name, last_name, company_name, enrichment_status, enrichment_source,
           enriched_at IS NOT NULL
    FROM leads WHERE client_id = :client_id ORDER BY email
""")


class Project:
    """A pipeline with its databases. `settings` are those of the child processes."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self._clients: dict[str, int] = {}

    def add_client(self, location: SandboxLocation, *, leads: int) -> None:
        """A client with that many leads, of which each has nothing but an address.

        Lead number n is contact n's, and every fifth is of nobody; see `benchmarks/sandbox.py`.
        """
        cipher = TokenCipher.from_settings(self.settings)
        with self.engine.begin() as connection:
            client = add_client(
                connection, cipher, name=location.id, location_id=location.id, token=SecretStr(location.token)
            )
            connection.execute(_ADD_LEADS, {"client_id": client.id, "leads": leads, "every": UNKNOWN_EVERY})
        self._clients[location.id] = client.id
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # A table that has been there for a while has statistics.
            connection.execute(text("VACUUM ANALYZE leads"))

    def repaired(self, location: SandboxLocation) -> int:
        """Leads of the location that have a link and every field."""
        with self.engine.connect() as connection:
            found = connection.execute(_REPAIRED, {"client_id": self._clients[location.id]})
            return int(found.scalar_one())

    def rows(self, location: SandboxLocation) -> list[tuple[object, ...]]:
        """The location's leads by address, with everything a repair writes; ids and times left out."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(_ROWS, {"client_id": self._clients[location.id]})]

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """Starts `ghl-pipeline` with these arguments."""
        program = str(Path(sys.executable).with_name("ghl-pipeline"))
        return Child([program, *arguments], {**self.settings.as_environment(), **(environment or {})})

    def backfill(self, location: SandboxLocation, **settings: object) -> tuple[ChildResult, Mapping[str, Any]]:
        """Runs `ghl-pipeline backfill` for a location to its end; what it took, and the report it printed.

        Raises:
            BenchmarkFailed: it ended in an error.
        """
        environment = {name: str(value) for name, value in settings.items()}
        child = self.start("backfill", "--location", location.id, "--json", environment=environment)
        result = child.wait().require_success()
        report: Mapping[str, Any] = json.loads(result.output)
        return result, report


@contextlib.contextmanager
def project(api_url: str, **settings: Any) -> Iterator[Project]:
    """A project with empty, migrated databases that speaks to `api_url`; `settings` are fields of `Settings`."""
    with EmbeddedPostgres(HOME) as server:
        _drop_leftovers(server)
        app = server.url(f"{_PREFIX}{os.getpid()}")
        urls = DatabaseUrls(app, app.set(database=f"{app.database}_dagster"))
        made = Settings(
            home=HOME,
            database_url=SecretStr(app.set(drivername="postgresql").render_as_string(hide_password=False)),
            dagster_database_url=SecretStr(
                urls.dagster.set(drivername="postgresql").render_as_string(hide_password=False)
            ),
            token_keys=SecretStr(Fernet.generate_key().decode()),
            api_url=api_url,
            **settings,
        )
        drop_databases(urls)
        ensure_databases(urls)
        engine = create_engine(app)
        try:
            upgrade(engine)
            yield Project(made, engine)
        finally:
            engine.dispose()
            drop_databases(urls)


def _drop_leftovers(server: ServerAddress) -> None:
    """Drops the databases of benchmarks whose process is gone."""
    engine = create_engine(server.url("postgres"), pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        query = text("SELECT datname FROM pg_database WHERE starts_with(datname, :prefix)")
        for name in connection.execute(query, {"prefix": _PREFIX}).scalars().all():
            maker = name.removeprefix(_PREFIX).partition("_")[0]
            if maker.isdigit() and _is_gone(int(maker)):
                connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    engine.dispose()


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        pass
    return False
