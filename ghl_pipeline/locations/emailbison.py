"""Each client's EmailBison workspace: where it is, which one, its token, and how far its events were looked through.

Functions on a connection, in the caller's transaction. Speaking to EmailBison is not done here (`emailbison/`).
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import Connection, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from ghl_pipeline.database.tables import clients, emailbison_workspaces
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.locations.clients import ClientInactive, find_client, valid_token
from ghl_pipeline.privacy.redaction import redact
from ghl_pipeline.privacy.tokens import TokenCipher, TokenUnreadable

_LARGEST_BIGINT = 2**63 - 1
_HOSTS_OF_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Workspace:
    """A client's workspace, without its token. `base_url` is of the instance, without `/api`."""

    client_id: int
    location_id: str
    base_url: str
    workspace_id: int
    has_token: bool
    events_seen_until: datetime | None


@dataclass(frozen=True, slots=True)
class WorkspaceAccess:
    """What work on a workspace needs. `token` is None when the client gave none: events arrive, nothing is asked."""

    client_id: int
    location_id: str
    base_url: str
    workspace_id: int
    token: SecretStr | None = field(repr=False)
    events_seen_until: datetime | None
    token_encrypted: str | None = field(default=None, repr=False)


def valid_base_url(text: str) -> str:
    """The instance's URL without a slash or `/api` at its end.

    Raises:
        InvalidInput: it is no URL to send a token to: not https (http on this machine only), or with a user, a query
            or a fragment in it.
    """
    refusal = "must be the address of the EmailBison instance, such as https://mail.example.com"
    url = text.strip().rstrip("/").removesuffix("/api").rstrip("/")
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname) and not (parts.username or parts.password or parts.query or parts.fragment)
        is_plain = is_plain and (parts.port is None or parts.port > 0)
    except ValueError:
        raise InvalidInput(refusal) from None
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HOSTS_OF_THIS_MACHINE)
    if not is_plain or not is_safe or not re.fullmatch(r"[!-~]+", url):
        raise InvalidInput(refusal)
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl()


def set_workspace(
    connection: Connection,
    cipher: TokenCipher,
    which: str,
    *,
    base_url: str,
    workspace_id: int,
    token: SecretStr | None = None,
) -> Workspace:
    """Stores which workspace is the client's, in place of the one it has.

    Args:
        connection: in the caller's transaction.
        cipher: encrypts the token.
        which: the client, as for `find_client`.
        base_url: of the instance, with or without `/api`.
        workspace_id: as EmailBison numbers it; events of any other are refused.
        token: None: the one that is stored is kept, unless the workspace is another; a token of one instance must
            never be sent to another. After another token the log is looked through from its beginning: the one before
            may have been of another workspace.

    Raises:
        UnknownClient: as `find_client`.
        InvalidInput: a value cannot be used, or another client has the workspace.
    """
    client = find_client(connection, which)
    try:
        url = valid_base_url(base_url)
    except InvalidInput as error:
        raise InvalidInput(f"The EmailBison URL {error}.") from None
    if not 0 < workspace_id <= _LARGEST_BIGINT:
        raise InvalidInput("The workspace id must be a positive number, as EmailBison shows it.")
    table = emailbison_workspaces
    owner = connection.execute(
        select(table.c.client_id).where(
            table.c.base_url == url, table.c.workspace_id == workspace_id, table.c.client_id != client.id
        )
    ).scalar()
    if owner is not None:
        raise InvalidInput(
            f"Workspace {workspace_id} of that instance belongs to client {owner} already. Correct the id, or give "
            f"that client another workspace first: ghl-pipeline clients set-emailbison {owner}"
        )
    values: dict[str, object] = {"base_url": url, "workspace_id": workspace_id}
    if token is not None:
        values["token_encrypted"] = cipher.encrypt(_valid_token(token))
        if not _has_token(connection, cipher, client.id, token):
            values["events_seen_until"] = None
    is_same = (table.c.base_url == url) & (table.c.workspace_id == workspace_id)
    adding = insert(table).values(client_id=client.id, **values)
    kept = {
        "token_encrypted": case((is_same, table.c.token_encrypted), else_=None),
        "events_seen_until": case((is_same, table.c.events_seen_until), else_=None),
    }
    connection.execute(
        adding.on_conflict_do_update(index_elements=["client_id"], set_={**kept, **values, "updated_at": func.now()})
    )
    found = find_workspace(connection, client.location_id)
    assert found is not None  # noqa: S101 - it was written above
    return found


