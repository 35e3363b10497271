"""`ghl-pipeline clients webhook-url`: where a client's events are sent, and the secrets that let them in."""

from enum import StrEnum
from typing import Annotated, assert_never

import typer

from ghl_pipeline.cli.clients import Json, Which
from ghl_pipeline.cli.output import err, out, print_json
from ghl_pipeline.cli.session import database
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import find_client
from ghl_pipeline.settings import load_settings
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving.receiver import SECRET_HEADER, SECRET_PATHS
from ghl_pipeline.webhooks.receiving.senders import create_secret, secrets_made_at
from ghl_pipeline.webhooks.receiving.serving import DEFAULT_PORT


class SecretSender(StrEnum):
    """Senders that prove themselves with a secret, as they are typed."""

    GHL_WORKFLOW = "ghl-workflow"
    EMAILBISON = "emailbison"

    @property
    def provider(self) -> Provider:
        """The provider of the events."""
        match self:
            case SecretSender.GHL_WORKFLOW:
                return Provider.GHL_WORKFLOW
            case SecretSender.EMAILBISON:
                return Provider.EMAILBISON
            case _:
                assert_never(self)


_WHERE_TO_PASTE = {
    Provider.GHL_WORKFLOW: "the Webhook or Custom Webhook action of a workflow of this location",
    Provider.EMAILBISON: "a webhook of this client's EmailBison workspace",
}


def webhook_url(
    which: Which,
    provider: Annotated[SecretSender, typer.Option(help="Who will send.")] = SecretSender.GHL_WORKFLOW,
    new_secret: Annotated[bool, typer.Option("--new-secret", help="Make another secret.")] = False,
    revoke_others: Annotated[
        bool, typer.Option("--revoke-others", help="With --new-secret: end the others at once.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the URL to which a client's events are sent. It holds a secret, which is shown once, when it is made."""
    if revoke_others and not new_secret:
        raise InvalidInput("--revoke-others goes with --new-secret: the URL in use would end without a successor.")
    settings = load_settings()
    base = (settings.webhook_public_url or f"http://127.0.0.1:{DEFAULT_PORT}").rstrip("/")
    sender = provider.provider
    with database(settings) as engine, engine.begin() as connection:
        client = find_client(connection, which)
        made_at = secrets_made_at(connection, client.id, sender)
        secret = None
        if new_secret or not made_at:
            secret = create_secret(connection, client.id, sender, revoke_others=revoke_others)
            made_at = secrets_made_at(connection, client.id, sender)
    without_secret = f"{base}{SECRET_PATHS[sender]}/{client.location_id}"
    url = f"{without_secret}/{secret.get_secret_value()}" if secret is not None else None
    if json:
        document = {
            "client": client.id,
            "location": client.location_id,
            "provider": provider.value,
            "url": url,
            "url_without_secret": without_secret,
            "secret_header": SECRET_HEADER,
            "secrets_made_at": made_at,
        }
        print_json(document)
        return
    again = f"ghl-pipeline clients webhook-url {client.location_id} --provider {provider.value} --new-secret"
    if url is None:
        last = f"{made_at[-1]:%Y-%m-%d %H:%M} UTC"
        out.print(f"{without_secret}/SECRET", markup=False)
        err.print(
            f"{len(made_at)} secret(s) exist, the last made on {last}; none is shown twice. Another one: {again}. With "
            "--revoke-others the old ones end at the same moment, without it both count until then.",
            soft_wrap=True,
            markup=False,
        )
        return
    out.print(url, markup=False)
    err.print(
        f"Paste it into {_WHERE_TO_PASTE[sender]}. The secret in it is not shown again. The last part may be "
        f"left out and sent as the header {SECRET_HEADER} instead. {len(made_at)} secret(s) count now.",
        soft_wrap=True,
        markup=False,
    )
    if settings.webhook_public_url is None:
        err.print(
            f"That is this machine's own address and the receiver's default port, {DEFAULT_PORT}. Set "
            "WEBHOOK_PUBLIC_URL to where the receiver is reached from outside.",
            soft_wrap=True,
        )
