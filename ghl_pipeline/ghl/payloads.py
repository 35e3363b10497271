"""GHL's JSON as typed values, tolerant of what it really sends.

`Contact` is the one shape the rest of the project sees, whether it came from a search (lower-case names beside the real
ones, `additionalEmails` as strings), a GET or a duplicate lookup. Only what the project uses is read; everything else
GHL sends is skipped by the decoder without being built.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from ghl_pipeline.ghl.contact_details import ContactDetails, read_details
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.json_text import read_json

# Numbers turn up where text is documented (a name "007", a phone saved by an import as a number).
Scalar: TypeAlias = str | int | float | bool | None


class Contact(msgspec.Struct, frozen=True, gc=False):
    """A person's record in GHL, cleaned: no blank texts, no NUL bytes.

    A struct, because a page has 500 of them: a frozen dataclass takes twelve times as long to make. Outside the garbage
    collector (`gc=False`), as are the wire's structs: decoded JSON has no cycles, and looking for some in every page is
    a quarter of the time.

    `names_are_whole` is False when the answer had only the lower-cased names, as older search answers do; the real
    spelling then needs a GET. `details` are read where they were asked for.
    """

    id: str
    email: str | None = None
    additional_emails: tuple[str, ...] = ()
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    company_name: str | None = None
    date_updated: datetime | None = None
    names_are_whole: bool = True
    date_added: datetime | None = None
    details: ContactDetails | None = None


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One answer of the contacts search.

    `next_cursor` is the last item's `searchAfter`, None when the page was empty or carried none. `unreadable` counts
    items that were not contacts; they are left out and nothing else of the page is lost. `total` is None when GHL did
    not say it.
    """

    contacts: tuple[Contact, ...]
    total: int | None
    next_cursor: tuple[object, ...] | None
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Location:
    """A sub-account: what the doctor and the plan want to know of it."""

    id: str
    time_zone: str | None
    country: str | None
    allows_duplicate_contacts: bool | None


@dataclass(frozen=True, slots=True)
class User:
    """A member of the client's staff. Never a lead."""

    id: str
    email: str | None
    phone: str | None


class _WireCursor(msgspec.Struct, rename="camel", gc=False):
    search_after: object = None


class _WireContact(_WireCursor, rename="camel", kw_only=True, gc=False):
    # An id is a key of ours: without one, or with a character no column takes, there is no contact to speak of.
    id: Annotated[str, msgspec.Meta(pattern=r"^[^\s\x00]+$")]
    email: Scalar = None
    email_lower_case: Scalar = None
    additional_emails: object = None
    phone: Scalar = None
    first_name: Scalar = None
    last_name: Scalar = None
    first_name_lower_case: Scalar = None
    last_name_lower_case: Scalar = None
    company_name: Scalar = None
    business_name: Scalar = None
    date_updated: Scalar = None
    date_added: Scalar = None


class _WireDetailed(_WireContact, rename="camel", kw_only=True, gc=False):
    type: object = None
    source: object = None
    tags: object = None
    custom_fields: object = None
    address: object = None
    address1: object = None
    city: object = None
    state: object = None
    postal_code: object = None
    country: object = None
    opportunities: object = None


class _WireSearch(msgspec.Struct):
    contacts: list[_WireContact]
    total: Scalar = None


class _WireDetailedSearch(msgspec.Struct):
    contacts: list[_WireDetailed]
    total: Scalar = None


class _WireSearchItems(msgspec.Struct):
    contacts: list[msgspec.Raw]
    total: Scalar = None


class _WireContactAnswer(msgspec.Struct):
    contact: _WireContact | None = None


class _WireDetailedAnswer(msgspec.Struct):
    contact: _WireDetailed | None = None


class _WireSettings(msgspec.Struct, rename="camel"):
    allow_duplicate_contact: bool | None = None


class _WireLocation(msgspec.Struct):
    id: str
    timezone: Scalar = None
    country: Scalar = None
    settings: _WireSettings | None = None


class _WireLocationAnswer(msgspec.Struct):
    location: _WireLocation


class _WireUser(msgspec.Struct):
    id: str
    email: Scalar = None
    phone: Scalar = None


class _WireUsers(msgspec.Struct):
    users: list[_WireUser]


class _WireMeta(msgspec.Struct, rename="camel"):
    contact_id: Scalar = None


class _WireError(msgspec.Struct, rename="camel"):
    message: object = None
    trace_id: Scalar = None
    meta: object = None


_WirePage = TypeVar("_WirePage", _WireSearch, _WireDetailedSearch)
_AnyWireContact = TypeVar("_AnyWireContact", bound=_WireContact)

_search_decoder = msgspec.json.Decoder(_WireSearch)
_detailed_search_decoder = msgspec.json.Decoder(_WireDetailedSearch)
_items_decoder = msgspec.json.Decoder(_WireSearchItems)
_contact_decoder = msgspec.json.Decoder(_WireContact)
_detailed_decoder = msgspec.json.Decoder(_WireDetailed)
_cursor_decoder = msgspec.json.Decoder(_WireCursor)
_answer_decoder = msgspec.json.Decoder(_WireContactAnswer)
_detailed_answer_decoder = msgspec.json.Decoder(_WireDetailedAnswer)
_location_decoder = msgspec.json.Decoder(_WireLocationAnswer)
_users_decoder = msgspec.json.Decoder(_WireUsers)
_error_decoder = msgspec.json.Decoder(_WireError)

# GHL's trace ids are UUIDs. Anything else in their place could be anybody's data, and error texts show them.
_TRACE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def clean_text(value: Scalar) -> str | None:
    """Text without NUL bytes (PostgreSQL refuses them) and surrounding space; None when nothing is left."""
    if isinstance(value, str):
        return value.replace("\x00", "").strip() or None
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a phone saved as 13055550123.0 has no twelfth digit
    return str(value)


