"""A location's messages, and GHL's export of them: filters, order, and a cursor that dies when nobody uses it.

The cursor stands for a snapshot, as its documented example shows (`pitId`, `lastSort`, `lastId`): what is written
after the first page is in none of the following ones.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from ghl_pipeline.sandbox.faults import Faults
from ghl_pipeline.sandbox.people import ghl_id, seeded
from ghl_pipeline.sandbox.responses import JsonObject, bad_request, iso_time, unprocessable

Direction = Literal["inbound", "outbound"]

TYPE_NUMBERS: Final = {
    "TYPE_CALL": 1,
    "TYPE_SMS": 2,
    "TYPE_EMAIL": 3,
    "TYPE_CAMPAIGN_SMS": 7,
    "TYPE_WHATSAPP": 19,
    "TYPE_CUSTOM_SMS": 20,
    "TYPE_ACTIVITY_OPPORTUNITY": 28,
}
_CHANNELS: Final = {
    "Call": {"TYPE_CALL"},
    "SMS": {"TYPE_SMS", "TYPE_CAMPAIGN_SMS", "TYPE_CUSTOM_SMS"},
    "Email": {"TYPE_EMAIL"},
    "WhatsApp": {"TYPE_WHATSAPP"},
    "Instagram": set[str](),
    "Facebook": set[str](),
}
_PARAMETERS: Final = {
    "locationId", "limit", "cursor", "sortBy", "sortOrder", "conversationId", "contactId", "channel", "startDate",
    "endDate",
}  # fmt: skip


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message as the location stores it. Times are epoch milliseconds (UTC)."""

    id: str
    contact_id: str
    conversation_id: str
    date_added: int
    date_updated: int
    direction: Direction
    body: str = ""
    message_type: str = "TYPE_SMS"
    status: str = "delivered"
    source: str | None = None
    error: str | None = None  # of a failed SMS, as seen live


@dataclass
class _Snapshot:
    messages: list[Message]
    used_at: float


class MessageLog:
    """All messages of a location in the order in which they were added, and the snapshots that cursors stand for."""

    def __init__(self, location_id: str, clock: Callable[[], float]) -> None:
        self._location_id = location_id
        self._clock = clock
        self._messages: dict[str, Message] = {}
        self._snapshots: dict[str, _Snapshot] = {}
        self._opened = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def put(self, message: Message) -> None:
        """Adds the message, or replaces the one with its id."""
        self._messages[message.id] = message

    def conversation_of(self, contact_id: str) -> str:
        """The id of the contact's conversation; each contact has one."""
        return ghl_id(seeded("conversation", self._location_id, contact_id))

    def open_snapshot(self, wanted: Callable[[Message], bool], key: Callable[[Message], int], *, newest: bool) -> str:
        """Keeps what is wanted now in order; returns the id under which it is kept until nobody uses it."""
        self._opened += 1
        snapshot_id = f"{self._location_id}-{self._opened}"
        chosen = sorted(filter(wanted, self._messages.values()), key=lambda each: (key(each), each.id), reverse=newest)
        self._snapshots[snapshot_id] = _Snapshot(chosen, self._clock())
        return snapshot_id

    def snapshot(self, snapshot_id: str, lifetime_seconds: float) -> list[Message] | None:
        """The messages kept under the id; None when nobody asked for it in the last `lifetime_seconds`."""
        now = self._clock()
        self._snapshots = {k: s for k, s in self._snapshots.items() if now - s.used_at <= lifetime_seconds}
        found = self._snapshots.get(snapshot_id)
        if found is None:
            return None
        found.used_at = now
        return found.messages


class _Cursor(msgspec.Struct, rename="camel"):
    pit_id: str
    last_sort: list[int]
    last_id: str


