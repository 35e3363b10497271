"""`ghl-pipeline events reconcile`: the hourly look for what EmailBison's webhooks lost, now and without Dagster."""

import asyncio
from typing import Annotated

import typer

from ghl_pipeline.cli.backfill import exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.settings import load_settings
from ghl_pipeline.webhooks.build import build_reconciling
from ghl_pipeline.webhooks.reconciling.many_workspaces import locations_to_reconcile, reconcile_counts


def reconcile(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Ask EmailBison for events that never came, and store those the inbox lacks. It keeps them for ten days."""
    settings = load_settings()
    with database(settings) as engine:
        if location:
            locations = chosen_locations(engine, location, [])
        else:
            with engine.connect() as connection:
                locations = locations_to_reconcile(connection)
        result = asyncio.run(build_reconciling(settings, engine).run(locations))
    if json:
        told = [{"location": id_, **reconcile_counts(report)} for id_, report in result.reports.items()]
        print_json({"locations": told, "failed": failed_documents(result.failures)})
    elif not locations:
        out.print("No client has an EmailBison workspace with a token: ghl-pipeline clients set-emailbison")
    else:
        columns = ["location", "seen", "new", "known", "of no use", "refused", "looked from UTC"]
        rows = [
            [
                location_id,
                report.seen,
                report.new,
                report.known,
                report.of_no_use,
                report.refused,
                report.skipped or (f"{report.start:%Y-%m-%d %H:%M}" if report.start else None),
            ]
            for location_id, report in result.reports.items()
        ]
        print_table("Events of EmailBison", columns, rows)
    exit_with_failures(result.failures, locations)
