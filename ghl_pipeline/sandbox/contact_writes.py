"""Creating, updating and upserting a contact: which properties each takes, and when a duplicate is refused.

The whitelists are the OpenAPI document's, with the corrections seen live: update also takes companyName, type, ssn and
keyword. Any custom field id is taken as known.
"""

from collections.abc import Mapping
from typing import Final

from ghl_pipeline.sandbox.contacts import Contact, FieldValue
from ghl_pipeline.sandbox.responses import JsonObject, Refusal, bad_request, unprocessable
from ghl_pipeline.sandbox.world import Location

_TEXTS: Final = {
    "firstName": "first_name",
    "lastName": "last_name",
    "email": "email",
    "phone": "phone",
    "address1": "address1",
    "city": "city",
    "state": "state",
    "postalCode": "postal_code",
    "website": "website",
    "timezone": "time_zone",
    "source": "source",
    "country": "country",
    "assignedTo": "assigned_to",
    "companyName": "company_name",
    "dateOfBirth": "date_of_birth",
    "type": "type",
}
_ACCEPTED: Final = frozenset({*_TEXTS, "name", "dnd", "dndSettings", "inboundDndSettings", "tags", "customFields"})
_ON_CREATE: Final = (_ACCEPTED - {"type"}) | {"locationId", "gender"}
_ON_UPDATE: Final = _ACCEPTED | {"ssn", "keyword"}
_ON_UPSERT: Final = _ON_CREATE | {"createNewIfDuplicateAllowed"}
_IDENTITY: Final = ("email", "phone", "firstName", "lastName")  # `name` alone does not count


def create_contact(location: Location, body: Mapping[str, object]) -> Contact:
    """Creates a contact.

    Raises:
        Refusal: 422 for properties it does not take or a contact without identity, 400 for a duplicate, and what is set
            for phones.
    """
    fields = _fields(body, _ON_CREATE)
    if not any(body.get(name) for name in _IDENTITY):
        raise Refusal(422, "Contacts without email, phone, firstName and lastName are not allowed.")
    if refusal := _refused_phone(location, fields):
        if location.faults.creates_what_it_refuses:
            location.statistics.creates += 1
            location.add(**{**fields, "phone": None})
        raise refusal
    _refuse_duplicate(location, fields, own_id=None)
    location.statistics.creates += 1
    return location.add(**fields)


def update_contact(location: Location, contact: Contact, body: Mapping[str, object]) -> Contact:
    """Changes the given properties of a contact; tags are replaced, custom fields merged by id.

    Raises:
        Refusal: as for `create_contact`.
    """
    fields = _fields(body, _ON_UPDATE.difference(location.faults.refused_properties), contact)
    if refusal := _refused_phone(location, fields):
        raise refusal
    _refuse_duplicate(location, fields, own_id=contact.id)
    location.statistics.updates += 1
    return location.change(contact.id, **fields)


def upsert_contact(location: Location, body: Mapping[str, object]) -> tuple[Contact, bool]:
    """Updates the contact with this e-mail (or an additional one) or else this phone, or creates one.

    Returns:
        The contact, and whether it is new.

    Raises:
        Refusal: 400 when the body has neither e-mail nor phone, 422 for properties it does not take.
    """
    fields = _fields(body, _ON_UPSERT)
    if not (fields.get("email") or fields.get("phone")):
        raise bad_request("Pass at least one of number, email query parameter")
    match = location.duplicate_of(email=_text(fields.get("email")), phone=_text(fields.get("phone")))
    if match is None or (location.allow_duplicates and body.get("createNewIfDuplicateAllowed") is True):
        location.statistics.creates += 1
        return location.add(**fields), True
    contact, matched = match
    fields = _fields(body, _ON_UPSERT, contact)
    if matched == "email":
        # A phone that belongs to somebody else is silently ignored.
        other = location.duplicate_of(email=None, phone=_text(fields.get("phone")))
        if other is not None and other[0].id != contact.id:
            del fields["phone"]
    location.statistics.updates += 1
    return location.change(contact.id, **fields), False


def _fields(body: Mapping[str, object], accepted: frozenset[str], contact: Contact | None = None) -> dict[str, object]:
    violations = [f"property {key[:75]} should not exist" for key in body if key not in accepted]
    fields: dict[str, object] = {}
    for key, name in _TEXTS.items():
        if key in body and key in accepted:
            value = body[key]
            if value is not None and not isinstance(value, str):
                violations.append(f"{key} must be a string")
            fields[name] = value
    violations += _list_violations(body)
    if "dnd" in body:
        fields["dnd"] = body["dnd"]
        if not isinstance(body["dnd"], bool):
            violations.append("dnd must be a boolean value")
    if violations:
        raise unprocessable(*violations)
    if isinstance(tags := body.get("tags"), list):
        fields["tags"] = tuple(str(tag).lower() for tag in tags)
    if isinstance(custom := body.get("customFields"), list):
        merged = dict(contact.custom_fields if contact else ())
        for item in custom:
            merged[str(item["id"])] = _field_value(item.get("field_value", item.get("fieldValue")))
        fields["custom_fields"] = tuple(merged.items())
    full_name = body.get("name")
    if isinstance(full_name, str) and not {"firstName", "lastName"} & body.keys():
        first, _, last = full_name.partition(" ")
        fields |= {"first_name": first, "last_name": last or None}
    return fields


def _field_value(value: object) -> FieldValue:
    """The value as a contact keeps it; what is cleared with null and what has no value becomes an empty text."""
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, str | int | float | dict) else ""


def _list_violations(body: Mapping[str, object]) -> list[str]:
    violations = []
    tags, custom = body.get("tags", []), body.get("customFields", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        violations.append("each value in tags must be a string")
    if not isinstance(custom, list) or not all(isinstance(item, dict) and "id" in item for item in custom):
        violations.append("each value in customFields must be an object with an id")
    return violations


def _refused_phone(location: Location, fields: Mapping[str, object]) -> Refusal | None:
    message = location.faults.refused_phone
    if message is None or not fields.get("phone"):
        return None
    return Refusal(location.faults.refused_phone_status, message)


def _refuse_duplicate(location: Location, fields: Mapping[str, object], own_id: str | None) -> None:
    if location.allow_duplicates:
        return
    match = location.duplicate_of(email=_text(fields.get("email")), phone=_text(fields.get("phone")))
    if match is not None and match[0].id != own_id:
        meta: JsonObject = {"contactId": match[0].id, "contactName": match[0].name, "matchingField": match[1]}
        raise Refusal(400, "This location does not allow duplicated contacts.", meta)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
