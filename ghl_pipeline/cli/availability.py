"""`ghl-pipeline availability`: the free times of some or all clients, refreshed now, without a run."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from sqlalchemy import Engine

from ghl_pipeline.availability.availability import DEFAULT_CONCURRENCY
from ghl_pipeline.availability.build import build_availability
from ghl_pipeline.availability.client_calendars import calendar_locations
from ghl_pipeline.availability.outcomes import State, in_words
from ghl_pipeline.availability.report import AvailabilityReport, AvailabilityResult
from ghl_pipeline.cli.backfill import exit_when_busy, exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import Interrupted
from ghl_pipeline.settings import Settings, load_settings


def availability(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Refresh the free times of all clients that have a calendar, or of some."""
    settings = load_settings()
    with database(settings) as engine:
        if location or client:
            locations = chosen_locations(engine, location or [], client or [])
        else:
            with engine.connect() as connection:
                locations = calendar_locations(connection)
        try:
            result = run_refresh(settings, engine, locations)
        except KeyboardInterrupt:
            raise Interrupted("Stopped. Free times refreshed so far are kept; run the same command again.") from None
    if json:
        print_json(_document(result))
    else:
        print_availability(result)
    exit_with_failures(result.failures, locations)
    exit_when_busy(result.busy, locations)


def run_refresh(
    settings: Settings, engine: Engine, locations: Sequence[str], *, concurrency: int = DEFAULT_CONCURRENCY
) -> AvailabilityResult:
    """Refreshes locations in this process. Raises KeyboardInterrupt when a person stops it."""
    return asyncio.run(build_availability(settings, engine).refresh(locations, concurrency=concurrency))


def print_availability(result: AvailabilityResult) -> None:
    """Prints a refresh for people: a row per location, then each reason that is nobody's failure, in words."""
    columns = ["location", "state", "reason", "free times", "new", "gone", "found by", "calls", "s"]
    print_table("Free times", columns, [_row(report) for report in result.reports])
    failed = {failure.location_id for failure in result.failures}
    for report in result.reports:
        if report.reason is not None and report.location not in failed:
            out.print(f"{report.location}: {in_words(report.reason)}.", soft_wrap=True, markup=False)
        if report.state is None:
            told = "no calendar. To give one: ghl-pipeline clients set-calendar"
            out.print(f"{report.location}: {told} {report.location} --link URL", soft_wrap=True, markup=False)
    for location_id in result.busy:
        err.print(f"Location {location_id}: another run is at its calendar and was left alone.", soft_wrap=True)
    if result.not_reached:
        err.print(
            f"{len(result.not_reached)} locations were not reached in time. Run the command again: they are first."
        )


def _row(report: AvailabilityReport) -> list[object]:
    return [
        report.location,
        report.state or "no calendar",
        report.reason,
        report.slots,
        report.added,
        report.removed,
        report.resolved_by,
        report.requests,
        report.seconds,
    ]


def _document(result: AvailabilityResult) -> dict[str, object]:
    return {
        **result.counts(),
        "stale_by_reason": result.by_reason(State.STALE),
        "unsupported_by_reason": result.by_reason(State.UNSUPPORTED),
        "locations": [report.as_dict() for report in result.reports],
        "busy": list(result.busy),
        "not_reached": list(result.not_reached),
        "failed": failed_documents(result.failures),
    }
