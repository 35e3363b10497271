"""The export of a location's messages: what it may be asked for, and its answer as typed values.

`GET /conversations/messages/export` as HighLevel's OpenAPI document of conversations has it. Undocumented: how a date
is written (ISO 8601 here, as GHL's own dates are), and that a cursor dies when it rests for some two minutes.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from ghl_pipeline.ghl.channels import channel_of
from ghl_pipeline.ghl.json_text import read_json
from ghl_pipeline.ghl.payloads import Scalar, clean_text, moment_of, whole_number

EXPORT_ROUTE = "/conversations/messages/export"
# The version that the document of conversations names; that of contacts is another.
CONVERSATIONS_VERSION = "2021-04-15"
MAX_EXPORT_PAGE = 500

Channel = Literal["Call", "SMS", "Email", "WhatsApp", "Instagram", "Facebook"]


@dataclass(frozen=True, slots=True)
class MessageExport:
    """One request of the export.

    Attributes:
        channel: messages of this channel only.
        start: added at or after then, aware; None: from the first one on.
        end: added at or before then, aware; None: up to now.
        contact_id: messages of this contact only.
        cursor: `next_cursor` of the page before; the rest of the request has to stay the same.
        limit: messages a page, 10 to 500.
        oldest_first: ascending by the time at which they were added.
    """

    channel: Channel = "SMS"
    start: datetime | None = None
    end: datetime | None = None
    contact_id: str | None = None
    cursor: str | None = None
    limit: int = MAX_EXPORT_PAGE
    oldest_first: bool = True

    def following(self, cursor: str) -> "MessageExport":
        """The same export, one page on."""
        return replace(self, cursor=cursor)

    def of_contact(self, contact_id: str) -> "MessageExport":
        """The same export, of this contact only."""
        return replace(self, contact_id=contact_id)

    def params(self, location_id: str) -> dict[str, str]:
        """The query. GHL refuses any parameter it does not know, so nothing optional is sent empty."""
        optional = {
            "startDate": None if self.start is None else _instant(self.start),
            "endDate": None if self.end is None else _instant(self.end),
            "contactId": self.contact_id,
            "cursor": self.cursor,
        }
        return {
            "locationId": location_id,
            "channel": self.channel,
            "limit": str(self.limit),
            "sortBy": "createdAt",
            "sortOrder": "asc" if self.oldest_first else "desc",
            **{name: value for name, value in optional.items() if value is not None},
        }


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as GHL has it. Its `repr` shows ids only.

    Attributes:
        id: GHL's id of it.
        contact_id: whose it is, as sent; None when GHL names nobody.
        direction: `inbound` from the contact or `outbound` to it.
        sent_at: when it was added at GHL, aware, UTC.
        channel: `sms`, `email`, ...; None for calls and activities.
        conversation_id: None when GHL names none.
        status: as GHL calls it.
        body: empty when there is none, as with a picture alone.
    """

    id: str
    contact_id: str | None
    direction: Literal["inbound", "outbound"]
    sent_at: datetime
    channel: str | None = None
    conversation_id: str | None = None
    status: str | None = None
    body: str = ""

    def __repr__(self) -> str:
        return f"Message({self.id}, {self.direction})"

    @property
    def is_sms(self) -> bool:
        """Whether it came or went as a text message."""
        return self.channel == "sms"


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One answer of the export.

    `next_cursor` is None after the last page. `unreadable` counts items that were no messages: without an id, a
    direction or a date; they are left out and nothing else of the page is lost. `total` is None when GHL did not say
    it.
    """

    messages: tuple[Message, ...]
    next_cursor: str | None
    total: int | None
    unreadable: int = 0


class _WireMessage(msgspec.Struct, rename="camel", kw_only=True, gc=False):
    # An id is a key of ours: without one, or with a character no column takes, there is no message to speak of.
    id: Annotated[str, msgspec.Meta(pattern=r"^[^\s\x00]+$", max_length=200)]
    direction: Literal["inbound", "outbound"]
    type: Scalar = None
    message_type: Scalar = None
    contact_id: Scalar = None
    conversation_id: Scalar = None
    date_added: Scalar = None
    body: Scalar = None
    status: Scalar = None


class _WireExport(msgspec.Struct, rename="camel"):
    messages: list[msgspec.Raw]
    next_cursor: Scalar = None
    total: Scalar = None


_export_decoder = msgspec.json.Decoder(_WireExport)
_message_decoder = msgspec.json.Decoder(_WireMessage)


def decode_messages(body: bytes) -> MessagePage:
    """Reads an answer of the export, item by item, so that a broken one loses only itself.

    Raises:
        msgspec.DecodeError: the body is not such an answer.
    """
    wire = read_json(_export_decoder, body)
    messages = [message for raw in wire.messages if (message := _message(raw)) is not None]
    return MessagePage(
        tuple(messages), clean_text(wire.next_cursor), whole_number(wire.total), len(wire.messages) - len(messages)
    )


def _message(raw: msgspec.Raw) -> Message | None:
    try:
        wire = read_json(_message_decoder, raw)
    except msgspec.DecodeError:
        return None
    sent_at = moment_of(wire.date_added)
    if sent_at is None:
        return None
    return Message(
        id=wire.id,
        contact_id=clean_text(wire.contact_id),
        direction=wire.direction,
        sent_at=sent_at,
        channel=channel_of(wire.message_type if clean_text(wire.message_type) else wire.type),
        conversation_id=clean_text(wire.conversation_id),
        status=clean_text(wire.status),
        body=clean_text(wire.body) or "",
    )


def _instant(moment: datetime) -> str:
    """Up to the millisecond, which is what GHL keeps; cut off, so that a start never lies after what it names."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
