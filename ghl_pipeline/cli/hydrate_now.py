"""`ghl-pipeline sync-lead` and `sync-all`: leads hydrated and their messages imported at once, without a run.

Both say apart from each other whether leads were updated and how many messages were imported: one can fail, or have
nothing to do, without the other.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from sqlalchemy import Engine

from ghl_pipeline.cli.backfill import PARTLY_DONE, exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.messages import run_import, tell_busy
from ghl_pipeline.cli.output import out, print_json, print_problems, print_table
from ghl_pipeline.cli.progress import watch_locations_done
from ghl_pipeline.cli.session import database
from ghl_pipeline.conversations.conversations import LeadMessages, MessagesResult
from ghl_pipeline.errors import Interrupted, PipelineError
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.hydration import RunResult
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.sync import sync_all, sync_lead
from ghl_pipeline.orchestration.failures import FailedLocation, describe_failure
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline.webhooks.build import build_message_import


def sync_lead_command(
    lead_id: Annotated[int, typer.Argument(help="Id of the lead in the dashboard's database.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find one lead's contact, fill its empty fields and import its messages, now."""
    settings = load_settings()
    with database(settings) as engine:
        result = asyncio.run(sync_lead(build_hydration(settings, engine), lead_id))
        messages = _messages_of_lead(settings, engine, lead_id, result.location_id)
    failures = [messages] if isinstance(messages, FailedLocation) else []
    imported = None if isinstance(messages, FailedLocation) else messages.imported
    requests = result.requests + (0 if isinstance(messages, FailedLocation) else messages.requests)
    if json:
        failed = failed_documents(failures)
        print_json(asdict(result) | {"requests": requests, "messages_imported": imported, "messages_failed": failed})
    else:
        lead = f"lead updated ({', '.join(result.fields)})" if result.lead_updated else "lead not changed"
        told = "messages not imported" if imported is None else f"{imported:,} messages imported"
        out.print(f"Lead {result.lead_id}: {result.outcome.value}, {lead}, {told}, {requests} requests")
    exit_with_failures(failures, [result.location_id])


def sync_all_command(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find the contacts of all eligible leads, fill their empty fields and import their messages, now."""
    settings = load_settings()
    options = Options(concurrency=settings.sync_all_concurrency)
    with database(settings) as engine:
        locations = chosen_locations(engine, location or [], client or [])
        try:
            with watch_locations_done(engine, locations, shown=not json):
                result = asyncio.run(sync_all(build_hydration(settings, engine), locations, options))
            # After the leads, so that messages of those that were linked just now find them.
            usable = _usable(locations, result)
            messages = run_import(settings, engine, usable, concurrency=settings.sync_all_concurrency)
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped. Leads updated and messages imported so far are kept; run it again for the rest."
            ) from None
    if json:
        print_json(_document(result, messages))
    else:
        _print(result, messages)
    tell_busy(messages)
    print_problems(failure.text for failure in messages.failures)
    exit_with_failures(result.failures, locations)
    if messages.failures:
        raise typer.Exit(PARTLY_DONE)


def _messages_of_lead(
    settings: Settings, engine: Engine, lead_id: int, location_id: str
) -> LeadMessages | FailedLocation:
    """The lead's messages, or why they could not be imported: the lead itself is done all the same."""
    try:
        return asyncio.run(build_message_import(settings, engine).import_of_lead(lead_id))
    except PipelineError as error:
        return describe_failure(location_id, error)


def _usable(locations: Sequence[str], result: RunResult) -> list[str]:
    """The locations whose messages are asked for: one that refuses us altogether has said so once."""
    refused = {failure.location_id for failure in result.failures if failure.permanent}
    return [location_id for location_id in locations if location_id not in refused]


def _print(result: RunResult, messages: MessagesResult) -> None:
    imported = {report.location: report for report in messages.reports}
    rows = []
    for report in result.reports:
        of_messages = imported.get(report.location)
        requests = report.requests + (of_messages.requests if of_messages else 0)
        seconds = report.seconds + (of_messages.seconds if of_messages else 0.0)
        told = of_messages.imported if of_messages else None
        rows.append([report.location, report.eligible, report.repaired, told, requests, seconds])
    columns = ["location", "leads looked at", "leads updated", "messages imported", "requests", "seconds"]
    print_table("Sync all", columns, rows)


def _document(result: RunResult, messages: MessagesResult) -> dict[str, object]:
    updated = sum(report.repaired for report in result.reports)
    imported = {report.location: report.imported for report in messages.reports}
    return {
        "leads_looked_at": sum(report.eligible for report in result.reports),
        "leads_updated": updated,
        "lead_updated": updated > 0,
        "messages_imported": sum(imported.values()),
        "locations": [
            report.as_dict() | {"leads_updated": report.repaired, "messages_imported": imported.get(report.location)}
            for report in result.reports
        ],
        "messages": [report.as_dict() for report in messages.reports],
        "failed": failed_documents(result.failures),
        "messages_busy": list(messages.busy),
        "messages_failed": failed_documents(messages.failures),
    }
