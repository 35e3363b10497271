"""Calendly's answers as values: who the token's owner is, event types, and their free times."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token it is. URIs are Calendly's ids; `organization` and `time_zone` are None when it does not say them."""

    user: str
    organization: str | None
    time_zone: str | None


@dataclass(frozen=True, slots=True)
class EventType:
    """Something that can be booked. Its `repr` shows no link."""

    uri: str
    is_active: bool
    scheduling_url: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class EventTypePage:
    """One answer of the list. `next_page_token` is None after the last page."""

    event_types: tuple[EventType, ...]
    next_page_token: str | None


class _WireUser(msgspec.Struct):
    uri: str
    current_organization: str | None = None
    timezone: str | None = None


class _WireMe(msgspec.Struct):
    resource: _WireUser


class _WireEventType(msgspec.Struct):
    uri: str
    active: bool = True
    scheduling_url: str | None = None


class _WirePagination(msgspec.Struct):
    next_page_token: str | None = None


class _WireEventTypes(msgspec.Struct):
    collection: list[_WireEventType]
    pagination: _WirePagination | None = None


class _WireTime(msgspec.Struct):
    start_time: datetime
    status: str = "available"
    # Absent in old answers; 0 in none that was seen, and then it is not free.
    invitees_remaining: int | None = None


class _WireTimes(msgspec.Struct):
    collection: list[_WireTime]


_me_decoder = msgspec.json.Decoder(_WireMe)
_types_decoder = msgspec.json.Decoder(_WireEventTypes)
_times_decoder = msgspec.json.Decoder(_WireTimes)


def decode_me(body: bytes) -> Account:
    """Reads `GET /users/me`. Raises msgspec.DecodeError when it is something else."""
    user = _me_decoder.decode(body).resource
    return Account(user.uri, user.current_organization, user.timezone)


def decode_event_types(body: bytes) -> EventTypePage:
    """Reads a page of `GET /event_types`. Raises msgspec.DecodeError when it is something else."""
    wire = _types_decoder.decode(body)
    found = tuple(EventType(each.uri, each.active, each.scheduling_url) for each in wire.collection)
    return EventTypePage(found, (wire.pagination.next_page_token or None) if wire.pagination else None)


def decode_available_times(body: bytes) -> tuple[datetime, ...]:
    """Reads `GET /event_type_available_times`: the free times, aware, UTC.

    Raises:
        msgspec.DecodeError: it is something else. A time without a zone is UTC, as all of Calendly's are.
    """
    return tuple(
        each.start_time.astimezone(UTC) if each.start_time.tzinfo else each.start_time.replace(tzinfo=UTC)
        for each in _times_decoder.decode(body).collection
        if each.status == "available" and each.invitees_remaining != 0
    )
