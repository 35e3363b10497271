"""EmailBison's answers as values: one page of a list, and the rows of `GET /api/events`.

The documentation names neither the key under which an event's payload stands nor the way in which pages follow each
other on every route, so each form that was seen is read.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias, cast
from urllib.parse import parse_qs, urlsplit

import msgspec

JsonObject: TypeAlias = dict[str, object]

_PAYLOAD_KEYS = ("payload", "event_payload", "webhook_payload", "body")


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of the log. Its `repr` shows no value of a person.

    Attributes:
        body: what the webhook sent, written down anew: the same values, not the same bytes.
        created_at: aware, UTC; None when the row does not say it.
        event_type: as EmailBison spells it, upper-case; None when the row does not say it.
    """

    body: bytes = field(repr=False)
    created_at: datetime | None
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a list.

    Attributes:
        rows: its objects.
        following: the parameters that lead to the next page; None: there is none, or none that may be followed.
        total: rows of all pages together; None when the answer does not say it.
        leads_elsewhere: it names a next page that may not be followed, so that the list is longer than what was read.
    """

    rows: tuple[JsonObject, ...] = field(repr=False)
    following: dict[str, str] | None
    total: int | None = None
    leads_elsewhere: bool = False


def read_object(body: bytes) -> JsonObject:
    """The object that a body holds.

    Python's own decoder, because it takes the half characters that a cut e-mail leaves; every other error of it would
    carry the body along.

    Raises:
        msgspec.DecodeError: it is no JSON object.
    """
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return cast("JsonObject", found)
    raise msgspec.DecodeError("no JSON object")


def read_page(body: bytes, base_url: str) -> Page:
    """Reads a page of any list.

    A cursor counts before a page number, because numbered pages end at 500 or 1,000 with a 422. Of `links.next` only
    the cursor or number is used, and only on the same host: the link leaves out the other parameters of the request.

    Raises:
        msgspec.DecodeError: it is no JSON object with a list of rows.
    """
    answer = read_object(body)
    rows = answer.get("data")
    if not isinstance(rows, list):
        raise msgspec.DecodeError("no list of rows")
    following = _following(answer, base_url)
    meta, links = (_object(answer.get(name)) for name in ("meta", "links"))
    total = meta.get("total")
    return Page(
        tuple(row for row in rows if isinstance(row, dict)),
        following,
        total if isinstance(total, int) and not isinstance(total, bool) else None,
        leads_elsewhere=following is None and bool(links.get("next")),
    )


def read_event_row(row: JsonObject) -> EventRow:
    """Reads a row of `GET /api/events`. Without a webhook's payload in it the whole row is the body.

    Whoever reads that body then finds out, instead of nobody: the log would seem empty.
    """
    candidates = [row.get(key) for key in _PAYLOAD_KEYS] + [row.get("data"), row.get("event")]
    payload = next((found for each in candidates if (found := _payload(each)) is not None), None)
    if payload is None and _payload(row) is not None:
        payload = {"event": row["event"], "data": row.get("data")}
    body = json.dumps(row if payload is None else payload).encode()
    return EventRow(body, _moment(row.get("created_at")), None if payload is None else _type(payload))


def read_workspace_id(answer: JsonObject) -> int | None:
    """The workspace that `GET /api/users` shows; None when it shows none."""
    found = _object(_object(answer.get("data")).get("workspace")).get("id")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _type(payload: JsonObject) -> str | None:
    about = payload.get("event")
    found = about.get("type") if isinstance(about, dict) else None
    return found.upper() if isinstance(found, str) else None


def _payload(value: object) -> JsonObject | None:
    """The value if it is `{"event": {"type": ...}, ...}`, also as text."""
    if isinstance(value, str):
        try:
            value = read_object(value.encode(errors="replace"))
        except msgspec.DecodeError:
            return None
    if not isinstance(value, dict):
        return None
    about = value.get("event")
    return cast("JsonObject", value) if isinstance(about, dict) and about.get("type") else None


def _following(answer: JsonObject, base_url: str) -> dict[str, str] | None:
    meta, links = (_object(answer.get(name)) for name in ("meta", "links"))
    cursor = meta.get("next_cursor")
    if isinstance(cursor, str) and cursor:
        return {"cursor": cursor}
    linked = _of_link(links.get("next"), base_url)
    if linked is not None:
        return linked
    page, last = meta.get("current_page"), meta.get("last_page")
    if isinstance(page, int) and isinstance(last, int) and page < last:
        return {"page": str(page + 1)}
    return None


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _of_link(link: object, base_url: str) -> dict[str, str] | None:
    if not isinstance(link, str):
        return None
    try:
        target, own = urlsplit(link), urlsplit(base_url)
        if target.netloc and (target.scheme, target.netloc) != (own.scheme, own.netloc):
            return None
        query = parse_qs(target.query)
    except ValueError:
        return None
    return next(({name: query[name][0]} for name in ("cursor", "page") if query.get(name)), None)


def _moment(value: object) -> datetime | None:
    """Laravel writes `2026-09-14T16:24:00.000000Z`, in places without a zone, which is UTC then."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
