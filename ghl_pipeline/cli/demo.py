"""`ghl-pipeline demo`: a sample agency, repaired end to end on the real parts, and what was repaired."""

import time
from contextlib import nullcontext
from typing import Annotated

import typer

from ghl_pipeline.cli.backfill import BackfillReport, exit_with_failures, print_backfill, run_backfill
from ghl_pipeline.cli.demo_profile import SampleSize, demo_profile, known_sandbox, make_sample
from ghl_pipeline.cli.output import err, out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.database.connection import describe
from ghl_pipeline.locations.clients import active_locations
from ghl_pipeline.sandbox.process import start_sandbox_process
from ghl_pipeline.settings import load_settings


def demo(
    locations: Annotated[int, typer.Option(min=1, max=1000, help="Locations of the sample agency.")] = 5,
    leads: Annotated[int, typer.Option(min=0, max=500_000, help="Leads per location.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same people.")] = 7,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Repair a made-up agency with a local GHL: nothing real is needed, asked or touched."""
    started = time.monotonic()
    profile = demo_profile(load_settings())
    size = SampleSize(locations, leads, seed)
    with nullcontext() if json else err.status("Making a sample agency ..."):
        make_sample(profile, size)
    with (
        start_sandbox_process(locations=locations, leads=leads, seed=seed) as sandbox,
        database(profile.settings) as engine,
    ):
        settings = profile.with_sandbox(known_sandbox(sandbox))
        with engine.connect() as connection:
            chosen = active_locations(connection)
        report = run_backfill(settings, engine, chosen, {"fresh": True}, show_progress=not json)
        if json:
            print_json(_document(report, describe(profile.urls.app), sandbox.url))
        else:
            print_backfill(report)
            out.print(f"Done in {time.monotonic() - started:.0f} s. To look at it in the UI: make dev")
    exit_with_failures(report.failed, chosen)


def _document(report: BackfillReport, database_url: str, sandbox_url: str) -> dict[str, object]:
    return report.as_dict() | {"database_url": database_url, "sandbox_url": sandbox_url}
