"""Dagster's storage: the database that the settings name, or the embedded server, with pooled connections.

Named by `dagster.yaml`, so that one file serves a laptop and a production server: every Dagster process, whoever starts
it, finds the same database as the pipeline.
"""

from collections.abc import Mapping
from typing import Self

from dagster._config.config_schema import UserConfigSchema
from dagster._serdes.config_class import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from ghl_pipeline.database.connection import CLIENT_KEEPALIVES, database_urls, ensure_databases
from ghl_pipeline.privacy import redaction
from ghl_pipeline.settings import load_settings

STATEMENT_TIMEOUT_MS = 60_000
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
        # Of the URL's own, what it says of them comes first.
        url = urls.dagster.set(
            query={**{name: str(value) for name, value in CLIENT_KEEPALIVES.items()}, **urls.dagster.query}
        )
        storage = cls(postgres_url=url.render_as_string(hide_password=False), inst_data=inst_data)
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.optimize_for_webserver(
                statement_timeout=STATEMENT_TIMEOUT_MS,
                pool_recycle=RECYCLE_CONNECTIONS_SECONDS,
                max_overflow=MORE_CONNECTIONS,
            )
        return storage
