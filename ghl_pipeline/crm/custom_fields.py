"""Which custom field of a location holds which of our values.

GHL's contacts carry values by the field's id, which differs in every location; people know a field by its key
(`contact.service_zip_codes`). A client's `FieldKeys` say which key holds what; `FieldIds` are those keys found among
one location's definitions. What the values mean is read in `field_values.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ghl_pipeline.crm.field_values import texts
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.contact_details import ContactDetails, FieldValue


class FieldName(StrEnum):
    """Our names of the values that custom fields hold. Each is also the field's key where the client names no other."""

    SERVICE_CATEGORIES = "service_categories"
    SERVICES_OFFERED = "services_offered"
    SERVICE_ZIP_CODES = "service_zip_codes"
    TAKING_NEW_WORK = "taking_new_work"
    LAST_LEAD_ASSIGNED = "last_lead_assigned"
    LEAD_CLOSE_PERCENTAGE = "lead_close_percentage"
    PRIMARY_SERVICE_CATEGORY = "primary_service_category"
    GHL_USER_ID = "ghl_user_id"
    SPECIFIC_SERVICE_REQUESTED = "specific_service_requested"
    OPPORTUNITY_ID = "opportunity_id"


class FieldDefinition(Protocol):
    """A custom field as the location defines it, such as `ghl.location_payloads.CustomField`."""

    @property
    def id(self) -> str:
        """By which contacts carry it."""

    @property
    def key(self) -> str:
        """By which people know it."""


@dataclass(frozen=True, slots=True)
class FieldKeys:
    """The key of the field that holds each value, in its normal form; every one of our names has one."""

    keys: Mapping[FieldName, str]

    @classmethod
    def of(cls, configured: Mapping[str, str] | None = None) -> "FieldKeys":
        """A client's keys: what is configured for it, and our own names for the rest.

        Args:
            configured: our name of a value to the field's key. With or without `contact.`, in any letter case, with
                "-" or spaces for "_", and in braces as GHL's templates have it.

        Raises:
            InvalidInput: a name is not one of ours, or a key is blank.
        """
        keys = {name: normal_key(name) for name in FieldName}
        for ours, key in (configured or {}).items():
            try:
                name = FieldName(normal_key(ours))
            except ValueError:
                known = ", ".join(FieldName)
                raise InvalidInput(
                    f"Nothing that is kept in step is called {ours[:60]!r}. Give field keys for: {known}."
                ) from None
            if not normal_key(key):
                raise InvalidInput(f"The field key for {name} is blank. Leave it out for contact.{name}.")
            keys[name] = normal_key(key)
        return cls(keys)


@dataclass(frozen=True, slots=True)
class FieldIds:
    """The ids of our fields in one location. Fields that the location does not have are in `missing`, and are empty."""

    ids: Mapping[FieldName, str]

    @classmethod
    def find(cls, keys: FieldKeys, definitions: Iterable[FieldDefinition]) -> "FieldIds":
        """Looks the keys up among the location's definitions; of two with the same key the first counts."""
        by_key: dict[str, str] = {}
        for definition in definitions:
            by_key.setdefault(normal_key(definition.key), definition.id)
        return cls({name: by_key[key] for name, key in keys.keys.items() if key in by_key})

    @property
    def missing(self) -> tuple[FieldName, ...]:
        """Ours that the location has no field for."""
        return tuple(name for name in FieldName if name not in self.ids)

    def value(self, details: ContactDetails, name: FieldName) -> FieldValue:
        """What the contact's field holds, as GHL sent it; None when it holds nothing or there is no such field."""
        field_id = self.ids.get(name)
        return None if field_id is None else details.custom_fields.get(field_id)


def opportunity_ids_of(details: ContactDetails, fields: FieldIds) -> tuple[str, ...]:
    """The contact's opportunities: those that GHL lists with it, then those in the custom field for them."""
    in_field = texts(fields.value(details, FieldName.OPPORTUNITY_ID))
    return tuple(dict.fromkeys((*details.opportunity_ids, *in_field)))


def normal_key(key: str) -> str:
    """A field's key as it is compared: without `contact.` and braces, lower-case, "_" between words."""
    plain = key.strip().strip("{}").strip().lower().removeprefix("contact.")
    return "_".join(plain.replace("-", " ").replace("_", " ").split())
