"""Bodies and refusals in the shapes of GHL's answers. What to answer is decided elsewhere.

Search items and single contacts differ, and empty fields are sometimes null, sometimes missing, as seen live; which of
the two a contact gets follows from its id, so an answer never changes by itself.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from ghl_pipeline.sandbox.contacts import Contact, SortValue

JsonObject = dict[str, object]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ERRORS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    413: "Payload Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
}


@dataclass(frozen=True)
class Answer:
    """A status and the JSON object to send with it."""

    body: JsonObject
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """Ends the handling of a request with an error answer; never leaves the sandbox."""

    def __init__(self, status: int, message: str | Sequence[str], meta: JsonObject | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.message = message
        self.meta = meta

    def answer(self) -> Answer:
        """The refusal as GHL's error body: `statusCode`, `message`, and `error` where GHL names one."""
        body: JsonObject = {"statusCode": self.status, "message": self.message}
        if self.status in _ERRORS:
            body["error"] = _ERRORS[self.status]
        if self.meta is not None:
            body["meta"] = self.meta
        return Answer(body, self.status)


def bad_request(message: str) -> Refusal:
    """400 with a text."""
    return Refusal(400, message)


def unprocessable(*messages: str) -> Refusal:
    """422 with a list of violations."""
    return Refusal(422, list(messages))


def encode(body: JsonObject) -> bytes:
    """The body as JSON, with the `traceId` that GHL gives every answer."""
    return msgspec.json.encode({**body, "traceId": str(uuid.uuid4())})


def iso_time(milliseconds: int) -> str:
    """Epoch milliseconds as GHL writes times: `2026-04-01T00:00:00.000Z`."""
    # By hand, because a page holds a thousand of them: three times faster than a datetime's isoformat.
    days, rest = divmod(milliseconds, 86_400_000)
    seconds, fraction = divmod(rest, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{_day(days)}T{hours:02d}:{minutes:02d}:{seconds:02d}.{fraction:03d}Z"


def moment(milliseconds: int) -> str:
    """Epoch milliseconds as EmailBison and Calendly write times, with six digits: `2026-04-01T00:00:00.000000Z`."""
    return f"{iso_time(milliseconds)[:-1]}000Z"


@lru_cache(maxsize=4096)
def _day(days: int) -> str:
    return (_EPOCH.date() + timedelta(days=days)).isoformat()


def search_item(
    contact: Contact,
    location_id: str,
    cursor: Sequence[SortValue],
    *,
    opportunities: Sequence[JsonObject] = (),
    lower_case_names_only: bool = False,
) -> JsonObject:
    """A contact as the search shows it: `address`, a numeric `dateOfBirth`, and the `searchAfter` that follows it."""
    item: JsonObject = {
        "id": contact.id,
        "locationId": location_id,
        "firstNameLowerCase": _lower(contact.first_name),
        "lastNameLowerCase": _lower(contact.last_name),
        "contactName": _lower(contact.name),
        "email": contact.email,
        "phone": contact.phone,
        "phoneLabel": None,
        "companyName": contact.company_name,
        "businessId": None,
        "businessName": contact.company_name,
        "type": contact.type,
        "source": contact.source,
        "assignedTo": contact.assigned_to,
        "tags": contact.tags,
        "followers": (),
        "dnd": contact.dnd,
        "dndSettings": {},
        "inboundDndSettings": None,
        "address": contact.address1,
        "city": contact.city,
        "state": contact.state,
        "postalCode": contact.postal_code,
        "country": contact.country,
        "website": contact.website,
        "timezone": contact.time_zone,
        "dateOfBirth": _epoch_date(contact.date_of_birth),
        "validEmail": contact.valid_email,
        "additionalEmails": _additional_emails(contact, as_objects=ord(contact.id[-1]) & 2 == 0),
        "additionalPhones": contact.additional_phones,
        "customFields": _custom_fields(contact),
        "opportunities": opportunities,
        "dateAdded": iso_time(contact.date_added),
        "dateUpdated": iso_time(contact.date_updated),
        "searchAfter": cursor,
    }
    if not lower_case_names_only:
        item["firstName"] = contact.first_name
        item["lastName"] = contact.last_name
    return _with_gaps(item, contact)


def full_contact(contact: Contact, location_id: str) -> JsonObject:
    """A contact as GET, create, update, upsert and the duplicate lookup show it."""
    item: JsonObject = {
        "id": contact.id,
        "locationId": location_id,
        "name": contact.name or None,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "firstNameLowerCase": _lower(contact.first_name),
        "lastNameLowerCase": _lower(contact.last_name),
        "fullNameLowerCase": _lower(contact.name),
        "email": contact.email,
        "emailLowerCase": _lower(contact.email),
        "phone": contact.phone,
        "companyName": contact.company_name,
        "type": contact.type,
        "source": contact.source,
        "assignedTo": contact.assigned_to,
        "tags": contact.tags,
        "dnd": contact.dnd,
        "dndSettings": {},
        "address1": contact.address1,
        "city": contact.city,
        "state": contact.state,
        "postalCode": contact.postal_code,
        "country": contact.country,
        "website": contact.website,
        "timezone": contact.time_zone,
        "dateOfBirth": contact.date_of_birth and f"{contact.date_of_birth}T00:00:00.000Z",
        "additionalEmails": _additional_emails(contact, as_objects=True),
        "customFields": _custom_fields(contact),
        "dateAdded": iso_time(contact.date_added),
        "dateUpdated": iso_time(contact.date_updated),
        "createdBy": {
            "source": "CONTACT_IMPORT",
            "channel": "APP",
            "sourceId": "",
            "sourceName": "",
            "timestamp": iso_time(contact.date_added),
        },
    }
    return _with_gaps(item, contact)


def list_item(contact: Contact, location_id: str) -> JsonObject:
    """A contact as the deprecated list shows it."""
    return {**full_contact(contact, location_id), "contactName": _lower(contact.name), "followers": ()}


def _with_gaps(item: JsonObject, contact: Contact) -> JsonObject:
    if ord(contact.id[-1]) & 1 == 0:
        return item
    return {name: value for name, value in item.items() if value is not None}


def _lower(text: str | None) -> str | None:
    return text.lower() if text else None


def _epoch_date(day: str | None) -> int | None:
    if day is None:
        return None
    return (date.fromisoformat(day) - _EPOCH.date()) // timedelta(milliseconds=1)


def _additional_emails(contact: Contact, *, as_objects: bool) -> Sequence[object]:
    if not as_objects:
        return contact.additional_emails
    return [{"email": email, "validEmail": None} for email in contact.additional_emails]


def _custom_fields(contact: Contact) -> list[JsonObject]:
    return [{"id": field_id, "value": value} for field_id, value in contact.custom_fields]
