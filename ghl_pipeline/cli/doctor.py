"""`ghl-pipeline doctor`: whether everything is there that the work needs, and what to do about what is not."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from sqlalchemy import Engine

from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable, Interrupted
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.operations.doctor import examine_locations, examine_this_side
from ghl_pipeline.operations.findings import Check, Finding, Level, finding_of
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings, load_settings

ACTION_NEEDED = 1
THIS_SIDE = "this side"
_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def doctor(
    location: Annotated[list[str] | None, typer.Option(help="Location id; may be given several times.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Client name; may be given several times.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Check settings, database, and each location's token, scopes, limits and search. Changes nothing in GHL."""
    try:
        findings, code = _examine(location or [], client or [], quiet=json)
    except KeyboardInterrupt:
        raise Interrupted("Stopped. Nothing was changed; run the same command again.") from None
    if json:
        print_json({"findings": [asdict(finding) for finding in findings], "counts": _counts(findings)})
    else:
        _print(findings)
    if code:
        raise typer.Exit(code)


def _examine(locations: Sequence[str], clients: Sequence[str], *, quiet: bool) -> tuple[list[Finding], int]:
    """All findings, and the exit code: that of the error, where nothing further could be looked at.

    Raises:
        UnknownClient, InvalidInput: a location or client asked for does not exist or is deactivated.
    """
    findings: list[Finding] = []
    try:
        settings = load_settings()
        with database(settings) as engine:
            findings += examine_this_side(settings, engine)
            chosen = chosen_locations(engine, locations, clients)
            findings += _examine_locations(settings, engine, chosen, quiet=quiet)
    except (ConfigurationError, DatabaseUnavailable) as error:
        check = Check.DATABASE if isinstance(error, DatabaseUnavailable) else Check.SETTINGS
        return [*findings, finding_of(check, error)], error.exit_code
    return findings, ACTION_NEEDED if _counts(findings)[Level.PROBLEM] else 0


def _examine_locations(settings: Settings, engine: Engine, chosen: Sequence[str], *, quiet: bool) -> list[Finding]:
    if not chosen:
        advice = "Add one with: ghl-pipeline clients add"
        return [Finding(Check.CLIENTS, Level.WARNING, "there is no active client", advice)]
    try:
        cipher = TokenCipher.from_settings(settings)
    except ConfigurationError:
        return []  # found already; without their tokens no location can be asked
    opener = client_opener(settings, engine, interactive=True)
    with nullcontext() if quiet else err.status(f"Examining {len(chosen)} locations ..."):
        return asyncio.run(
            examine_locations(chosen, settings=settings, engine=engine, cipher=cipher, open_client=opener)
        )


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counts = Counter(finding.level for finding in findings)
    return {level.value: counts[level] for level in Level}


def _print(findings: Sequence[Finding]) -> None:
    """A row for each location, then what is not well. Of a single location also what is."""
    by_place: dict[str, list[Finding]] = {}
    for finding in findings:
        by_place.setdefault(finding.location or THIS_SIDE, []).append(finding)
    rows = [[place, *_counts(found).values()] for place, found in by_place.items()]
    print_table("Examined", ["where", "ok", "warnings", "problems"], rows)
    in_detail = len(by_place) <= 2
    for place, found in by_place.items():
        for finding in found:
            if finding.level is not Level.OK or in_detail:
                out.print(f"{finding.level.value:<8}", style=_STYLES[finding.level], end=" ")
                out.print(f"{place}, {finding.check.value}: {finding}", soft_wrap=True, markup=False)
    counts = _counts(findings)
    if not counts[Level.WARNING] and not counts[Level.PROBLEM]:
        out.print("All is well.")
