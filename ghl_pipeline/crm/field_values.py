"""What the value of a custom field says: a text, several, a number, yes or no, a moment. Pure; nothing here raises.

An empty field is None (or no texts). One that holds something of another kind is `UNREADABLE`, so that it can be
counted: "maybe" is no answer to a question that takes yes or no, and not the same as no answer.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from typing import Final, Literal, TypeAlias

import msgspec

from ghl_pipeline.ghl.json_text import read_json
from ghl_pipeline.ghl.payloads import clean_text


class Unreadable(Enum):
    """The type of `UNREADABLE`: the field holds something, but not what it is for."""

    VALUE = "unreadable"


UNREADABLE: Final = Unreadable.VALUE
Unread: TypeAlias = Literal[Unreadable.VALUE]

_json = msgspec.json.Decoder()
# What a person writes into a field to leave it empty.
_BLANK = frozenset({"", "-", "--", "n/a", "na", "none", "null", "nil", "not applicable", "undefined"})
_YES = frozenset({"yes", "y", "true", "t", "on", "1", "checked"})
_NO = frozenset({"no", "n", "false", "f", "off", "0", "unchecked"})
_NUMBER = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})", re.ASCII)
_PERCENT = re.compile(r" ?(?:%|percent|per cent|pct\.?)$", re.IGNORECASE)
# A number with its unit is shorter; the rules for one would take long to say that a novel is none.
_LONGEST_NUMBER = 100
_DEEPEST = 4  # an option in a list in an object is 3
# Seconds since 1970 pass this in the year 5138; milliseconds passed it in 1973.
_MILLISECONDS_FROM = 100_000_000_000


def items(value: object) -> list[str]:
    """The texts of a value as it is divided already: of a list its items, of an object its text or its parts.

    A text that is JSON ('["FL","GA"]') counts as what it says. Blank ones and "n/a" are left out; the rest is trimmed.
    """
    return list(_items(value, _DEEPEST))


def _items(value: object, depth: int) -> list[str]:
    if isinstance(value, Mapping):
        named = next((value[key] for key in ("value", "name", "label", "option") if value.get(key) is not None), None)
        value = list(value.values()) if named is None else [named]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _items(item, depth - 1)] if depth else []
    if isinstance(value, bool):
        return ["true" if value else "false"]
    text = clean_text(value) if isinstance(value, str | int | float) else None
    if text is None or text.lower() in _BLANK:
        return []
    decoded = _decoded(text) if depth and text[0] in "[{" else None
    return [text] if decoded is None else _items(decoded, depth - 1)


def _decoded(text: str) -> object:
    try:
        return read_json(_json, text.encode(errors="ignore"))
    except msgspec.DecodeError:
        return None


def one_text(value: object) -> str | None:
    """The value as one text: of several, all of them with commas."""
    return ", ".join(dict.fromkeys(items(value))) or None


def texts(value: object) -> tuple[str, ...]:
    """Several texts, each once whatever its letter case, in the order given.

    A list's items are whole, because an option's label may hold a comma; a text is divided at commas, semicolons and
    line breaks.
    """
    found = items(value)
    if isinstance(value, str) and found == [clean_text(value)]:
        found = [" ".join(part.split()) for part in re.split(r"[,;\n\r]+", found[0])]
    by_letters: dict[str, str] = {}
    for text in found:
        by_letters.setdefault(text.lower(), text)
    return tuple(text for letters, text in by_letters.items() if letters not in _BLANK)


def number(value: object) -> Decimal | Unread | None:
    """A number, also written as text."""
    found = items(value)
    if not found:
        return None
    text = found[0]
    return Decimal(text) if len(found) == 1 and _NUMBER.fullmatch(text) else UNREADABLE


def percentage(value: object) -> Decimal | Unread | None:
    """A percentage from 0 to 100, with two decimals: 45, 45.0, "45" and "45 %" are 45.

    It is taken as written, so that 0.45 is 0.45 %. To read it as 45 % would be a guess that is wrong for whoever writes
    0.5 and 1 for half a percent and one.
    """
    found = items(value)
    text = " ".join(found[0].split()) if len(found) == 1 else ""
    read = number(_PERCENT.sub("", text) if 0 < len(text) <= _LONGEST_NUMBER else found)
    if isinstance(read, Decimal):
        return read.quantize(Decimal("0.01"), ROUND_HALF_UP) if 0 <= read <= 100 else UNREADABLE
    return UNREADABLE if found else None


def yes_or_no(value: object) -> bool | Unread | None:
    """Yes or no, in the spellings of forms, imports and checkboxes."""
    found = {text.rstrip(".!").strip().lower() for text in items(value)}
    if not found:
        return None
    if found <= _YES:
        return True
    return False if found <= _NO else UNREADABLE


def moment(value: object) -> datetime | Unread | None:
    """A time, aware, in UTC: ISO 8601 (without a zone: UTC; a date: its midnight), or seconds or milliseconds of 1970.

    Not of this century is unreadable; so is 05/06/2026, which is in May or in June.
    """
    found = items(value)
    if not found:
        return None
    text = found[0]
    if len(found) > 1:
        return UNREADABLE
    try:
        if re.fullmatch(r"\d{9,15}(?:\.\d+)?", text, re.ASCII):
            seconds = float(text)
            read = datetime.fromtimestamp(seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds, UTC)
        else:
            read = datetime.fromisoformat(text)
            read = read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return UNREADABLE
    return read if 2000 <= read.year < 2100 else UNREADABLE
