"""The agency's clients: adding, listing, finding, deactivating them, and what work on a location needs to know.

Functions on a connection, in the caller's transaction. Adding refuses a client that exists; the CSV import
(`csv_import.py`) is what updates. Speaking to GHL is not done here, so a token is taken as it is given.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from zoneinfo import ZoneInfo

import phonenumbers
from pydantic import SecretStr
from sqlalchemy import Connection, Row, Select, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from ghl_pipeline.database.tables import clients, webhook_events
from ghl_pipeline.errors import ConfigurationError, InvalidInput, UnknownClient
from ghl_pipeline.privacy.redaction import redact
from ghl_pipeline.privacy.tokens import TokenCipher, TokenUnreadable

DEFAULT_REGION, DEFAULT_TIME_ZONE = "US", "UTC"
LONGEST_NAME, LONGEST_TOKEN = 200, 4000
# GHL's ids have 20 characters today, and had 15 to 24 before.
_LOCATION_ID = re.compile(r"[A-Za-z0-9]{15,64}")
_LIST = "ghl-pipeline clients list"
# A token that is stored as such, and not by a rotation, leaves nothing of the ones before it.
NO_PREVIOUS_TOKEN = {"previous_token_encrypted": None, "previous_token_until": None}


@dataclass(frozen=True, slots=True)
class Client:
    """A row of `clients`, without its tokens. `name` is unique without regard to case.

    `previous_token_until` is until when the token before the last rotation may be used; None without one.
    """

    id: int
    name: str
    location_id: str
    default_region: str
    time_zone: str
    active: bool
    settings: Mapping[str, object]
    has_token: bool
    created_at: datetime
    deactivated_at: datetime | None
    previous_token_until: datetime | None


@dataclass(frozen=True, slots=True)
class LocationAccess:
    """What work on a location needs: whose it is, the token, and how its phones and times are read.

    `previous_token` is the one before the last rotation, as long as it may be used, which is until `previous_until`.
    """

    location_id: str
    client_id: int
    client_name: str
    token: SecretStr = field(repr=False)
    default_region: str
    time_zone: str
    previous_token: SecretStr | None = field(default=None, repr=False)
    previous_until: datetime | None = None


class ClientInactive(InvalidInput):
    """The location's client is deactivated, so nothing may be done for it."""


class TokenMissing(ConfigurationError):
    """The location's client has no GHL token yet."""


def valid_name(text: str) -> str:
    """The name, trimmed. Raises `InvalidInput` for one that is blank, too long or holds control characters."""
    name = text.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"must be 1 to {LONGEST_NAME} printable characters")
    return name


def valid_location_id(text: str) -> str:
    """The location id, trimmed. Raises `InvalidInput` for what cannot be one."""
    if not _LOCATION_ID.fullmatch(text.strip()):
        raise InvalidInput("must be the GHL location (sub-account) id: 15 to 64 letters and digits, without spaces")
    return text.strip()


def valid_token(text: str) -> str:
    """The token, trimmed. Raises `InvalidInput` for what cannot stand in an HTTP header."""
    token = text.strip()
    if not token or len(token) > LONGEST_TOKEN or not re.fullmatch(r"[!-~]+", token):
        raise InvalidInput("must be the location's private integration token, without spaces or other characters")
    return token


def valid_region(text: str) -> str:
    """The region in upper case. Raises `InvalidInput` for one whose phone numbers are unknown."""
    region = text.strip().upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise InvalidInput("must be a country as two letters (ISO 3166), such as US or GB")
    return region


def valid_time_zone(text: str) -> str:
    """The time zone, trimmed. Raises `InvalidInput` for one that the IANA database does not have."""
    name = text.strip()
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path or a NUL; a folder such as "America"
        raise InvalidInput("must be an IANA time zone, such as America/New_York") from None
    return name


