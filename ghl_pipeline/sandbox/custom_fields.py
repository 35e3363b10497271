"""A location's definitions of custom fields, as `GET /locations/{locationId}/customFields` lists them.

Ids are drawn anew for each location, as GHL's are, so nothing that knows an id by heart can work against two of them.
A contact's values carry the id alone; only this list tells the key.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.people import ghl_id, seeded
from ghl_pipeline.sandbox.records import record
from ghl_pipeline.sandbox.responses import JsonObject, unprocessable

DataType = Literal[
    "TEXT", "LARGE_TEXT", "NUMERICAL", "PHONE", "MONETORY", "CHECKBOX", "SINGLE_OPTIONS", "MULTIPLE_OPTIONS", "FLOAT",
    "TIME", "DATE", "TEXTBOX_LIST", "FILE_UPLOAD", "SIGNATURE", "RADIO",
]  # fmt: skip
"""GHL's kinds of fields, in GHL's spelling."""

_MODELS: Final = ("contact", "opportunity", "all")


class CustomField(msgspec.Struct, frozen=True, kw_only=True):
    """One definition. `field_key` starts with the model: `contact.service_zip_codes`."""

    id: str
    name: str
    field_key: str
    data_type: DataType = "TEXT"
    model: Literal["contact", "opportunity"] = "contact"
    options: tuple[str, ...] = ()
    placeholder: str = ""
    position: int = 0


class CustomFields:
    """The definitions of one location, in the order in which they were added."""

    def __init__(self, location_id: str, lock: threading.RLock) -> None:
        self._rng = seeded("custom fields", location_id)
        self._lock = lock
        self.by_id: dict[str, CustomField] = {}

    def __iter__(self) -> Iterator[CustomField]:
        return iter(tuple(self.by_id.values()))

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, name: str, **fields: object) -> CustomField:
        """Adds a definition with further fields of `CustomField`; id, key and position are made when not given.

        Raises:
            InvalidInput: a field that a definition does not have, or a value of the wrong type.
        """
        with self._lock:
            key = f"{fields.get('model', 'contact')}.{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
            position = 50 * (len(self.by_id) + 1)
            made = {"id": ghl_id(self._rng), "name": name, "field_key": key, "position": position}
            definition = record(CustomField, {**made, **fields}, "a custom field")
            self.by_id[definition.id] = definition
            return definition

    def id_of(self, field_key: str) -> str:
        """The id of the field with this key.

        Raises:
            InvalidInput: there is none.
        """
        for definition in self:
            if definition.field_key == field_key:
                return definition.id
        raise InvalidInput(f"The location has no custom field {field_key}.")

    def data_types(self) -> dict[str, str]:
        """Id -> kind of the field."""
        return {definition.id: definition.data_type for definition in self}


def custom_field_list(fields: CustomFields, location_id: str, query: Mapping[str, str]) -> JsonObject:
    """The answer to a query for the definitions. Without `model` it lists those of contacts; GHL's default is unknown.

    Raises:
        Refusal: 422 for another parameter or an unknown model.
    """
    unknown = [name for name in query if name != "model"]
    if unknown:
        raise unprocessable(*(f"property {name[:75]} should not exist" for name in unknown))
    model = query.get("model", "contact")
    if model not in _MODELS:
        raise unprocessable(f"model must be one of the following values: {', '.join(_MODELS)}")
    return {"customFields": [_item(field, location_id) for field in fields if model in {"all", field.model}]}


def _item(field: CustomField, location_id: str) -> JsonObject:
    item: JsonObject = {
        "id": field.id,
        "name": field.name,
        "model": field.model,
        "fieldKey": field.field_key,
        "placeholder": field.placeholder,
        "dataType": field.data_type,
        "position": field.position,
        "locationId": location_id,
    }
    if field.options:
        item |= {"picklistOptions": list(field.options), "isAllowedCustomOption": False}
    if field.data_type == "FILE_UPLOAD":
        item |= {"isMultiFileAllowed": False, "maxFileLimit": 1}
    return item
