"""Records of a location made from the plain values that tests and control routes give."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from ghl_pipeline.errors import InvalidInput

R = TypeVar("R", bound=msgspec.Struct)


def record(kind: type[R], fields: Mapping[str, object], name: str) -> R:
    """The record of these fields; `name` is what an error calls it, with its article: `a contact`.

    Raises:
        InvalidInput: a field that such a record does not have, or a value of the wrong type.
    """
    unknown = fields.keys() - set(kind.__struct_fields__)
    if unknown:
        raise InvalidInput(f"{name.capitalize()} has no field {', '.join(sorted(unknown))}.")
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"This is not {name}: {error}.") from None
