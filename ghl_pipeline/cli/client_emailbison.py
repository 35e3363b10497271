"""`ghl-pipeline clients set-emailbison`: which EmailBison workspace is a client's."""

from typing import Annotated

import typer
from pydantic import SecretStr

from ghl_pipeline.cli.clients import Json, Which, read_token
from ghl_pipeline.cli.output import out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.locations.emailbison import set_workspace
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import load_settings


def set_emailbison(
    which: Which,
    url: Annotated[str, typer.Option(help="Of the EmailBison instance, such as https://send.example.com.")],
    workspace: Annotated[int, typer.Option(min=1, help="Id of the client's workspace; others' events are refused.")],
    without_token: Annotated[
        bool,
        typer.Option(
            "--without-token",
            help="Ask for no token. The one stored for this workspace stays; without any, lost events stay lost.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Store a client's EmailBison workspace; its token is asked for, or read from stdin when that is no terminal."""
    settings = load_settings()
    token: SecretStr | None = None if without_token else read_token("EmailBison API token")
    with database(settings) as engine, engine.begin() as connection:
        cipher = TokenCipher.from_settings(settings)
        stored = set_workspace(connection, cipher, which, base_url=url, workspace_id=workspace, token=token)
    if json:
        document = {
            "client": stored.client_id,
            "location": stored.location_id,
            "url": stored.base_url,
            "workspace": stored.workspace_id,
            "has_token": stored.has_token,
        }
        print_json(document)
        return
    out.print(
        f"Stored workspace {stored.workspace_id} for client {stored.client_id}. Next: ghl-pipeline clients webhook-url "
        f"{stored.location_id} --provider emailbison"
    )
