"""`ghl-pipeline crm-sync`: vendors and leads kept in step with GHL, now, after a look at what would change."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from sqlalchemy import Engine

from ghl_pipeline.cli.backfill import PARTLY_DONE, exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table, sum_counts
from ghl_pipeline.cli.session import database
from ghl_pipeline.crm.build import build_crm
from ghl_pipeline.crm.client_settings import crm_locations
from ghl_pipeline.crm.crm import CrmResult
from ghl_pipeline.crm.report import STATS, CrmReport, WouldStop
from ghl_pipeline.errors import Interrupted, InvalidInput, LocationBusy, PipelineError
from ghl_pipeline.privacy.redaction import safe_error_text
from ghl_pipeline.settings import Settings, load_settings

# Errors have no column: each is named on stderr.
COLUMNS: Final = {
    "contacts": "ghl_contacts_fetched",
    "vendors new": "vendors_created",
    "changed": "vendors_updated",
    "missing": "vendors_missing_in_ghl",
    "leads new": "leads_created",
    "changed ": "leads_updated",
    "missing ": "leads_deleted",
}
# Of the counts, those that are writes: without any there is nothing to ask about.
WRITES: Final = tuple(name for name in STATS if name not in {"ghl_contacts_fetched", "errors"})


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, as the command line said it. `asks`: first looks, then writes only after a yes."""

    full: bool
    dry_run: bool
    accept_missing: bool
    asks: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended, in a sentence; `result` is that of the look when nothing was to be written or nobody said yes."""

    result: CrmResult
    message: str
    written: bool = False


class Unanswered(PipelineError):
    """The question whether to write was not answered: the input ended."""


def crm_sync(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look everybody up, also where only changes would be asked for.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would change; write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write at once, without a look and a question.")] = False,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Mark missing contacts also where they are suspiciously many.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Keep vendors and leads of the clients that are switched on in step with GHL; asks before it writes."""
    began = time.monotonic()
    try:
        order = Order(full, dry_run, accept_missing, asks=not dry_run and not yes)
        _refuse_what_nobody_can_answer(order, yes=yes)
        settings = load_settings()
        with database(settings) as engine:
            locations = _locations(engine, location or [], client or [])
            ended = _carry_out(settings, engine, locations, order, quiet=json)
    except PipelineError as error:
        if json:
            print_json(_document(Ended(CrmResult((), ()), "It failed"), began, error=safe_error_text(error)))
        raise
    if json:
        print_json(_document(ended, began))
    else:
        out.print(f"{ended.message}.", soft_wrap=True, markup=False)
    for location_id in ended.result.busy:
        err.print(
            f"Location {location_id}: another run is at its vendors and leads; it was left alone.", soft_wrap=True
        )
    exit_with_failures(ended.result.failures, locations)
    if ended.result.busy:
        raise typer.Exit(LocationBusy.exit_code if _nothing_but_busy(ended.result) else PARTLY_DONE)


def _refuse_what_nobody_can_answer(order: Order, *, yes: bool) -> None:
    if order.dry_run and yes:
        raise InvalidInput("--dry-run writes nothing, so there is nothing to say --yes to. Give one of them.")
    if order.asks and not sys.stdin.isatty():
        raise InvalidInput(
            "Nobody is here to be asked before something is written: standard input is no terminal. Give --yes to "
            "write, or --dry-run to look."
        )


def _locations(engine: Engine, locations: Sequence[str], clients: Sequence[str]) -> list[str]:
    """Those named, switched on or not: of one that is off its person should hear; else all that are on."""
    if locations or clients:
        return chosen_locations(engine, locations, clients)
    with engine.connect() as connection:
        return crm_locations(connection)


