"""`ghl-pipeline events`: the inbox as an operator sees it. Bodies are people's words, shown only when asked for."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy import Connection, Engine

from ghl_pipeline.cli.backfill import exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.locations.clients import find_client
from ghl_pipeline.settings import load_settings
from ghl_pipeline.webhooks.build import build_event_handling
from ghl_pipeline.webhooks.handling.many_inboxes import handle_inboxes
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline.webhooks.inbox.claims import due_locations
from ghl_pipeline.webhooks.inbox.dead_letters import (
    STATES,
    EventRow,
    UnknownEvent,
    body_of,
    list_events,
    purge_bodies,
    show_event,
    states_of,
)
from ghl_pipeline.webhooks.inbox.replays import replay

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
    """List events, the newest first; done and ignored ones among the latest 100,000. Dead ones wait for a replay."""
    with database(load_settings()) as engine, engine.connect() as connection:
        if location is not None:
            location = _known_location(connection, location)
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
    every: Annotated[bool, typer.Option("--all", help="All that are dead or wait.")] = False,
    json: Json = False,
) -> None:
    """Make dead events due again, and those that wait for their next attempt; they are then handled as new ones.

    By number or location also events that were ignored because their client was deactivated. When the inbox lacks one
    of the numbers, none is replayed.
    """
    if not event_ids and location is None and not every:
        raise InvalidInput("Say which: numbers of events, --location, or --all. See: ghl-pipeline events list")
    with database(load_settings()) as engine:
        if location is not None:
            (location,) = chosen_locations(engine, [location], [])
        _refuse_unknown(engine, event_ids or ())
        replayed = replay(engine, event_ids=event_ids or None, location_id=location)
        with engine.connect() as connection:
            left_alone = states_of(connection, set(event_ids or ()) - set(replayed))
    if json:
        others = [{"id": event_id, "state": left_alone[event_id]} for event_id in sorted(left_alone)]
        print_json({"replayed": len(replayed), "left_alone": others})
        return
    told = f"{len(replayed)} events are due now."
    if replayed:
        told += " They are handled by the sensor, or by: ghl-pipeline events handle"
    out.print(told)
    for state in STATES:
        if numbers := sorted(event_id for event_id, of_event in left_alone.items() if of_event == state):
            out.print(f"Left alone, {_LEFT_ALONE[state]}: {', '.join(map(str, numbers))}")


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


_LEFT_ALONE = {
    "pending": "because they are due or in work already",
    "done": "because they are done already",
    "ignored": "because there is nothing to do about them, their body is gone, or their client is deactivated",
    "dead": "and still dead (see: ghl-pipeline events show)",
}


def _refuse_unknown(engine: Engine, event_ids: Sequence[int]) -> None:
    """Raises UnknownEvent when the inbox lacks one of these; says which, and which are done already."""
    with engine.connect() as connection:
        states = states_of(connection, event_ids)
    numbers = dict.fromkeys(event_ids)
    unknown = [str(event_id) for event_id in numbers if event_id not in states]
    done = [str(event_id) for event_id in numbers if states.get(event_id) == "done"]
    if unknown:
        also = f" Done already: {', '.join(done)}." if done else ""
        raise UnknownEvent(
            f"The inbox has no event {', '.join(unknown)}, so none was replayed.{also} See: ghl-pipeline events list"
        )


def _known_location(connection: Connection, which: str) -> str:
    """The location's id, of any client or of an event that was no client's; raises UnknownClient."""
    try:
        return find_client(connection, which).location_id
    except UnknownClient:
        if list_events(connection, location_id=which, limit=1):
            return which
        raise


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
