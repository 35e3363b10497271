"""What a command needs open: settings, a migrated database, the capability, the Dagster instance."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from ghl_pipeline.database.connection import create_engine, database_urls, ensure_databases
from ghl_pipeline.database.migrate import current_revision, require_migrated, upgrade
from ghl_pipeline.orchestration.rerun_rules import RerunRules
from ghl_pipeline.orchestration.standings import use_rules
from ghl_pipeline.settings import Settings


@contextmanager
def database(settings: Settings) -> Iterator[Engine]:
    """The dashboard database, reachable and migrated.

    The embedded database belongs to this project alone, so an empty one is set up on the way; a database that somebody
    else runs is only changed by `ghl-pipeline db upgrade`.

    Raises:
        ConfigurationError, DatabaseUnavailable: with what to do.
    """
    urls = database_urls(settings)
    if settings.uses_embedded_database:
        ensure_databases(urls)
    engine = create_engine(urls.app)
    use_rules(engine, RerunRules.of(settings))
    try:
        if settings.uses_embedded_database and current_revision(engine) is None:
            upgrade(engine)
        require_migrated(engine)
        yield engine
    finally:
        engine.dispose()
