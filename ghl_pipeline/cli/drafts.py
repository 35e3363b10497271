"""`ghl-pipeline drafts`: replies that were written for an operator to send. Texts are shown only when asked for."""

import asyncio
from datetime import timedelta
from typing import Annotated

import typer

from ghl_pipeline.cli.backfill import exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_problems, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.drafts.build import build_drafts
from ghl_pipeline.drafts.client_settings import switched_on
from ghl_pipeline.drafts.deciding import Draft, approve, find_draft, list_drafts, reject
from ghl_pipeline.drafts.drafts import DraftsResult
from ghl_pipeline.drafts.outcomes import DraftState
from ghl_pipeline.drafts.report import DraftsReport
from ghl_pipeline.errors import ConfigurationError, Interrupted, InvalidInput
from ghl_pipeline.settings import Settings, load_settings

app = typer.Typer(help="Look at drafts of replies, approve or reject them, write what is wanted.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Number = Annotated[int, typer.Argument(help="Number of the draft.")]
Locations = Annotated[list[str] | None, typer.Option("--location", help="Location id; may be given several times.")]
Clients = Annotated[list[str] | None, typer.Option("--client", help="Client name; may be given several times.")]


@app.command("list")
def list_command(
    state: Annotated[DraftState | None, typer.Option(help="Only these.")] = None,
    location: Locations = None,
    client: Clients = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: Json = False,
) -> None:
    """List drafts, the newest first, without their texts."""
    settings = load_settings()
    with database(settings) as engine:
        wanted = chosen_locations(engine, location or [], client or []) if location or client else []
        with engine.connect() as connection:
            found = list_drafts(connection, _max_age(settings), location_ids=wanted, state=state, limit=limit)
    if json:
        print_json({"drafts": [draft.as_dict() for draft in found]})
        return
    columns = ["id", "location", "lead", "channel", "state", "reason", "tries", "again UTC", "written UTC", "outdated"]
    print_table("Drafts", columns, [_row(draft) for draft in found])


@app.command()
def show(
    draft_id: Number,
    text: Annotated[bool, typer.Option("--text", help="With the draft itself.")] = False,
    json: Json = False,
) -> None:
    """Show one draft: how it stands, why it failed, what it cost."""
    settings = load_settings()
    with database(settings) as engine, engine.connect() as connection:
        draft = find_draft(connection, draft_id, _max_age(settings))
    if text:
        err.print("A draft may hold a person's data. Keep it out of tickets and chats.", style="yellow")
    if json:
        print_json(draft.as_dict(with_text=text))
        return
    for name, value in draft.as_dict().items():
        if value is not None:
            out.print(f"{name}: {value}", markup=False)
    if text and draft.body is not None:
        out.print(f"\n{draft.body}", markup=False)


@app.command("approve")
def approve_command(draft_id: Number, json: Json = False) -> None:
    """Mark a draft as good to send. It is not sent by this."""
    settings = load_settings()
    with database(settings) as engine, engine.begin() as connection:
        draft = approve(connection, draft_id, _max_age(settings))
    _tell(draft, "approved. Nothing was sent", json=json)


@app.command("reject")
def reject_command(draft_id: Number, json: Json = False) -> None:
    """Mark a draft as not to be sent. Its message gets no other one."""
    settings = load_settings()
    with database(settings) as engine, engine.begin() as connection:
        draft = reject(connection, draft_id, _max_age(settings))
    _tell(draft, "rejected", json=json)


@app.command()
def write(
    location: Locations = None,
    client: Clients = None,
    again: Annotated[bool, typer.Option("--again", help="Try what failed once more, also what was given up.")] = False,
    json: Json = False,
) -> None:
    """Write the drafts that are wanted now, of all clients that are switched on, or of some."""
    settings = load_settings()
    with database(settings) as engine:
        drafts = build_drafts(settings, engine)
        if not drafts.has_key:
            raise ConfigurationError("Neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set. Set one in the environment.")
        locations = chosen_locations(engine, location or [], client or [])
        with engine.connect() as connection:
            on = switched_on(connection)
        if (location or client) and not on.intersection(locations):
            raise InvalidInput(
                f"No drafts are written for {', '.join(locations)}. To switch them on: ghl-pipeline clients set-drafts "
                f"{locations[0]} --on"
            )
        locations = [each for each in locations if each in on]
        try:
            result = asyncio.run(drafts.write(locations, again=again))
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped. Drafts that were written are kept; run the same command for the rest."
            ) from None
    if json:
        print_json(_document(result))
    else:
        _print_result(result)
    print_problems(f"{sentence}; it was not asked again" for sentence in result.refusals)
    exit_with_failures(result.failures, locations)
    if any(each.failed for each in result.reports) and not any(each.drafted for each in result.reports):
        print_problems(["Every draft failed. See why: ghl-pipeline drafts list --state failed"])
        raise typer.Exit(1)


def _max_age(settings: Settings) -> timedelta:
    return timedelta(days=settings.draft_max_age_days)


def _row(draft: Draft) -> list[object]:
    again = "" if draft.retry_at is None else f"{draft.retry_at:%Y-%m-%d %H:%M}"
    return [
        *(draft.id, draft.location_id, draft.lead_id, draft.channel, draft.state.value, draft.failure or ""),
        *(
            draft.attempts,
            again,
            f"{draft.created_at:%Y-%m-%d %H:%M}",
            "yes" if draft.outdated and draft.state is DraftState.PENDING else "",
        ),
    ]


def _tell(draft: Draft, what: str, *, json: bool) -> None:
    if json:
        print_json(draft.as_dict())
        return
    out.print(f"Draft {draft.id} is {what}.", markup=False)
    if draft.answered:
        err.print("Somebody wrote to the lead since its message came.", style="yellow")


def _print_result(result: DraftsResult) -> None:
    columns = ["location", "drafted", "failed", "skipped", "calls", "tokens in", "tokens out", "USD", "s"]
    rows = [
        [
            *(each.location, sum(each.drafted.values()), sum(each.failed.values()), sum(each.skipped.values())),
            *(each.calls, each.tokens_in, each.tokens_out, _cost(each), each.seconds),
        ]
        for each in result.reports
    ]
    print_table("Drafts", columns, rows)
    if result.busy:
        err.print(f"{len(result.busy)} locations were left to other runs at work there.")


def _cost(report: DraftsReport) -> float | str:
    """What is known of it; marked where a model that took part has no price."""
    known = sum(report.cost_usd.values())
    return f"more than {known}" if report.unpriced and report.cost_usd else known


def _document(result: DraftsResult) -> dict[str, object]:
    return {
        "locations": [each.as_dict() for each in result.reports],
        "failed": failed_documents(result.failures),
        "busy": list(result.busy),
        "refusals": list(result.refusals),
    }
