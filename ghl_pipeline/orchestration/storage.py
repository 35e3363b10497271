"""Dagster's storage: the database that the settings name, or the embedded server, with pooled connections.

Named by `dagster.yaml`, so that one file serves a laptop and a production server: every Dagster process, whoever starts
it, finds the same database as the pipeline.
"""

from collections.abc import Mapping
from typing import Self

from dagster._config.config_schema import UserConfigSchema
from dagster._serdes.config_class import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import URL

from ghl_pipeline.database.connection import (
    CLIENT_KEEPALIVES,
    SERVER_KEEPALIVES,
    database_urls,
    ensure_databases,
)
from ghl_pipeline.privacy import redaction
from ghl_pipeline.settings import load_settings

# Dagster writes an asset's row in a transaction. A machine that is lost in the middle of one keeps it locked, and every
# location's events of that asset wait for it: the server ends such a session, and those that wait outlast it. With
# equal times, runs on other machines failed at the moment in which the row was free again.
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS = 30
STATEMENT_TIMEOUT_MS = 120_000
RECYCLE_CONNECTIONS_SECONDS = 3600
# One connection is kept per storage; more are opened while threads need them (history calls of many locations).
MORE_CONNECTIONS = 20


class PooledPostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` with its URL from the settings and with a connection pool.

    Outside the webserver Dagster opens a new connection for every statement (a 12 ms log-in each); pooled, an event
    write was measured to take a fifth of the time. The pool is switched on by the method that Dagster itself calls in
    its webserver; it is not documented, and a test holds it to what is needed of it.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration: everything is in the settings."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]) -> Self:
        """Called by Dagster for every instance.

        Raises:
            ConfigurationError, DatabaseUnavailable: with what to do.
        """
        del config_value
        # The daemon and the webserver load no definitions; this is what they load of ours.
        redaction.install()
        urls = database_urls(load_settings())
        ensure_databases(urls)
        storage = cls(
            postgres_url=_with_timeouts(urls.dagster).render_as_string(hide_password=False), inst_data=inst_data
        )
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.optimize_for_webserver(
                statement_timeout=STATEMENT_TIMEOUT_MS,
                pool_recycle=RECYCLE_CONNECTIONS_SECONDS,
                max_overflow=MORE_CONNECTIONS,
            )
        return storage


def _with_timeouts(url: URL) -> URL:
    """The URL with what lets either side notice that the other is gone. What it says of that itself holds."""
    own = url.query.get("options", "")
    options = [
        f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_SECONDS}s",
        *SERVER_KEEPALIVES,
        *([own] if isinstance(own, str) else own),
    ]
    keepalives = {name: str(value) for name, value in CLIENT_KEEPALIVES.items()}
    return url.set(query={**keepalives, **url.query, "options": " ".join(options).strip()})