def decode_search(body: bytes, *, detailed: bool = False) -> SearchPage:
    """Reads an answer of `POST /contacts/search`. Raises msgspec.DecodeError when the body is not such an answer.

    Args:
        body: the answer.
        detailed: whether the contacts' details are read too.
    """
    wire = _page(body, _detailed_search_decoder) if detailed else _page(body, _search_decoder)
    if wire is None:
        return _decode_items(body, _detailed_decoder) if detailed else _decode_items(body, _contact_decoder)
    cursor = _cursor(wire.contacts[-1]) if wire.contacts else None
    return SearchPage(tuple(map(_contact, wire.contacts)), whole_number(wire.total), cursor)


def _page(body: bytes, decoder: msgspec.json.Decoder[_WirePage]) -> _WirePage | None:
    """The page in one go, as nearly every page can be read; None when anything is amiss with any item."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode_items(body: bytes, decoder: msgspec.json.Decoder[_AnyWireContact]) -> SearchPage:
    """Reads a page item by item, so that a broken one loses only itself."""
    wire = read_json(_items_decoder, body)
    contacts: list[Contact] = []
    cursor: tuple[object, ...] | None = None
    unreadable = 0
    for raw in wire.contacts:
        try:
            item = read_json(decoder, raw)
        except msgspec.DecodeError:
            unreadable += 1
            cursor = _cursor_of(raw)
            continue
        contacts.append(_contact(item))
        cursor = _cursor(item)
    return SearchPage(tuple(contacts), whole_number(wire.total), cursor, unreadable)


def decode_contact(body: bytes) -> Contact | None:
    """Reads `{"contact": {...} | null}`. Raises msgspec.DecodeError when the body is something else."""
    wire = read_json(_answer_decoder, body).contact
    return None if wire is None else _contact(wire)


def decode_detailed_contact(body: bytes) -> Contact | None:
    """As `decode_contact`, with the details."""
    wire = read_json(_detailed_answer_decoder, body).contact
    return None if wire is None else _contact(wire)


def decode_location(body: bytes) -> Location:
    """Reads an answer of `GET /locations/{id}`. Raises msgspec.DecodeError when the body is something else."""
    wire = read_json(_location_decoder, body).location
    duplicates = wire.settings.allow_duplicate_contact if wire.settings else None
    return Location(wire.id, clean_text(wire.timezone), clean_text(wire.country), duplicates)


def decode_users(body: bytes) -> tuple[User, ...]:
    """Reads an answer of `GET /users/`. Raises msgspec.DecodeError when the body is something else."""
    return tuple(User(u.id, clean_text(u.email), clean_text(u.phone)) for u in read_json(_users_decoder, body).users)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The parts of an error answer that are looked at: `message` as one text, the trace id, a duplicate's contact.

    Only the message can hold anything of a person: an id that does not look like one is dropped.
    """

    message: str = ""
    trace_id: str | None = None
    duplicate_of: str | None = None


def decode_error(body: bytes) -> ErrorBody:
    """Reads any error answer; what cannot be read counts as empty (a proxy's HTML page is no reason to crash)."""
    try:
        wire = read_json(_error_decoder, body)
    except msgspec.DecodeError:
        return ErrorBody()
    parts = wire.message if isinstance(wire.message, list) else [wire.message]
    message = "; ".join(str(part) for part in parts if part is not None)
    try:
        duplicate = clean_text(msgspec.convert(wire.meta, _WireMeta).contact_id) if wire.meta is not None else None
    except msgspec.ValidationError:
        duplicate = None
    trace_id = clean_text(wire.trace_id)
    return ErrorBody(
        message,
        trace_id if trace_id and _TRACE_ID.fullmatch(trace_id) else None,
        duplicate if is_contact_id(duplicate) else None,
    )


def _cursor(item: _WireCursor) -> tuple[object, ...] | None:
    return tuple(item.search_after) if isinstance(item.search_after, list) and item.search_after else None


def _cursor_of(raw: msgspec.Raw) -> tuple[object, ...] | None:
    """The cursor of an item that is no contact; without it the pages after would be counted wrongly, or lost."""
    try:
        return _cursor(read_json(_cursor_decoder, raw))
    except msgspec.DecodeError:
        return None


def whole_number(value: Scalar) -> int | None:
    """A count, also written as text; None for anything else."""
    text = clean_text(value)
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _contact(wire: _WireContact) -> Contact:
    first, last = clean_text(wire.first_name), clean_text(wire.last_name)
    return Contact(
        id=wire.id,
        email=clean_text(wire.email) or clean_text(wire.email_lower_case),
        additional_emails=tuple(_additional_emails(wire.additional_emails)),
        phone=clean_text(wire.phone),
        first_name=first,
        last_name=last,
        company_name=clean_text(wire.company_name) or clean_text(wire.business_name),
        date_updated=moment_of(wire.date_updated),
        names_are_whole=bool(
            first or last or not (clean_text(wire.first_name_lower_case) or clean_text(wire.last_name_lower_case))
        ),
        date_added=moment_of(wire.date_added),
        details=read_details(wire) if isinstance(wire, _WireDetailed) else None,
    )


def _additional_emails(value: object) -> Sequence[str]:
    """`additionalEmails` is a list of strings in the documentation and of `{email, ...}` objects in live answers."""
    if not value or not isinstance(value, list):
        return ()
    entries = (entry.get("email") if isinstance(entry, dict) else entry for entry in value)
    return [text for entry in entries if isinstance(entry, str) and (text := clean_text(entry))]


def moment_of(value: Scalar) -> datetime | None:
    """Dates come as ISO 8601 text, in places as epoch milliseconds. Unreadable ones count as absent."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None
