"""`ghl-pipeline status`: every location's leads, and how the last work on it ended."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ghl_pipeline.availability.outcomes import in_words
from ghl_pipeline.cli.demo_profile import demo_profile
from ghl_pipeline.cli.output import out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.operations.status_report import LocationStatus, read_status
from ghl_pipeline.settings import load_settings


def status(
    demo: Annotated[bool, typer.Option("--demo", help="Of the demo's database instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Show how the leads of every client stand."""
    settings = load_settings()
    if demo:
        settings = demo_profile(settings).settings
    with database(settings) as engine:
        locations = read_status(engine)
    if json:
        print_json({"locations": [asdict(location) for location in locations]})
        return
    if not locations:
        out.print("There is no client yet. Add one with: ghl-pipeline clients add, or look at a demo: make demo")
        return
    columns = ["location", "leads", "linked", "no phone", "no name", "last run", "success UTC"]
    print_table("Locations", columns, [_row(location) for location in locations])
    if any(location.events_last_day or location.events_pending or location.events_dead for location in locations):
        inbox = ["location", "events in 24 h", "pending", "oldest pending", "dead"]
        print_table("Events", inbox, [_inbox_row(location) for location in locations])
    if any(location.events_dead for location in locations):
        out.print(
            "Dead events wait for somebody: ghl-pipeline events list --state dead, then ghl-pipeline events replay"
        )
    calendars = [location for location in locations if location.calendar is not None]
    if calendars:
        columns = ["location", "free times", "state", "as of", "stale since UTC", "reason"]
        print_table("Calendars", columns, [_calendar_row(location) for location in calendars])
    for location in calendars:
        if location.calendar_reason is not None:
            out.print(f"{location.location}: {in_words(location.calendar_reason)}.", soft_wrap=True, markup=False)
    for location in locations:
        for error in dict.fromkeys(filter(None, [location.error, *location.failing.values()])):
            out.print(error, style="red", soft_wrap=True, markup=False)


def _row(location: LocationStatus) -> list[object]:
    state = location.last_state or "never"
    success = f"{location.last_success:%m-%d %H:%M}" if location.last_success else "never"
    return [
        location.location,
        location.leads,
        location.linked,
        location.without_phone,
        location.without_name,
        state if location.active else f"{state} (inactive)",
        success,
    ]


def _inbox_row(location: LocationStatus) -> list[object]:
    seconds = location.oldest_pending_seconds
    return [
        location.location,
        location.events_last_day,
        location.events_pending,
        None if seconds is None else f"{timedelta(seconds=round(seconds))}",
        location.events_dead,
    ]


def _calendar_row(location: LocationStatus) -> list[object]:
    since, as_of = location.calendar_stale_since, location.calendar_refreshed_at
    return [
        location.location,
        location.free_slots,
        location.calendar,
        _age(as_of),
        f"{since:%m-%d %H:%M}" if since else None,
        location.calendar_reason,
    ]


def _age(as_of: datetime | None) -> str:
    """How long ago, to the minute."""
    if as_of is None:
        return "never"
    minutes = max(0, int((datetime.now(UTC) - as_of).total_seconds() // 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h ago"
    return f"{hours} h {minutes % 60} min ago" if hours else f"{minutes} min ago"
