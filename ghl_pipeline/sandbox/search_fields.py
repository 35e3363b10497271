"""The fields a search may filter on: which operators each takes, and the values a contact has for it.

The table is that of HighLevel's page "Contacts Search API". The sandbox's people have no followers, workflows,
appointments or opened e-mails, so these fields are known and always empty; `opportunities` is not taken.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from ghl_pipeline.sandbox.contacts import Contact

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

EQUALITY: Final = frozenset({"eq", "not_eq", "exists", "not_exists"})
TEXT: Final = EQUALITY | {"contains", "not_contains"}
RANGE: Final = frozenset({"range", "exists", "not_exists"})

Value = str | int | float | bool
Values = tuple[Value, ...]


def _one(value: Value | None) -> Values:
    return () if value is None or value == "" else (value,)


FIELDS: Final[Mapping[str, tuple[frozenset[str], Callable[[Contact], Values]]]] = {
    "id": (frozenset({"eq", "not_eq"}), lambda c: (c.id,)),
    "contactName": (EQUALITY, lambda c: _one(c.name.lower())),
    "assignedTo": (EQUALITY, lambda c: _one(c.assigned_to)),
    "country": (EQUALITY, lambda c: _one(c.country)),
    "dnd": (EQUALITY, lambda c: (c.dnd,)),
    "followers": (EQUALITY, lambda c: ()),
    "isValidWhatsapp": (EQUALITY, lambda c: ()),
    "timezone": (EQUALITY, lambda c: _one(c.time_zone)),
    "type": (EQUALITY, lambda c: (c.type,)),
    "validEmail": (EQUALITY, lambda c: _one(c.valid_email)),
    "activeWorkflows": (EQUALITY, lambda c: ()),
    "finishedWorkflows": (EQUALITY, lambda c: ()),
    "website": (EQUALITY, lambda c: _one(c.website)),
    "email": (EQUALITY, lambda c: _one(c.email)),
    "address": (TEXT, lambda c: _one(c.address1)),
    "businessName": (TEXT, lambda c: _one(c.company_name)),
    "city": (TEXT, lambda c: _one(c.city)),
    "companyName": (TEXT, lambda c: _one(c.company_name)),
    "firstNameLowerCase": (TEXT, lambda c: _one((c.first_name or "").lower())),
    "lastNameLowerCase": (TEXT, lambda c: _one((c.last_name or "").lower())),
    "phone": (TEXT, lambda c: _one(c.phone)),
    "postalCode": (TEXT, lambda c: _one(c.postal_code)),
    "source": (TEXT, lambda c: _one(c.source)),
    "state": (TEXT, lambda c: _one(c.state)),
    "tags": (TEXT, lambda c: c.tags),
    "dateAdded": (RANGE, lambda c: (c.date_added,)),
    "dateUpdated": (RANGE, lambda c: (c.date_updated,)),
    "dateOfBirth": (RANGE, lambda c: _one(c.date_of_birth and day_start(date.fromisoformat(c.date_of_birth)))),
    "lastEmailClickedDate": (RANGE, lambda c: ()),
    "lastEmailOpenedDate": (RANGE, lambda c: ()),
    "lastAppointment": (RANGE, lambda c: ()),
}
"""Field -> its operators, and how to read its values from a contact."""

CUSTOM_OPERATORS: Final[Mapping[str, frozenset[str]]] = {
    "CHECKBOX": EQUALITY,
    "MULTIPLE_OPTIONS": EQUALITY,
    "NUMERICAL": EQUALITY,
    "MONETORY": EQUALITY,
    "DATE": frozenset({"exists", "not_exists"}),
}
"""Kind of a custom field -> its operators; all others are texts. GHL also takes ranges of numbers and dates."""


def custom_values(contact: Contact, field_id: str) -> Values:
    """What a contact has for a custom field: each option of a list; an object, as files are, counts as one value."""
    values = (value for key, value in contact.custom_fields if key == field_id)
    parts = (part for value in values for part in (value if isinstance(value, tuple) else (value,)))
    return tuple(part if isinstance(part, str | int | float) else str(part) for part in parts if part or part == 0)


def since_epoch(moment: datetime) -> int:
    """Milliseconds from 1970 UTC to an aware moment."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def day_start(day: date, zone: tzinfo = UTC) -> int:
    """The first millisecond of a day in a zone."""
    return since_epoch(datetime.combine(day, time.min, tzinfo=zone))
