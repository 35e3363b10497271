"""The parts of a contact that only some work needs: its kind, tags, custom fields, address and opportunities.

Read from the same answers as `payloads.Contact`, on request: a page of 500 contacts takes longer to read with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

# A custom field's value as GHL sends it: text, a number, a list of options, or an object (files).
FieldValue: TypeAlias = str | int | float | bool | Sequence[object] | Mapping[str, object] | None


class ContactDetails(msgspec.Struct, frozen=True, gc=False):
    """What a contact holds beside name and addresses; texts are trimmed, blank ones are None.

    Attributes:
        type: `lead`, `customer`, `staff`, ... in lower case.
        source: where GHL says it came from, as typed.
        tags: in lower case, each once, in GHL's order.
        custom_fields: values by the field's id, as sent; GHL does not send the field's key.
        opportunity_ids: of its opportunities, as far as GHL lists them.
    """

    type: str | None = None
    source: str | None = None
    tags: tuple[str, ...] = ()
    custom_fields: Mapping[str, FieldValue] = msgspec.field(default_factory=dict[str, FieldValue])
    address: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None
    opportunity_ids: tuple[str, ...] = ()


class DetailsOnWire(Protocol):
    """The same as GHL sends it, of a search's item (`address`) or of a GET (`address1`)."""

    type: object
    source: object
    tags: object
    custom_fields: object
    address: object
    address1: object
    city: object
    state: object
    postal_code: object
    country: object
    opportunities: object


def read_details(wire: DetailsOnWire) -> ContactDetails:
    """The details as the project sees them; what has another form than GHL's counts as absent."""
    kind = _text(wire.type)
    return ContactDetails(
        type=kind.lower() if kind else None,
        source=_text(wire.source),
        tags=tags_of(wire.tags),
        custom_fields=dict(_custom_fields(wire.custom_fields)),
        address=_text(wire.address1) or _text(wire.address),
        city=_text(wire.city),
        state=_text(wire.state),
        postal_code=_text(wire.postal_code),
        country=_text(wire.country),
        opportunity_ids=tuple(dict.fromkeys(_ids(wire.opportunities))),
    )


def tags_of(value: object) -> tuple[str, ...]:
    """Tags in lower case, each once: GHL sends a list, its workflows a text with commas, old exports objects.

    An object's text is in `name`, `tag` or `label`. Anything else is no tag.
    """
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    texts = (_tag_text(part) for part in parts)
    return tuple(dict.fromkeys(" ".join(text.lower().split()) for text in texts if text))


def _tag_text(part: object) -> str | None:
    if isinstance(part, Mapping):
        return next((text for key in ("name", "tag", "label") if (text := _text(part.get(key)))), None)
    return _text(part)


def _custom_fields(value: object) -> Iterator[tuple[str, FieldValue]]:
    for entry in value if isinstance(value, list) else ():
        if not isinstance(entry, Mapping):
            continue
        field_id = _text(entry.get("id"))
        # `value` in GHL's answers; the other spellings are those of what is written to it, which old answers echo.
        found = next((entry[key] for key in ("value", "fieldValue", "field_value") if entry.get(key) is not None), None)
        if field_id is not None and found is not None:
            yield field_id, found


def _ids(value: object) -> Iterator[str]:
    for entry in value if isinstance(value, list) else ():
        text = _text(entry.get("id") if isinstance(entry, Mapping) else entry)
        if text:
            yield text


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value.replace("\x00", "").strip() or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return None
