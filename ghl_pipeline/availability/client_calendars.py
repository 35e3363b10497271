"""Where each client's free times come from: the table `booking_calendars`, as people set it and as work reads it.

Functions on a connection, in the caller's transaction. What the last look brought is written by `slot_store.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from pydantic import SecretStr
from sqlalchemy import Connection, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from ghl_pipeline.availability.links import LONGEST_LINK, BookingLink, read_link
from ghl_pipeline.availability.outcomes import Provider, Reason, State
from ghl_pipeline.database.tables import availability_slots, booking_calendars, clients
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.ghl.ids import is_calendar_id
from ghl_pipeline.locations.clients import ClientInactive, find_client, valid_token
from ghl_pipeline.privacy.redaction import redact
from ghl_pipeline.privacy.tokens import TokenCipher


@dataclass(frozen=True, slots=True)
class ClientCalendar:
    """A client's calendar as it is configured and as it stands. Its `repr` shows neither link nor token.

    Attributes:
        client_id: `clients.id`.
        location_id: the client's location.
        booking_link: as it was given; None: none.
        auto_booking_calendar_id: of the client's location, for when the link leads nowhere.
        calendly_token_encrypted: None when there is none.
        provider: as resolved last.
        provider_calendar_id: likewise.
        resolved_from: as `remembered_as`; None when it is not to be believed again.
        read_zone: the calendar's time zone as its provider said it last; None: it never did.
        client_zone: the client's own.
        state: how its free times stand.
        reason: why they are not fresh, as stored.
        stale_since: since when they are not.
        tried_at: when they were last looked for.
        future_slots: how many of the stored times are still to come.
    """

    client_id: int
    location_id: str
    booking_link: str | None = field(repr=False)
    auto_booking_calendar_id: str | None
    calendly_token_encrypted: str | None = field(repr=False)
    provider: Provider | None
    provider_calendar_id: str | None = field(repr=False)
    resolved_from: str | None
    read_zone: str | None
    client_zone: str
    state: State
    reason: str | None
    stale_since: datetime | None
    tried_at: datetime | None
    future_slots: int

    @property
    def link(self) -> BookingLink | None:
        """The booking link as it is understood; None when there is none."""
        return read_link(self.booking_link) if self.booking_link and self.booking_link.strip() else None

    @property
    def is_configured(self) -> bool:
        """Whether there is anything to ask for."""
        return self.link is not None or self.auto_booking_calendar_id is not None

    @property
    def digest(self) -> str:
        """Of all that a resolution starts from; what was resolved from another is not believed."""
        return digest_of(self.booking_link, self.auto_booking_calendar_id, self.calendly_token_encrypted)

    @property
    def is_remembered(self) -> bool:
        """Whether what was resolved is of the link, calendar and token that the client has."""
        return (self.resolved_from or "").partition(" ")[0] == self.digest

    def zone_of(self, provider: Provider) -> tuple[str | None, date | None]:
        """The time zone that this provider said last, and on which day (None: for another link, or nobody knows)."""
        day = _day((self.resolved_from or "").partition(" ")[2]) if self.is_remembered else None
        # A location has one zone, whatever the link; of Calendly it is that of the token's owner.
        is_its = self.provider is provider and (provider is Provider.GHL or self.is_remembered)
        return (self.read_zone, day) if is_its and self.read_zone else (None, None)


def remembered_as(calendar: ClientCalendar, zone_read_on: date) -> str:
    """What `resolved_from` is for a calendar that is to be believed again: the digest, and when its zone was read."""
    return f"{calendar.digest} {zone_read_on.isoformat()}"


def digest_of(link: str | None, calendar_id: str | None, token_encrypted: str | None) -> str:
    """MD5 of what a resolution starts from, so that the values themselves stand in no second place."""
    joined = "\x00".join(part or "" for part in (link, calendar_id, token_encrypted))
    return hashlib.md5(joined.encode(errors="replace"), usedforsecurity=False).hexdigest()


def set_calendar(
    connection: Connection,
    cipher: TokenCipher,
    which: str,
    *,
    link: str | None = None,
    calendar_id: str | None = None,
    calendly_token: SecretStr | None = None,
) -> ClientCalendar:
    """Stores where a client's free times come from; what is not given stays as it is.

    After a change the stored times are of what was before: they are stale, and the next run looks there first. A link
    that cannot be used is stored all the same, since it is what the client's leads get; the result's `link` says why.

    Args:
        connection: in the caller's transaction.
        cipher: encrypts the token.
        which: the client, as for `find_client`.
        link: the page on which leads book; empty: none any more.
        calendar_id: of the client's location, for when the link leads nowhere; empty: none any more.
        calendly_token: a personal access token of the client's Calendly account.

    Raises:
        UnknownClient: as `find_client`.
        InvalidInput: a value cannot be stored.
    """
    client = find_client(connection, which)
    values: dict[str, str | None] = {}
    if link is not None:
        values["booking_link"] = _valid_link(link)
    if calendar_id is not None:
        values["auto_booking_calendar_id"] = _valid_calendar_id(calendar_id)
    if calendly_token is not None:
        values["calendly_token_encrypted"] = cipher.encrypt(_valid_token(calendly_token))
    table = booking_calendars
    connection.execute(insert(table).values(client_id=client.id).on_conflict_do_nothing())
    before = find_calendar(connection, client.location_id)
    assert before is not None  # noqa: S101 - it was written above
    if any(getattr(before, name) != value for name, value in values.items()):
        was_looked_at = table.c.state.in_([State.FRESH, State.NO_SLOTS, State.STALE])
        connection.execute(
            update(table)
            .where(table.c.client_id == client.id)
            .values(
                **values,
                state=case((was_looked_at, State.STALE.value), else_=State.NEVER.value),
                reason=case((was_looked_at, Reason.LINK_CHANGED.value), else_=None),
                stale_since=case((was_looked_at, func.coalesce(table.c.stale_since, func.now())), else_=None),
                tried_at=None,
            )
        )
    found = find_calendar(connection, client.location_id)
    assert found is not None  # noqa: S101 - it was written above
    return found


def find_calendar(connection: Connection, location_id: str) -> ClientCalendar | None:
    """The calendar of the location's client; None when none was ever given."""
    return _one(connection, location_id)[1]


