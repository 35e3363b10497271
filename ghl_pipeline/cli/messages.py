"""`ghl-pipeline import-messages`: the text messages of some or all locations, now, without a run."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from sqlalchemy import Engine

from ghl_pipeline.cli.backfill import exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table, sum_counts
from ghl_pipeline.cli.session import database
from ghl_pipeline.conversations.conversations import DEFAULT_CONCURRENCY, MessagesResult
from ghl_pipeline.conversations.import_report import ImportReport, MessageOutcome
from ghl_pipeline.errors import Interrupted
from ghl_pipeline.settings import Settings, load_settings
from ghl_pipeline.webhooks.build import build_message_import

STORED = (MessageOutcome.HEALED, MessageOutcome.UPDATED, MessageOutcome.KNOWN)
ODD = (
    MessageOutcome.NOT_SMS,
    MessageOutcome.TOO_OLD,
    MessageOutcome.UNSTORABLE,
    MessageOutcome.UNREADABLE,
)


def import_messages(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    from_start: Annotated[
        bool,
        typer.Option("--from-start", help="As far back as a first import reaches, for leads that were linked since."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Import the text messages of all active clients, or of some, since their last import."""
    settings = load_settings()
    with database(settings) as engine:
        locations = chosen_locations(engine, location or [], client or [])
        try:
            result = run_import(settings, engine, locations, from_start=from_start)
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped. Messages imported so far are kept; run the same command again to go on from there."
            ) from None
    if json:
        print_json(_document(result))
    else:
        print_messages(result)
    exit_with_failures(result.failures, locations)


def run_import(
    settings: Settings,
    engine: Engine,
    locations: Sequence[str],
    *,
    from_start: bool = False,
    concurrency: int = DEFAULT_CONCURRENCY,
) -> MessagesResult:
    """Imports the messages of locations in this process. Raises KeyboardInterrupt when a person stops it."""
    conversations = build_message_import(settings, engine)
    return asyncio.run(conversations.import_messages(locations, from_start=from_start, concurrency=concurrency))


def print_messages(result: MessagesResult) -> None:
    """Prints an import for people: a row per location, and what was left to others."""
    columns = ["location", "imported", "here before", "no lead", "junk contact", "other", "new leads", "calls", "s"]
    rows = [
        [
            report.location,
            report.imported,
            _sum(report, STORED),
            report.outcomes[MessageOutcome.NO_LEAD],
            report.outcomes[MessageOutcome.JUNK_CONTACT],
            _sum(report, ODD),
            report.leads_created,
            report.requests,
            report.seconds,
        ]
        for report in result.reports
    ]
    print_table("Messages", columns, rows)
    junk = sum(report.leads_with_junk_contact_id for report in result.reports)
    if junk:
        out.print(f"{junk:,} leads have a contact id that can be none, so no message is theirs.")
    tell_busy(result)


def tell_busy(result: MessagesResult) -> None:
    """Says on stderr which locations were left to another import."""
    for location_id in result.busy:
        err.print(
            f"Location {location_id}: another import of its messages is at work and was left alone.", soft_wrap=True
        )


def _sum(report: ImportReport, outcomes: Sequence[MessageOutcome]) -> int:
    return sum(report.outcomes[outcome] for outcome in outcomes)


def _document(result: MessagesResult) -> dict[str, object]:
    return {
        "messages_imported": sum(report.imported for report in result.reports),
        "leads_created": sum(report.leads_created for report in result.reports),
        "outcomes": sum_counts(report.outcomes for report in result.reports),
        "requests": sum(report.requests for report in result.reports),
        "locations": [report.as_dict() for report in result.reports],
        "busy": list(result.busy),
        "failed": failed_documents(result.failures),
    }
