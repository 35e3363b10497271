"""A client's token replaced by a new one, with the old one in reserve for as long as GHL may take it.

A private integration's token that is rotated "to expire later" is valid for 7 more days (HighLevel's help, article
155000003054). The new one is tried before it is stored: a mistake in copying must not stop a client.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import Connection, func, select, update

from ghl_pipeline.database.encrypted_values import KEEPS_TIME
from ghl_pipeline.database.tables import clients
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.errors import LocationAccessDenied, ScopeMissing, TokenRejected
from ghl_pipeline.ghl.search import ContactSearch
from ghl_pipeline.locations.clients import (
    NO_PREVIOUS_TOKEN,
    LocationAccess,
    encrypted_token,
    find_client,
    location_access,
    valid_token,
)
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.privacy.tokens import TokenCipher

OVERLAP = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation would do: store `new`, and keep `kept` until `kept_until` (None: for the whole overlap)."""

    access: LocationAccess
    new: SecretStr
    kept: SecretStr
    kept_until: datetime | None = None


def begin_rotation(connection: Connection, cipher: TokenCipher, which: str, new: SecretStr) -> Rotation:
    """The rotation of a client's token, nothing of it done yet.

    Raises:
        UnknownClient, ClientInactive, TokenMissing, TokenUnreadable: as `location_access`.
        InvalidInput: the token cannot be one, or is the one that is stored.
    """
    client = find_client(connection, which)
    access = location_access(connection, cipher, client.location_id)
    try:
        token = SecretStr(valid_token(new.get_secret_value()))
    except InvalidInput as error:
        raise InvalidInput(f"The token {error}.") from None
    if token == access.token:
        raise InvalidInput(
            f"Client {client.id} has this token already, so nothing was changed. Rotate the token in the sub-account's "
            "settings under Private Integrations, and give the new one"
        )
    return Rotation(access, token, access.token)


async def tried(rotation: Rotation, open_client: OpenClient) -> Rotation:
    """The same rotation, after its token was tried at GHL: one call, or two where the scope for the first is missing.

    Where a token from an earlier rotation is there still, the current one is tried, too: when GHL refuses it, that
    other one is kept, because it is what the location works with.

    Raises:
        InvalidInput: GHL refused the new token, or it is another location's.
        GhlError: GHL did not answer; nothing is known of the token.
    """
    access = rotation.access
    try:
        await _ask(access, rotation.new, open_client)
    except TokenRejected:
        raise InvalidInput(
            f"Location {access.location_id}: GHL refused the new token, so nothing was stored. Copy it again from the "
            "sub-account's private integration; to store it nevertheless, add --no-check"
        ) from None
    except LocationAccessDenied:
        raise InvalidInput(
            f"Location {access.location_id}: GHL says that the new token is of another location, so nothing was "
            "stored. Rotate the token in the sub-account of this location and give that one"
        ) from None
    if access.previous_token is None:
        return rotation
    try:
        await _ask(access, access.token, open_client)
    except (TokenRejected, LocationAccessDenied):
        return replace(rotation, kept=access.previous_token, kept_until=access.previous_until)
    return rotation


def untried(rotation: Rotation) -> Rotation:
    """The same rotation, of a token that cannot be tried because GHL does not answer.

    Raises:
        InvalidInput: two tokens are stored already. One of them would go, and it may be the one that works.
    """
    access = rotation.access
    if access.previous_token is not None:
        raise InvalidInput(
            f"Location {access.location_id} was given a new token lately, and its old one is in reserve until "
            f"{access.previous_until:%Y-%m-%d %H:%M} UTC. A third one, untried, could push out the one that works, so "
            "nothing was stored. Run the command without --no-check when GHL answers; or, if you are sure of the new "
            "token, store it alone with `ghl-pipeline clients set-token`"
        )
    return rotation


async def _ask(access: LocationAccess, token: SecretStr, open_client: OpenClient) -> None:
    only = replace(access, token=token, previous_token=None, previous_until=None)
    async with open_client(only) as client:
        try:
            await client.location()
        except ScopeMissing:
            try:
                await client.search_contacts(ContactSearch(page_limit=1))
            except ScopeMissing:
                return  # GHL knows the token, and it is this location's business which scopes it has


def store_rotation(connection: Connection, cipher: TokenCipher, rotation: Rotation) -> datetime:
    """Stores the new token and keeps the old one, encrypted, for the overlap.

    Returns:
        Until when the old one may be used.

    Raises:
        InvalidInput: somebody else stored a token since the rotation began; nothing is changed.
    """
    access = rotation.access
    row = connection.execute(
        select(clients.c.ghl_token_encrypted, clients.c.previous_token_until)
        .where(clients.c.id == access.client_id)
        .with_for_update()
    ).one_or_none()
    stored = None if row is None or row.ghl_token_encrypted is None else cipher.decrypt(row.ghl_token_encrypted)
    if stored != access.token:
        raise InvalidInput(
            f"The token of client {access.client_id} was changed by somebody else meanwhile, so nothing was stored. "
            "See which token is the right one and run the command again"
        )
    until: datetime = connection.execute(
        update(clients)
        .where(clients.c.id == access.client_id)
        .values(
            ghl_token_encrypted=encrypted_token(cipher, rotation.new),
            previous_token_encrypted=encrypted_token(cipher, rotation.kept),
            previous_token_until=rotation.kept_until or func.now() + OVERLAP,
        )
        .returning(clients.c.previous_token_until)
    ).scalar_one()
    return until


def forget_previous_tokens(connection: Connection, *, dry_run: bool = False) -> int:
    """Deletes the tokens whose overlap is over, or only counts them; returns of how many clients. For a daily run."""
    over = clients.c.previous_token_until <= func.now()
    if dry_run:
        return connection.execute(select(func.count()).select_from(clients).where(over)).scalar_one()
    connection.execute(KEEPS_TIME)
    return connection.execute(update(clients).where(over).values(NO_PREVIOUS_TOKEN)).rowcount
