"""`ghl-pipeline clients`: who the agency's clients are and which location and token each has."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from ghl_pipeline.cli.output import out, print_json, print_table
from ghl_pipeline.cli.session import database
from ghl_pipeline.crm.client_settings import switched_on
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations import clients as registry
from ghl_pipeline.locations.csv_import import import_clients
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import load_settings
from ghl_pipeline.webhooks.inbox.replays import take_up_ignored

app = typer.Typer(help="Add, list, import and deactivate clients.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Which = Annotated[str, typer.Argument(help="The client's name, id or location id.")]


@app.command()
def add(
    name: Annotated[str, typer.Option(help="The client's name, unique in any case.")],
    location: Annotated[str, typer.Option(help="Its GHL location (sub-account) id.")],
    region: Annotated[str, typer.Option(help="Country of its local phone numbers, ISO alpha-2.")] = "US",
    time_zone: Annotated[str, typer.Option(help="IANA name.")] = "UTC",
    json: Json = False,
) -> None:
    """Add a client. Its private integration token is asked for, or read from stdin when that is no terminal."""
    settings = load_settings()
    token = read_token()
    with database(settings) as engine, engine.begin() as connection:
        cipher = TokenCipher.from_settings(settings)
        client = registry.add_client(
            connection, cipher, name=name, location_id=location, token=token, default_region=region, time_zone=time_zone
        )
    if json:
        print_json(document_of(client))
    else:
        out.print(f"Added client {client.id} with location {client.location_id}. Next: ghl-pipeline backfill --dry-run")


@app.command("list")
def list_clients(
    json: Json = False,
) -> None:
    """List all clients. Tokens are never shown."""
    with database(load_settings()) as engine, engine.connect() as connection:
        found = registry.list_clients(connection)
        in_step = switched_on(connection)
    if json:
        print_json({"clients": [document_of(each) | {"crm": each.location_id in in_step} for each in found]})
        return
    rows = [
        [
            *(each.id, each.name, each.location_id, each.default_region, each.time_zone, each.active),
            _told_of_token(each),
            "in step" if each.location_id in in_step else "",
        ]
        for each in found
    ]
    print_table("Clients", ["id", "name", "location", "region", "time zone", "active", "token", "vendors"], rows)


@app.command("import")
def import_csv(
    file: Annotated[Path, typer.Argument(help="CSV: name, location_id, token[, default_region, time_zone, active].")],
    json: Json = False,
) -> None:
    """Add and update clients from a CSV file: all of its rows, or none with every bad line named."""
    settings = load_settings()
    with database(settings) as engine:
        with engine.connect() as connection:
            inactive = {each.location_id for each in registry.list_clients(connection) if not each.active}
        report = import_clients(engine, TokenCipher.from_settings(settings), file)
        with engine.connect() as connection:
            reactivated = inactive.intersection(registry.active_locations(connection))
        for location_id in sorted(reactivated):
            take_up_ignored(engine, location_id)
    if json:
        print_json({"added": report.added, "updated": report.updated, "unchanged": report.unchanged})
    else:
        out.print(f"{report.added} clients added, {report.updated} updated, {report.unchanged} unchanged")


@app.command()
def deactivate(which: Which, json: Json = False) -> None:
    """Stop all work for a client. Its leads and its token stay; its partition goes when nothing works on it."""
    with database(load_settings()) as engine, engine.begin() as connection:
        client = registry.deactivate_client(connection, which)
    if json:
        print_json(document_of(client))
    else:
        out.print(f"Client {client.id} is deactivated. To resume: ghl-pipeline clients reactivate {client.location_id}")


@app.command()
def reactivate(which: Which, json: Json = False) -> None:
    """Take up the work for a deactivated client again, with the events that came meanwhile and are still kept."""
    with database(load_settings()) as engine:
        with engine.begin() as connection:
            client = registry.reactivate_client(connection, which)
        taken_up = take_up_ignored(engine, client.location_id)
    if json:
        print_json({**document_of(client), "events_due": taken_up})
    else:
        out.print(f"Client {client.id} is active. Events that came meanwhile and are due now: {taken_up}")


def read_token(what: str = "Private integration token (pit-...)") -> SecretStr:
    """A token from the terminal or a pipe.

    Never an option or an argument: those stand in the shell's history and in the process list.

    Raises:
        InvalidInput: none was given.
    """
    token = typer.prompt(what, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not token.strip():
        raise InvalidInput("No token was given. Type it at the prompt, or pipe it in: ... < token.txt")
    return SecretStr(token.strip())


def _told_of_token(client: registry.Client) -> str:
    if not client.has_token:
        return "missing"
    until = client.previous_token_until
    if until is None or until <= datetime.now(UTC):
        return "stored"
    return f"stored, old one until {until:%m-%d %H:%M}"


def document_of(client: registry.Client) -> dict[str, object]:
    """A client as `--json` tells it, without its tokens."""
    return {
        "id": client.id,
        "name": client.name,
        "location": client.location_id,
        "default_region": client.default_region,
        "time_zone": client.time_zone,
        "active": client.active,
        "has_token": client.has_token,
        "previous_token_until": client.previous_token_until,
        "deactivated_at": client.deactivated_at,
    }