def export_page(log: MessageLog, location_id: str, query: Mapping[str, str], faults: Faults) -> JsonObject:
    """One page of the export.

    Raises:
        Refusal: 422 for parameters that GHL does not document, 400 for a cursor that is none or has died.
    """
    _check(query)
    limit = _limit(query.get("limit", "100"))
    cursor = _read_cursor(query["cursor"]) if "cursor" in query else None
    if cursor is None:
        snapshot_id, at = _open(log, query, faults), 0
        messages = log.snapshot(snapshot_id, 1.0) or []
    else:
        snapshot_id = cursor.pit_id
        found = log.snapshot(snapshot_id, faults.cursor_lifetime_seconds)
        if found is None:
            raise bad_request("Invalid or expired cursor")
        messages = found
        at = next((n for n, each in enumerate(messages, 1) if each.id == cursor.last_id), len(messages))
    page = messages[at : at + limit]
    following: str | None = None
    if at + limit < len(messages):
        following = _cursor_after(snapshot_id, page[-1])
        if faults.export_repeats_cursor:
            following = query.get("cursor", following)
    shown = [_item(message, location_id) for message in page]
    return {"messages": shown, "nextCursor": following, "total": len(messages)}


def _check(query: Mapping[str, str]) -> None:
    unknown = [name for name in query if name not in _PARAMETERS]
    if unknown:
        raise unprocessable(*(f"property {name} should not exist" for name in unknown))
    for name, values in (
        ("sortBy", ("createdAt", "updatedAt")),
        ("sortOrder", ("asc", "desc")),
        ("channel", tuple(_CHANNELS)),
    ):
        if name in query and query[name] not in values:
            raise unprocessable(f"{name} must be one of the following values: {', '.join(values)}")


def _limit(text: str) -> int:
    try:
        limit = int(text)
    except ValueError:
        raise unprocessable("limit must be a number conforming to the specified constraints") from None
    if limit < 10:
        raise unprocessable("limit must not be less than 10")
    if limit > 500:
        raise unprocessable("limit must not be greater than 500")
    return limit


def _open(log: MessageLog, query: Mapping[str, str], faults: Faults) -> str:
    """A snapshot of what the query asks for. The dates count for when a message was added, whatever the order."""
    channel = query.get("channel")
    types = _CHANNELS[channel] if channel else set(TYPE_NUMBERS) - {"TYPE_EMAIL"}
    start = None if faults.export_ignores_start else _moment("startDate", query.get("startDate"))
    end = _moment("endDate", query.get("endDate"))
    contact_id, conversation_id = query.get("contactId"), query.get("conversationId")

    def wanted(message: Message) -> bool:
        return (
            message.message_type in types
            and (start is None or message.date_added >= start)
            and (end is None or message.date_added <= end)
            and (contact_id is None or message.contact_id == contact_id)
            and (conversation_id is None or message.conversation_id == conversation_id)
        )

    def sort_value(message: Message) -> int:
        return message.date_updated if query.get("sortBy") == "updatedAt" else message.date_added

    newest = query.get("sortOrder", "desc") == "desc" or faults.export_ignores_order
    return log.open_snapshot(wanted, sort_value, newest=newest)


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise unprocessable(f"{name} must be a valid ISO 8601 date string") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _cursor_after(snapshot_id: str, last: Message) -> str:
    return base64.b64encode(msgspec.json.encode(_Cursor(snapshot_id, [last.date_added], last.id))).decode()


def _read_cursor(text: str) -> _Cursor:
    try:
        return msgspec.json.decode(base64.b64decode(text, validate=True), type=_Cursor)
    except (ValueError, msgspec.DecodeError):
        raise bad_request("Invalid or expired cursor") from None


def _item(message: Message, location_id: str) -> JsonObject:
    item: JsonObject = {
        "id": message.id,
        "type": TYPE_NUMBERS[message.message_type],
        "messageType": message.message_type,
        "locationId": location_id,
        "contactId": message.contact_id,
        "conversationId": message.conversation_id,
        "dateAdded": iso_time(message.date_added),
        "dateUpdated": iso_time(message.date_updated),
        "body": message.body,
        "direction": message.direction,
        "status": message.status,
        "contentType": "text/plain",
        "attachments": [],
    }
    if message.source:
        item["source"] = message.source
    if message.error:
        item["error"] = message.error
    return item
