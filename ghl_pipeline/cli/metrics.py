"""`ghl-pipeline metrics`: what the database knows, as Prometheus reads it, where no receiver runs."""

import sys
from typing import Annotated

import typer

from ghl_pipeline.cli.session import database
from ghl_pipeline.operations.metrics.exposition import exposed
from ghl_pipeline.operations.metrics.readings import read_metrics
from ghl_pipeline.settings import load_settings


def metrics(
    totals: Annotated[
        bool,
        typer.Option("--totals", help="Leave out what is told of each location."),
    ] = False,
) -> None:
    """Print the metrics of the database for Prometheus; node_exporter's textfile collector takes them from a file."""
    settings = load_settings()
    with database(settings) as engine, engine.connect() as connection:
        reading = read_metrics(connection, per_location_up_to=0 if totals else settings.metrics_per_location_up_to)
    sys.stdout.write(exposed(reading).decode())
    sys.stdout.flush()