def find_workspace(connection: Connection, location_id: str) -> Workspace | None:
    """The workspace of the location's client; None when it has none."""
    table = emailbison_workspaces
    row = connection.execute(
        select(table, table.c.token_encrypted.is_not(None).label("has_token"))
        .join(clients)
        .where(clients.c.location_id == location_id)
    ).one_or_none()
    if row is None:
        return None
    return Workspace(row.client_id, location_id, row.base_url, row.workspace_id, row.has_token, row.events_seen_until)


def workspace_access(connection: Connection, cipher: TokenCipher, location_id: str) -> WorkspaceAccess | None:
    """What is needed to work on the workspace of a location's client; None when the client has none.

    Raises:
        UnknownClient: no client has this location.
        ClientInactive: its client is deactivated.
        TokenUnreadable: the token was encrypted with another key.
    """
    table = emailbison_workspaces
    row = connection.execute(
        select(clients.c.id, clients.c.active, table)
        .outerjoin_from(clients, table)
        .where(clients.c.location_id == location_id)
    ).one_or_none()
    if row is None:
        raise UnknownClient(f"No client has location {redact(location_id[:80])}. Add it with: ghl-pipeline clients add")
    if not row.active:
        raise ClientInactive(
            f"Location {location_id} belongs to client {row.id}, which is deactivated, so nothing works on it. To "
            f"resume: ghl-pipeline clients reactivate {location_id}"
        )
    if row.base_url is None:
        return None
    token = None if row.token_encrypted is None else cipher.decrypt(row.token_encrypted)
    return WorkspaceAccess(
        row.id, location_id, row.base_url, row.workspace_id, token, row.events_seen_until, row.token_encrypted
    )


def locations_with_workspace(connection: Connection) -> list[str]:
    """The location ids of active clients with a workspace that can be asked, in the order in which they were added."""
    table = emailbison_workspaces
    query = (
        select(clients.c.location_id)
        .join(table)
        .where(clients.c.active, table.c.token_encrypted.is_not(None))
        .order_by(clients.c.id)
    )
    return list(connection.execute(query).scalars())


def events_were_seen(connection: Connection, access: WorkspaceAccess, until: datetime) -> None:
    """Notes that every event up to then is in the inbox. Never back, and not if workspace or token is another now."""
    table = emailbison_workspaces
    connection.execute(
        update(table)
        .where(
            table.c.client_id == access.client_id,
            table.c.base_url == access.base_url,
            table.c.workspace_id == access.workspace_id,
            table.c.token_encrypted.is_not_distinct_from(access.token_encrypted),
        )
        # GREATEST ignores NULL.
        .values(events_seen_until=func.greatest(table.c.events_seen_until, until), updated_at=func.now())
    )


def _has_token(connection: Connection, cipher: TokenCipher, client_id: int, token: SecretStr) -> bool:
    """Whether the client's workspace has this token; an encrypted one can be told from another only once decrypted."""
    table = emailbison_workspaces
    stored = connection.execute(select(table.c.token_encrypted).where(table.c.client_id == client_id)).scalar()
    if stored is None:
        return False
    try:
        return cipher.decrypt(stored).get_secret_value() == _valid_token(token)
    except TokenUnreadable:
        return False


def _valid_token(token: SecretStr) -> str:
    try:
        return valid_token(token.get_secret_value())
    except InvalidInput:
        raise InvalidInput("The EmailBison token must be one word without spaces, as EmailBison shows it.") from None
