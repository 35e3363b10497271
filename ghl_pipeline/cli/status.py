"""`ghl-pipeline status`: how everything stands, once, live, or for a script."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from sqlalchemy import Engine

from ghl_pipeline.cli.demo_profile import demo_profile
from ghl_pipeline.cli.output import out, print_json, print_whole
from ghl_pipeline.cli.session import database
from ghl_pipeline.cli.status_page import Part, location_page, page
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import find_client
from ghl_pipeline.operations.judging import Judgement
from ghl_pipeline.operations.looking import Look, look_at
from ghl_pipeline.operations.report import failures_by_reason, totals
from ghl_pipeline.settings import load_settings

# What somebody who asks once waits for; of a database of millions of leads, the rest is as of its last count.
COUNTING_SECONDS = 1.0
# A live page counts less each time, and nothing that was counted a moment ago.
COUNTING_SECONDS_LIVE, COUNT_AGAIN_AFTER_LIVE = 0.2, timedelta(seconds=10)
WORST = 20
SOMETHING_IS_AMISS = 1


def status(
    location: Annotated[
        str | None, typer.Argument(help="Only this client, in detail: its location id, name or number.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Of the demo's database instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks of --watch.")] = 2.0,
    worst: Annotated[int, typer.Option(min=1, help="Of more locations than this, only so many, the worst.")] = WORST,
    show_all: Annotated[bool, typer.Option("--all", help="Show all locations, however many.")] = False,
    check: Annotated[bool, typer.Option("--check", help="End with 1 when anything is amiss; for scripts.")] = False,
) -> None:
    """Show how the leads of every client stand, what fails, what waits for whom, and what to do."""
    if watch and (json or check):
        raise InvalidInput("--watch goes on until Ctrl-C; --json and --check are for one look. Leave one of them out.")
    settings = load_settings()
    if demo:
        settings = demo_profile(settings).settings
    most = None if show_all else worst
    with database(settings) as engine:
        location_id = None if location is None else _location_id(engine, location)
        if watch:
            _watch(engine, location_id, most, interval)
            return
        look = look_at(engine, seconds=COUNTING_SECONDS, location_id=location_id)
    if json:
        print_json(document(look))
    else:
        for part in _parts(look, location_id, most):
            _print(part)
    if check and not all(judgement.passed for judgement in look.judgements):
        raise typer.Exit(SOMETHING_IS_AMISS)


def document(look: Look) -> dict[str, object]:
    """The `--json` document; docs/runbook.md describes its keys."""
    return {
        "as_of": look.at,
        "totals": asdict(totals(look.locations)),
        "failures": dict(failures_by_reason(look.locations)),
        "days": [asdict(day) for day in look.days],
        "checks": [_check(judgement) for judgement in look.judgements],
        "locations": [asdict(location) for location in look.locations],
    }


def _check(judgement: Judgement) -> dict[str, object]:
    return {
        "asset": judgement.rule.asset,
        "check": judgement.rule.name,
        "passed": judgement.passed,
        "severity": None if judgement.passed else "error" if judgement.is_serious else "warning",
        "locations": judgement.looked_at,
        "amiss": [each.row for each in judgement.amiss],
        "description": judgement.description,
    }


def _location_id(engine: Engine, which: str) -> str:
    """Raises UnknownClient."""
    with engine.connect() as connection:
        return find_client(connection, which).location_id


def _parts(look: Look, location_id: str | None, most: int | None, *, live: bool = False) -> Sequence[Part]:
    if not look.locations:
        return ["There is no client yet. Add one with: ghl-pipeline clients add, or look at a demo: make demo"]
    return list(page(look, most, live=live) if location_id is None else location_page(look))


def _print(part: Part) -> None:
    if isinstance(part, Table):
        print_whole(part)
    else:
        out.print(part, soft_wrap=True, markup=False)


def _watch(engine: Engine, location_id: str | None, most: int | None, interval: float) -> None:
    """Shows each look in place of the one before; where stdout is no terminal, below it. Ends with Ctrl-C."""

    def look() -> Sequence[Part]:
        seen = look_at(
            engine, seconds=COUNTING_SECONDS_LIVE, older_than=COUNT_AGAIN_AFTER_LIVE, location_id=location_id
        )
        return _parts(seen, location_id, most, live=out.is_terminal)

    try:
        if not out.is_terminal:
            while True:
                for part in look():
                    _print(part)
                sys.stdout.flush()
                time.sleep(interval)
        with Live(Group(*look()), console=out, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(Group(*look()), refresh=True)
    except KeyboardInterrupt:
        return
