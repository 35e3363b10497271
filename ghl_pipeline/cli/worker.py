"""`ghl-pipeline worker`: executes runs that are queued for any machine, in the foreground."""

import logging
from typing import Annotated

import typer

from ghl_pipeline.cli.output import err
from ghl_pipeline.cli.session import database
from ghl_pipeline.settings import load_settings

NOBODY = 1


def worker(
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Runs at the same time, each its own process.")] = 2,
    name: Annotated[str, typer.Option(help="Name of this worker among those of this host.")] = "runs",
    check: Annotated[
        bool, typer.Option("--check", help="Only ask whether the worker of this name answers; exit code 0 or 1.")
    ] = False,
) -> None:
    """Execute runs from the queue of CELERY_BROKER_URL until stopped; on as many machines as there are.

    The first SIGTERM or Ctrl-C takes no new run and waits for those under way. A run whose worker is killed is noticed
    and taken up by another.
    """
    # Only here: the packages are an extra, which a single machine does not need.
    from ghl_pipeline.orchestration import celery_app  # noqa: PLC0415

    settings = load_settings()
    if check:
        raise typer.Exit(0 if celery_app.answers(settings, name=name) else NOBODY)
    celery_app.broker_url(settings)
    with database(settings):
        pass  # said here, once: that it is missing, or not migrated
    err.print(f"Executes up to {concurrency} runs at a time as {celery_app.node_name(name)}.", soft_wrap=True)
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    celery_app.run_worker(settings, name=name, concurrency=concurrency, log_level="INFO" if verbose else "WARNING")