def add_client(
    connection: Connection,
    cipher: TokenCipher,
    *,
    name: str,
    location_id: str,
    token: SecretStr | None = None,
    default_region: str = DEFAULT_REGION,
    time_zone: str = DEFAULT_TIME_ZONE,
    settings: Mapping[str, object] | None = None,
) -> Client:
    """Add an active client. Refuses one that exists: `clients import` updates.

    Raises:
        InvalidInput: a value cannot be used, or another client has the name or the location; says which.
    """
    values: dict[str, object] = {
        "name": _checked("The client name", valid_name, name),
        "location_id": _checked("The location id", valid_location_id, location_id),
        "default_region": _checked("The region", valid_region, default_region),
        "time_zone": _checked("The time zone", valid_time_zone, time_zone),
        "settings": dict(settings or {}),
    }
    if token is not None:
        values["ghl_token_encrypted"] = encrypted_token(cipher, token)
    # Not a failed INSERT: that would cost the caller the transaction.
    added = connection.execute(insert(clients).values(values).on_conflict_do_nothing().returning(clients.c.id)).scalar()
    if added is None:
        raise _taken(connection, str(values["name"]), str(values["location_id"]))
    return _one(connection, added)


def list_clients(connection: Connection, *, active_only: bool = False) -> list[Client]:
    """All clients, or the active ones, by name."""
    chosen = _client_rows().order_by(func.lower(clients.c.name))
    return [_client(row) for row in connection.execute(chosen.where(clients.c.active) if active_only else chosen)]


def find_client(connection: Connection, which: str) -> Client:
    """The client with this location id, else with this name (without regard to case), else with this number.

    Raises:
        UnknownClient: none has; says how to see which there are.
    """
    wanted = which.replace("\x00", "").strip()
    tests = [clients.c.location_id == wanted, func.lower(clients.c.name) == func.lower(wanted)]
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        tests.append(clients.c.id == int(wanted))
    for test in tests:
        row = connection.execute(_client_rows().where(test)).one_or_none()
        if row is not None:
            return _client(row)
    raise UnknownClient(f'No client has the name, location or number "{redact(wanted[:80])}". See: {_LIST}')


def deactivate_client(connection: Connection, which: str) -> Client:
    """Stop all work for the client; its leads, token and history stay. Doing it again keeps the first date.

    Its events that wait are ignored from now on, as those that come are: what is pending is kept for as long as it
    takes, and nobody would handle these.

    Raises:
        UnknownClient: as `find_client`.
    """
    client = find_client(connection, which)
    waiting = (webhook_events.c.client_id == client.id) & (webhook_events.c.state == "pending")
    connection.execute(
        update(webhook_events).where(waiting).values(state="ignored", claimed_by=None, claimed_until=None)
    )
    if client.active:
        connection.execute(
            update(clients).where(clients.c.id == client.id).values(active=False, deactivated_at=func.now())
        )
    return _one(connection, client.id)


def reactivate_client(connection: Connection, which: str) -> Client:
    """Resume work for the client. What its events brought meanwhile: `webhooks.inbox.replays.take_up_ignored`.

    Raises:
        UnknownClient: as `find_client`.
    """
    client = find_client(connection, which)
    connection.execute(update(clients).where(clients.c.id == client.id).values(active=True, deactivated_at=None))
    return _one(connection, client.id)


def set_token(connection: Connection, cipher: TokenCipher, which: str, token: SecretStr) -> Client:
    """Store the client's GHL token, encrypted, in place of the one it has and of the one before that.

    `rotation.rotate_token` is what keeps the one it has for a while.

    Raises:
        UnknownClient: as `find_client`.
        InvalidInput: the token cannot be one.
    """
    client = find_client(connection, which)
    values = {"ghl_token_encrypted": encrypted_token(cipher, token), **NO_PREVIOUS_TOKEN}
    connection.execute(update(clients).where(clients.c.id == client.id).values(values))
    return _one(connection, client.id)