def calendar_access(connection: Connection, location_id: str) -> ClientCalendar | None:
    """What work on a location's calendar needs; None when its client has none.

    Raises:
        UnknownClient: no client has this location.
        ClientInactive: its client is deactivated.
    """
    active, found = _one(connection, location_id)
    if active is None:
        raise UnknownClient(f"No client has location {redact(location_id[:80])}. See: ghl-pipeline clients list")
    if not active:
        raise ClientInactive(
            f"Location {location_id} belongs to a client that is deactivated, so nothing works on it. To resume: "
            f"ghl-pipeline clients reactivate {location_id}"
        )
    return found


def calendar_locations(connection: Connection) -> list[str]:
    """Locations of active clients that have a link or a calendar, those first that have waited longest."""
    query = text("""
        SELECT client.location_id FROM clients AS client
        JOIN booking_calendars AS calendar ON calendar.client_id = client.id
        WHERE client.active
          AND (btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)
        ORDER BY calendar.tried_at NULLS FIRST, client.id
    """)
    return list(connection.execute(query).scalars())


def longest_waiting_first(connection: Connection, location_ids: Sequence[str]) -> list[str]:
    """The locations, each once, in the order in which they were last tried; those never tried first."""
    query = text("""
        SELECT asked.location_id
        FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS asked (location_id, position)
        LEFT JOIN clients AS client ON client.location_id = asked.location_id
        LEFT JOIN booking_calendars AS calendar ON calendar.client_id = client.id
        ORDER BY calendar.tried_at NULLS FIRST, asked.position
    """)
    return list(connection.execute(query, {"ids": list(dict.fromkeys(location_ids))}).scalars())


def never_tried_since_change(connection: Connection) -> set[str]:
    """Locations whose calendar was given or changed, here or by the dashboard, and has not been tried since."""
    tried_at, changed_at = booking_calendars.c.tried_at, booking_calendars.c.updated_at
    query = (
        select(clients.c.location_id)
        .join(booking_calendars)
        # A look writes both in one transaction, and so with one time.
        .where(clients.c.active, tried_at.is_(None) | (changed_at > tried_at))
    )
    return set(connection.execute(query).scalars())


def _one(connection: Connection, location_id: str) -> tuple[bool | None, ClientCalendar | None]:
    """Whether the location's client is active (None: nobody has the location), and its calendar."""
    table = booking_calendars
    future = (
        select(func.count())
        .where(availability_slots.c.client_id == clients.c.id, availability_slots.c.starts_at > func.now())
        .scalar_subquery()
    )
    row = connection.execute(
        select(
            clients.c.id,
            clients.c.active,
            clients.c.time_zone.label("client_zone"),
            future.label("future_slots"),
            *table.c,
        )
        .outerjoin_from(clients, table)
        .where(clients.c.location_id == location_id)
    ).one_or_none()
    if row is None:
        return None, None
    if row.client_id is None:
        return row.active, None
    return row.active, ClientCalendar(
        client_id=row.id,
        location_id=location_id,
        booking_link=row.booking_link,
        auto_booking_calendar_id=row.auto_booking_calendar_id,
        calendly_token_encrypted=row.calendly_token_encrypted,
        provider=None if row.provider is None else Provider(row.provider),
        provider_calendar_id=row.provider_calendar_id,
        resolved_from=row.resolved_from,
        read_zone=row.time_zone,
        client_zone=row.client_zone,
        state=State(row.state),
        reason=row.reason,
        stale_since=row.stale_since,
        tried_at=row.tried_at,
        future_slots=row.future_slots,
    )


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _valid_link(text: str) -> str | None:
    link = text.strip()
    if len(link) > LONGEST_LINK or not link.isprintable():
        raise InvalidInput(f"The booking link must be one line of at most {LONGEST_LINK} characters.")
    return link or None


def _valid_calendar_id(text: str) -> str | None:
    calendar_id = text.strip()
    if calendar_id and not is_calendar_id(calendar_id):
        raise InvalidInput("The calendar must be the id of a GHL calendar: 18 to 64 letters and digits.")
    return calendar_id or None


def _valid_token(token: SecretStr) -> str:
    try:
        return valid_token(token.get_secret_value())
    except InvalidInput:
        raise InvalidInput("The Calendly token must be one word without spaces, as Calendly shows it.") from None
