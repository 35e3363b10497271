"""`ghl-pipeline clients set-token` and `rotate-token`: the token of a client's location."""

import asyncio
from typing import Annotated

import typer

from ghl_pipeline.cli.clients import Json, Which, document_of, read_token
from ghl_pipeline.cli.output import out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.locations import clients as registry
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.locations.rotation import begin_rotation, store_rotation, tried, untried
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import load_settings


def set_token(which: Which, json: Json = False) -> None:
    """Store a new private integration token; asked for, or read from stdin when that is no terminal.

    The one before is forgotten at once: for a token that was revoked. `rotate-token` keeps it for a while.
    """
    settings = load_settings()
    token = read_token()
    with database(settings) as engine, engine.begin() as connection:
        client = registry.set_token(connection, TokenCipher.from_settings(settings), which, token)
    if json:
        print_json(document_of(client))
    else:
        out.print(f"Stored a new token for client {client.id}.")


def rotate_token(
    which: Which,
    no_check: Annotated[bool, typer.Option("--no-check", help="Store the token without trying it at GHL.")] = False,
    json: Json = False,
) -> None:
    """Store a rotated token, and keep the old one for the 7 days in which GHL still takes it.

    The new token is asked for, or read from stdin when that is no terminal; it is tried at GHL first. While it is
    refused, work on the location uses the old one.
    """
    settings = load_settings()
    token = read_token("New private integration token (pit-...)")
    with database(settings) as engine:
        cipher = TokenCipher.from_settings(settings)
        with engine.connect() as connection:
            rotation = begin_rotation(connection, cipher, which, token)
        if no_check:
            rotation = untried(rotation)
        else:
            try:
                rotation = asyncio.run(tried(rotation, client_opener(settings, engine, interactive=True)))
            except GhlError as error:
                error.args = (f"{error}. Nothing was stored. To store the token untried, add --no-check",)
                raise
        with engine.begin() as connection:
            until = store_rotation(connection, cipher, rotation)
    access = rotation.access
    if json:
        document = {"id": access.client_id, "location": access.location_id, "previous_token_until": until}
        print_json({**document, "checked": not no_check})
    else:
        checked = "untried" if no_check else "which GHL takes"
        out.print(
            f"Stored a new token for client {access.client_id}, {checked}. The old one stays in reserve until "
            f"{until:%Y-%m-%d %H:%M} UTC. To see which one works: ghl-pipeline doctor --location {access.location_id}"
        )
