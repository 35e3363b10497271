"""Dagster's own tables, made by who may make tables: a worker's login finds them there."""

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import URL

from ghl_pipeline.database.connection import DAGSTER_DRIVER


def make_dagster_tables(url: URL) -> None:
    """Makes whichever of Dagster's tables is missing; one that is there stays as it is.

    Args:
        url: of Dagster's database, as a user who may make tables.
    """
    DagsterPostgresStorage(url.set(drivername=DAGSTER_DRIVER).render_as_string(hide_password=False))
