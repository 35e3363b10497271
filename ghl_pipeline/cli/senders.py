"""`ghl-pipeline senders`: the EmailBison accounts as an operator sees them; numbers only, no addresses."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from ghl_pipeline.cli.backfill import exit_when_busy, exit_with_failures, failed_documents
from ghl_pipeline.cli.choice import chosen_locations
from ghl_pipeline.cli.output import err, out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import Interrupted
from ghl_pipeline.locations.emailbison import locations_with_workspace
from ghl_pipeline.senders.build import build_senders
from ghl_pipeline.senders.healing import Healing, HealingOutcome
from ghl_pipeline.senders.healing import heal as heal_lead
from ghl_pipeline.senders.report import SendersReport
from ghl_pipeline.senders.shares import list_accounts
from ghl_pipeline.settings import load_settings

app = typer.Typer(help="The EmailBison accounts that clients send by, and leads without one.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Locations = Annotated[list[str] | None, typer.Option("--location", help="Location id; may be given several times.")]
Clients = Annotated[list[str] | None, typer.Option("--client", help="Client name; may be given several times.")]


@app.command("list")
def list_command(location: Locations = None, client: Clients = None, json: Json = False) -> None:
    """List accounts of all active clients, or of some, as the last listing left them, with the leads of each."""
    with database(load_settings()) as engine:
        locations = chosen_locations(engine, location or [], client or [])
        with engine.connect() as connection:
            accounts = list_accounts(connection, locations)
    if json:
        print_json({"accounts": [asdict(account) for account in accounts]})
        return
    columns = ["location", "sender", "status", "can send", "gone", "refused", "leads"]
    rows = [
        [each.location, str(each.sender_id), each.status, each.can_send, each.is_gone, each.is_refused, each.leads]
        for each in accounts
    ]
    print_table("Accounts", columns, rows)


@app.command()
def heal(
    lead: Annotated[int, typer.Argument(help="Number of the lead in the table leads.")],
    refused: Annotated[
        int | None, typer.Option(min=1, help="EmailBison's id of the account that it refused to send by.")
    ] = None,
    json: Json = False,
) -> None:
    """Give a lead another account if its own is missing, unknown or unable, or was refused; a refusal counts once."""
    with database(load_settings()) as engine, engine.begin() as connection:
        healing = heal_lead(connection, lead, refused)
    if json:
        print_json(asdict(healing))
    else:
        out.print(_told(healing))


@app.command()
def sync(location: Locations = None, client: Clients = None, json: Json = False) -> None:
    """List the accounts of all clients with a workspace, or of some, from EmailBison, and repair their leads."""
    settings = load_settings()
    with database(settings) as engine:
        if location or client:
            locations = chosen_locations(engine, location or [], client or [])
        else:
            with engine.connect() as connection:
                locations = locations_with_workspace(connection)
        try:
            result = asyncio.run(build_senders(settings, engine).sync(locations))
        except KeyboardInterrupt:
            raise Interrupted("Stopped. What was listed and repaired so far is kept; run it again.") from None
    if json:
        print_json(
            {
                "locations": [_document(report) for report in result.reports.values()],
                "busy": list(result.busy),
                "failed": failed_documents(result.failures),
            }
        )
    elif not locations:
        out.print("No active client has an EmailBison workspace that can be asked.")
    else:
        columns = ["location", "accounts", "can send", "gone", "leads healed", "left without", "calls", "s"]
        asked = [report for report in result.reports.values() if report.skipped is None]
        print_table("Accounts", columns, [_row(report) for report in asked])
        for report in result.reports.values():
            if report.skipped is not None:
                err.print(f"Location {report.location} was skipped: {report.skipped}", markup=False)
            elif report.doubted_since is not None:
                err.print(
                    f"Location {report.location}: the list lacks most of the accounts that are known and names no "
                    "total. Nobody is taken for gone unless it says the same in an hour.",
                    markup=False,
                )
    for location_id in result.busy:
        err.print(f"Location {location_id}: another run is at its accounts; it was left alone.", soft_wrap=True)
    exit_with_failures(result.failures, locations)
    exit_when_busy(result.busy, locations)


def _told(healing: Healing) -> str:
    if healing.outcome is HealingOutcome.WELL:
        return f"Lead {healing.lead_id} has account {healing.sender_id}, which can send. Nothing was changed."
    before = "none" if healing.replaced_sender_id is None else f"account {healing.replaced_sender_id}"
    if healing.outcome is HealingOutcome.HEALED:
        return f"Lead {healing.lead_id} has account {healing.sender_id} now; it had {before} ({healing.reason})."
    return (
        f"Lead {healing.lead_id} has {before} ({healing.reason}), and its client has no account that can send. Connect "
        "one in EmailBison, then: ghl-pipeline senders sync"
    )


def _row(report: SendersReport) -> list[object]:
    counts = report.counts()
    names = ("accounts", "can_send", "gone", "leads_healed", "left_without", "requests")
    return [report.location, *(counts[name] for name in names), report.seconds]


def _document(report: SendersReport) -> dict[str, object]:
    if report.skipped is not None:
        return {"location": report.location, "skipped": report.skipped}
    return {"location": report.location, **report.counts(), "seconds": round(report.seconds, 3)}