def _carry_out(settings: Settings, engine: Engine, locations: Sequence[str], order: Order, *, quiet: bool) -> Ended:
    """Looks, asks and writes, as far as it is ordered. With `quiet` stdout is left for a program."""
    if not locations:
        return Ended(
            CrmResult((), ()), "No active client is switched on for this: ghl-pipeline clients set-crm CLIENT --on"
        )
    seen = _run(settings, engine, locations, order, dry_run=order.dry_run or order.asks)
    if not order.asks:
        title, done = ("What would change", "would be") if order.dry_run else ("What was changed", "are")
        if not quiet:
            print_reports(title, seen.reports)
        nothing = "; nothing was written" if order.dry_run else ""
        return Ended(seen, f"{_counted(seen)} {done} in step{nothing}", written=not order.dry_run)
    print_reports("What would change", seen.reports, to_stderr=quiet)
    stops = {each.location_id for each in seen.failures if each.error_class == WouldStop.__name__}
    writable = [report for report in seen.reports if report.location not in stops]
    if not _rows(writable):
        return Ended(seen, f"{_counted(seen)} are in step already; nothing was written")
    if not _says_yes(_question(writable)):
        return Ended(seen, "Nothing was written")
    usable = [report.location for report in writable]
    result = _run(settings, engine, usable, order, dry_run=False)
    failures = (*(each for each in seen.failures if each.location_id not in usable), *result.failures)
    both = CrmResult(result.reports, failures, (*seen.busy, *result.busy), result.skipped)
    if not quiet:
        print_reports("What was changed", both.reports)
    return Ended(both, f"{_counted(both)} are in step", written=True)


def _run(settings: Settings, engine: Engine, locations: Sequence[str], order: Order, *, dry_run: bool) -> CrmResult:
    crm = build_crm(settings, engine)
    try:
        return asyncio.run(crm.sync(locations, full=order.full, dry_run=dry_run, accept_missing=order.accept_missing))
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What was written is kept; run the same command again for the rest.") from None


def _says_yes(question: str) -> bool:
    """Asks on stderr. Raises Unanswered when the input ends, Interrupted at Ctrl-C."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as aborted:
        if isinstance(aborted.__context__, KeyboardInterrupt):
            raise Interrupted("Stopped before anything was written.") from None
        raise Unanswered("The input ended before the question was answered. Nothing was written.") from None


def _rows(reports: Sequence[CrmReport]) -> int:
    return sum(report.stats()[name] for report in reports for name in WRITES)


def _question(reports: Sequence[CrmReport]) -> str:
    vendors = sum(report.vendors_missing_in_ghl for report in reports)
    leads = sum(report.leads_deleted for report in reports)
    marked = f" ({vendors:,} vendors and {leads:,} leads of them marked missing)" if vendors or leads else ""
    # It may be minutes later, so what is written is what GHL says then.
    return f"{_rows(reports):,} rows{marked} would be written. Ask GHL again and write this?"


def _counted(result: CrmResult) -> str:
    failed = {failure.location_id for failure in result.failures}
    well = sum(report.location not in failed for report in result.reports)
    return f"{well:,} of {len(failed) + well + len(result.busy):,} locations"


def print_reports(title: str, reports: Sequence[CrmReport], *, to_stderr: bool = False) -> None:
    """Prints a row per location, and what a person should know of it."""
    columns = ["location", "pass", *COLUMNS, "calls", "s"]
    rows = [
        [each.location, each.mode, *(each.stats()[name] for name in COLUMNS.values()), each.requests, each.seconds]
        for each in reports
    ]
    print_table(title, columns, rows, to_stderr=to_stderr)
    for each in reports:
        for warning in each.warnings:
            err.print(f"Location {each.location}: {warning}.", soft_wrap=True, markup=False)


def _nothing_but_busy(result: CrmResult) -> bool:
    return bool(result.busy) and not result.reports and not result.failures


def _document(ended: Ended, began: float, *, error: str | None = None) -> dict[str, object]:
    result = ended.result
    stats = dict.fromkeys(STATS, 0) | sum_counts(report.stats() for report in result.reports)
    told = {report.location for report in result.reports}
    uncounted = (
        each for each in result.failures if each.location_id not in told or each.error_class == WouldStop.__name__
    )
    stats["errors"] += len(list(uncounted)) + (error is not None)
    problems = [*([error] if error else []), *(failure.text for failure in result.failures)]
    if result.busy:
        problems.append(f"Other runs are at {len(result.busy)} of these locations, which were left to them.")
    return {
        "success": not problems and not stats["errors"],
        "message": ended.message,
        "duration": round(time.monotonic() - began, 3),
        "stats": stats,
        **({"error": " ".join(problems)} if problems else {}),
        "written": ended.written,
        "locations": [report.as_dict() for report in result.reports],
        "failed": failed_documents(result.failures),
        "busy": list(result.busy),
    }
