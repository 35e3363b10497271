"""Reading values out of JSON whose sender keeps no promise: numbers for texts, lists for a text, fields left out.

What the values mean is in the `*_events` modules. Nothing here raises, except `read_object` for what is no object.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias, cast

import msgspec

from ghl_pipeline.ghl.json_text import read_json
from ghl_pipeline.ghl.payloads import clean_text

Fields: TypeAlias = Mapping[str, object]

_decoder = msgspec.json.Decoder(dict[str, object])
# PostgreSQL and JSON take no half of a surrogate pair.
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")
# It starts at the start of a word and gives nothing back, so that a long text without an @ is gone through once.
_ADDRESS = re.compile(r"(?<![^\s<>,;:\"@])[^\s<>,;:\"@]++@[^\s<>,;:\"@]++")
_LONGEST_ADDRESS = 320  # RFC 3696: 64 before the @, 255 after
# What can stand in a key as it is: a UUID, or letters and digits with a digit among them. Anything else could be an
# address or a number that somebody chose as the id, and is hashed.
_PLAIN_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?=.*[A-Za-z])(?=.*\d)[A-Za-z0-9]{15,64}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
# Of a list that stands for a text; a body of 5 MB can hold one of 1.6 million.
_MOST_ITEMS = 100
_LARGEST_BIGINT = 2**63 - 1
# Seconds since 1970 pass this in the year 5138; milliseconds passed it in 1973.
_MILLISECONDS_FROM = 100_000_000_000


def read_object(body: bytes) -> dict[str, object]:
    """The object that a body holds.

    Raises:
        msgspec.DecodeError: it is no JSON, or no object.
    """
    return read_json(_decoder, body.removeprefix(b"\xef\xbb\xbf"))


def fields(value: object) -> Fields:
    """The value if it is an object, else an empty one."""
    return cast("Fields", value) if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """The value as text without NULs and surrounding space; of a list, its first text; None for anything else."""
    if isinstance(value, list):
        return next((found for item in value[:_MOST_ITEMS] if (found := text(item)) is not None), None)
    if isinstance(value, str | int | float):
        cleaned = clean_text(value)
        return (_HALF_CHARACTERS.sub("", cleaned).strip() or None) if cleaned else None
    return None


def first(*of: tuple[Fields, Iterable[str]]) -> str | None:
    """The first text found: in each object in turn, under each name in turn."""
    return next((found for where, names in of for name in names if (found := text(where.get(name)))), None)


def identifier(value: object) -> str | None:
    """A provider's id of something; None for what has no form of one, since ids are shown and indexed."""
    found = text(value)
    return found if found and _IDENTIFIER.fullmatch(found) else None


def number(value: object) -> int | None:
    """A positive 64-bit whole number, also written as text; None for anything else."""
    written = text(value)
    if written is None or not written.isascii() or not written.isdecimal() or len(written) > 19:
        return None
    found = int(written)
    return found if 0 < found <= _LARGEST_BIGINT else None


def flag(value: object) -> bool:
    """Whether it says yes: true, 1, or a text that says so."""
    return (text(value) or "").lower() in {"1", "true", "yes"} if not isinstance(value, bool) else value


def moment(value: object) -> datetime | None:
    """A time, aware, in UTC: ISO 8601 (without a zone: UTC) or seconds or milliseconds since 1970.

    None for what is no time, or not of this century.
    """
    written = text(value)
    if written is None:
        return None
    try:
        if written.isascii() and written.replace(".", "", 1).isdecimal() and len(written) <= 20:
            seconds = float(written)
            found = datetime.fromtimestamp(seconds / 1000 if seconds > _MILLISECONDS_FROM else seconds, UTC)
        else:
            found = datetime.fromisoformat(written)
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if 2000 <= found.year < 2100 else None


def address(value: object) -> str | None:
    """The e-mail address in a text such as `Ann <ann@example.com>`; None when there is none, or several."""
    found = set(_ADDRESS.findall((text(value) or "")[: 10 * _LONGEST_ADDRESS]))
    only = found.pop() if len(found) == 1 else None
    return only if only and len(only) <= _LONGEST_ADDRESS else None


def key_part(value: str) -> str:
    """An id as it stands in a dedupe key, at most 64 characters: itself if it looks like an id, else its hash."""
    return value if _PLAIN_ID.fullmatch(value) else hashlib.sha256(value.encode(errors="replace")).hexdigest()


def digest_of(value: object) -> str:
    """SHA-256 of the value's canonical JSON (keys sorted, no spaces): the same however its sender wrote it down."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def event_name(value: object, otherwise: str) -> str:
    """The sender's name of an event if it looks like one, since it is shown; else `otherwise`."""
    name = text(value) or ""
    return name if re.fullmatch(r"[A-Za-z][A-Za-z_.-]{0,59}", name) else otherwise
