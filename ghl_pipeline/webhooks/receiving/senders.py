"""Who may send events: the clients' locations, their secrets and their EmailBison workspaces, in the database.

A secret proves a sender that does not sign. Its text is shown once, when it is made; the database keeps its SHA-256,
which is enough for 32 random bytes. What the receiver keeps of this in memory is in `known_senders.py`.
"""

import hashlib
import hmac
import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import Connection, delete, insert, select

from ghl_pipeline.database.tables import clients, emailbison_workspaces, webhook_secrets
from ghl_pipeline.webhooks.events import Provider

SECRET_BYTES = 32
# Compared with when there is no digest, so that an unknown location takes as long as a wrong secret.
_NOBODYS_DIGEST = hashlib.sha256(secrets.token_bytes(SECRET_BYTES)).digest()


@dataclass(frozen=True, slots=True)
class Sender:
    """A client as the receiver knows it.

    Attributes:
        digests: SHA-256 of the secrets it may use, by provider.
        workspace_id: of EmailBison; None: no event of EmailBison is its own.
    """

    client_id: int
    location_id: str
    is_active: bool
    digests: Mapping[Provider, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    workspace_id: int | None = None


def digest_of(secret: str) -> bytes:
    """What is kept of a secret. Any text has one, also half a surrogate pair."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def admits(sender: Sender | None, provider: Provider, secret: str) -> bool:
    """Whether the secret is one of the sender's for this provider; as slow for nobody as for somebody."""
    given = digest_of(secret)
    known = sender.digests.get(provider, ()) if sender is not None else ()
    # A list, not a generator: every digest is compared, wherever the right one stands.
    matches = [hmac.compare_digest(given, digest) for digest in known or (_NOBODYS_DIGEST,)]
    return any(matches) and bool(known)


def read_senders(connection: Connection) -> dict[str, Sender]:
    """Every client by its location id, deactivated ones too."""
    digests: dict[int, dict[Provider, list[bytes]]] = defaultdict(lambda: defaultdict(list))
    chosen = select(webhook_secrets.c.client_id, webhook_secrets.c.provider, webhook_secrets.c.digest)
    for client_id, provider, digest in connection.execute(chosen):
        digests[client_id][Provider(provider)].append(bytes(digest))
    query = select(
        clients.c.id, clients.c.location_id, clients.c.active, emailbison_workspaces.c.workspace_id
    ).outerjoin_from(clients, emailbison_workspaces)
    return {
        row.location_id: Sender(
            row.id,
            row.location_id,
            row.active,
            {provider: tuple(kept) for provider, kept in digests[row.id].items()},
            row.workspace_id,
        )
        for row in connection.execute(query)
    }


def create_secret(
    connection: Connection, client_id: int, provider: Provider, *, revoke_others: bool = False
) -> SecretStr:
    """Makes a secret for a client and provider; the ones it has go on counting unless they are revoked with it.

    Args:
        connection: in the caller's transaction.
        client_id: of a client that exists.
        provider: one that has secrets; GHL's own webhooks are signed.
        revoke_others: end the others at the same moment.
    """
    if revoke_others:
        connection.execute(
            delete(webhook_secrets).where(
                webhook_secrets.c.client_id == client_id, webhook_secrets.c.provider == provider.value
            )
        )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    values = {"client_id": client_id, "provider": provider.value, "digest": digest_of(secret)}
    connection.execute(insert(webhook_secrets).values(values))
    return SecretStr(secret)


def secrets_made_at(connection: Connection, client_id: int, provider: Provider) -> list[datetime]:
    """When the secrets of a client and provider were made, oldest first."""
    query = (
        select(webhook_secrets.c.created_at)
        .where(webhook_secrets.c.client_id == client_id, webhook_secrets.c.provider == provider.value)
        .order_by(webhook_secrets.c.created_at)
    )
    return list(connection.execute(query).scalars())
