"""`ghl-pipeline sync-lead` and `sync-all`: hydration at once, without a run, a list or a resume point."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from ghl_pipeline.cli.backfill import exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import out, print_json, print_table
from ghl_pipeline.cli.progress import watch_locations_done
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import Interrupted
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.hydration import RunResult
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.sync import sync_all, sync_lead
from ghl_pipeline.settings import load_settings


def sync_lead_command(
    lead_id: Annotated[int, typer.Argument(help="Id of the lead in the dashboard's database.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find one lead's contact and fill its empty fields, now."""
    settings = load_settings()
    with database(settings) as engine:
        result = asyncio.run(sync_lead(build_hydration(settings, engine), lead_id))
    if json:
        print_json(asdict(result))
        return
    what = f"lead updated ({', '.join(result.fields)})" if result.lead_updated else "lead not changed"
    out.print(f"Lead {result.lead_id}: {result.outcome.value}, {what}, {result.requests} requests")


def sync_all_command(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find the contacts of all eligible leads and fill their empty fields, now."""
    settings = load_settings()
    options = Options(concurrency=settings.sync_all_concurrency)
    with database(settings) as engine:
        locations = chosen_locations(engine, location or [], client or [])
        try:
            with watch_locations_done(engine, locations, shown=not json):
                result = asyncio.run(sync_all(build_hydration(settings, engine), locations, options))
        except KeyboardInterrupt:
            raise Interrupted("Stopped. Leads updated so far are kept; run it again for the rest.") from None
    if json:
        print_json(_document(result))
    else:
        rows = [[r.location, r.eligible, r.repaired, r.requests, r.seconds] for r in result.reports]
        print_table("Sync all", ["location", "leads looked at", "leads updated", "requests", "seconds"], rows)
    exit_with_failures(result.failures, locations)


def _document(result: RunResult) -> dict[str, object]:
    updated = sum(report.repaired for report in result.reports)
    return {
        "leads_looked_at": sum(report.eligible for report in result.reports),
        "leads_updated": updated,
        "lead_updated": updated > 0,
        "locations": [report.as_dict() | {"leads_updated": report.repaired} for report in result.reports],
        "failed": failed_documents(result.failures),
    }