def active_locations(connection: Connection, *, with_token: bool = False) -> list[str]:
    """The location ids of all active clients, or of those that have a token, in the order in which they were added."""
    query = select(clients.c.location_id).where(clients.c.active).order_by(clients.c.id)
    if with_token:
        query = query.where(clients.c.ghl_token_encrypted.is_not(None))
    return list(connection.execute(query).scalars())


def location_access(connection: Connection, cipher: TokenCipher, location_id: str) -> LocationAccess:
    """What is needed to work on a location.

    Raises:
        UnknownClient: no client has this location.
        ClientInactive: its client is deactivated.
        TokenMissing: its client has no token.
        TokenUnreadable: the token was encrypted with another key.
    """
    row = connection.execute(
        select(clients, (clients.c.previous_token_until > func.now()).label("has_previous")).where(
            clients.c.location_id == location_id
        )
    ).one_or_none()
    if row is None:
        raise UnknownClient(
            f"No client has location {redact(location_id[:80])}. Add it with: ghl-pipeline clients add; see: {_LIST}"
        )
    if not row.active:
        raise ClientInactive(
            f"Location {location_id} belongs to client {row.id}, which is deactivated, so nothing works on it. To "
            f"resume: ghl-pipeline clients reactivate {location_id}"
        )
    if row.ghl_token_encrypted is None:
        raise TokenMissing(
            f"Location {location_id} of client {row.id} has no GHL token. Make a private integration in the location's "
            f"settings and store its token: ghl-pipeline clients set-token {location_id}"
        )
    token = cipher.decrypt(row.ghl_token_encrypted)
    previous = _previous_token(cipher, row.previous_token_encrypted) if row.has_previous else None
    return LocationAccess(
        location_id,
        row.id,
        row.name,
        token,
        row.default_region,
        row.time_zone,
        previous_token=previous,
        previous_until=row.previous_token_until if previous else None,
    )


def _previous_token(cipher: TokenCipher, encrypted: str) -> SecretStr | None:
    try:
        return cipher.decrypt(encrypted)
    except TokenUnreadable:
        return None  # the current one can be read, and is most likely all that is needed


def _checked(what: str, rule: Callable[[str], str], text: str) -> str:
    try:
        return rule(text)
    except InvalidInput as error:
        raise InvalidInput(f"{what} {error}.") from None


def encrypted_token(cipher: TokenCipher, token: SecretStr) -> str:
    """The token as it is stored. Raises `InvalidInput` for what cannot be one."""
    return cipher.encrypt(_checked("The token", valid_token, token.get_secret_value()))


def _taken(connection: Connection, name: str, location_id: str) -> InvalidInput:
    """Says who has the location or the name. The INSERT waited for that client's commit, so it can be seen now."""
    is_rival = or_(clients.c.location_id == location_id, func.lower(clients.c.name) == func.lower(name))
    by_location = (clients.c.location_id != location_id, clients.c.id)
    rival = connection.execute(_client_rows().where(is_rival).order_by(*by_location)).first()
    if rival is None:
        return InvalidInput(f"Location {location_id} was taken and given up meanwhile. Add the client again.")
    whose = f'client {rival.id} ("{rival.name}")'
    if rival.location_id != location_id:
        return InvalidInput(
            f"The name is taken by {whose}, location {rival.location_id}. Choose another name. See: {_LIST}"
        )
    return InvalidInput(
        f"Location {location_id} belongs to {whose} already. To change that client, import it: "
        f"ghl-pipeline clients import FILE.csv; otherwise correct the location id. See: {_LIST}"
    )


def _client(row: Row[*tuple[object, ...]]) -> Client:
    values = row._mapping
    return Client(**{each.name: values[each.name] for each in fields(Client)})


def _client_rows() -> Select[*tuple[object, ...]]:
    return select(clients, clients.c.ghl_token_encrypted.is_not(None).label("has_token"))


def _one(connection: Connection, client_id: int) -> Client:
    return _client(connection.execute(_client_rows().where(clients.c.id == client_id)).one())
