"""`ghl-pipeline events`: the inbox as an operator sees it. Bodies are people's words, shown only when asked for."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

import typer

from ghl_pipeline.cli.backfill import exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.settings import load_settings
from ghl_pipeline.webhooks.build import build_event_handling
from ghl_pipeline.webhooks.handling.many_inboxes import handle_inboxes
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline.webhooks.inbox.claims import due_locations
from ghl_pipeline.webhooks.inbox.dead_letters import (
    STATES,
    EventRow,
    body_of,
    list_events,
    purge_bodies,
    replay,
    show_event,
)

app = typer.Typer(help="Look at events, try dead ones again, handle what is due.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Location = Annotated[str | None, typer.Option(help="Only of this location id.")]


@app.command("list")
def list_command(
    state: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(STATES)}.")] = None,
    location: Location = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: Json = False,
) -> None:
    """List events, the newest first. Dead ones wait for somebody to replay them."""
    with database(load_settings()) as engine, engine.connect() as connection:
        events = list_events(connection, state=state, location_id=location, limit=limit)
    if json:
        print_json({"events": [asdict(event) for event in events]})
        return
    columns = ["id", "location", "provider", "type", "state", "outcome", "attempts", "lead", "received UTC"]
    print_table("Events", columns, [_row(event) for event in events])


@app.command()
def show(
    event_id: Annotated[int, typer.Argument(help="Number of the event.")],
    body: Annotated[
        bool, typer.Option("--body", help="Print the body as it was sent, and nothing else, to stdout.")
    ] = False,
    json: Json = False,
) -> None:
    """Show one event: what it is, how it stands, why it failed."""
    with database(load_settings()) as engine, engine.connect() as connection:
        event = show_event(connection, event_id)
        sent = body_of(connection, event_id) if body else None
    if body:
        if sent is None:
            raise InvalidInput(f"The body of event {event_id} is not kept any more.")
        err.print("The body holds a person's data. Keep it out of tickets and chats.", style="yellow")
        sys.stdout.buffer.write(sent)
        sys.stdout.buffer.flush()
    elif json:
        print_json(asdict(event))
    else:
        for name, value in asdict(event).items():
            shown = _moment(value) if isinstance(value, datetime) else value
            out.print(f"{name.replace('_', ' ')}: {'' if shown is None else shown}", markup=False)


@app.command("replay")
def replay_command(
    event_ids: Annotated[list[int] | None, typer.Argument(help="Numbers of events.")] = None,
    location: Location = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    json: Json = False,
) -> None:
    """Make dead events due again, and those that wait for their next attempt; they are then handled as new ones."""
    if not event_ids and location is None and not every:
        raise InvalidInput("Say which: numbers of events, --location, or --all. See: ghl-pipeline events list")
    with database(load_settings()) as engine, engine.begin() as connection:
        if location is not None:
            chosen_locations(engine, [location], [])
        replayed = replay(connection, event_ids=event_ids or None, location_id=location)
    if json:
        print_json({"replayed": replayed})
    else:
        out.print(f"{replayed} events are due now. They are handled by the sensor, or by: ghl-pipeline events handle")


@app.command()
def handle(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    json: Json = False,
) -> None:
    """Handle the events that are due, now and without Dagster."""
    settings = load_settings()
    with database(settings) as engine:
        if location:
            locations = chosen_locations(engine, location, [])
        else:
            with engine.connect() as connection:
                locations = due_locations(connection)
        result = asyncio.run(handle_inboxes(build_event_handling(settings, engine), locations))
    reports = result.reports
    if json:
        total = sum(reports.values(), EventsReport())
        print_json(
            {
                **total.counts(),
                "locations": [{"location": id_, **report.counts()} for id_, report in reports.items()],
                "failed": failed_documents(result.failures),
            }
        )
    elif not locations:
        out.print("No event is due.")
    else:
        columns = ["location", "handled", "leads updated", "contacts created", "postponed", "dead", "requests"]
        print_table("Events handled", columns, [_report_row(id_, report) for id_, report in reports.items()])
    exit_with_failures(result.failures, locations)


@app.command()
def purge(
    days: Annotated[float | None, typer.Option(min=0, help="Instead of WEBHOOK_KEEP_BODIES_DAYS.")] = None,
    json: Json = False,
) -> None:
    """Drop the bodies of events that were handled long ago. Their rows stay, so that no event is taken twice."""
    settings = load_settings()
    keep = settings.webhook_keep_bodies_days if days is None else days
    with database(settings) as engine:
        purged = purge_bodies(engine, timedelta(days=keep))
    if json:
        print_json({"bodies_dropped": purged})
    else:
        out.print(f"{purged} bodies dropped")


def _row(event: EventRow) -> Sequence[object]:
    return [
        str(event.id),
        event.location,
        event.provider,
        event.type,
        event.state,
        event.outcome or event.error_class,
        event.attempts,
        None if event.lead_id is None else str(event.lead_id),
        _moment(event.received_at),
    ]


def _report_row(location_id: str, report: EventsReport) -> Sequence[object]:
    counts = report.counts()
    names = ("events_handled", "lead_updated", "contact_created", "events_postponed", "dead_letters", "requests")
    return [location_id, *(counts[name] for name in names)]


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
