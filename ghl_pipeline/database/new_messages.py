"""A message as it arrives, and the form in which it goes into the table."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from ghl_pipeline.database.storable import LONGEST_KEY_BYTES, storable_moment, storable_text
from ghl_pipeline.errors import InvalidInput

PROVIDERS: Final = ("ghl", "emailbison")
DIRECTIONS: Final = ("inbound", "outbound")
SOURCES: Final = ("webhook", "import", "reconcile")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message as it arrives. Its `repr` shows ids only.

    Attributes:
        provider: `ghl` or `emailbison`.
        external_id: the provider's id of it; None when the sender did not say it.
        channel: `sms`, `email`, `whatsapp`, ...
        direction: `inbound` or `outbound`.
        sent_at: aware; None: now.
        source: `webhook`, `import` or `reconcile`: how it came first.
    """

    provider: str
    channel: str
    direction: str
    external_id: str | None = None
    subject: str | None = field(default=None, repr=False)
    body: str = field(default="", repr=False)
    status: str | None = None
    is_automated: bool = False
    is_interested: bool = False
    conversation_id: str | None = None
    sent_at: datetime | None = None
    source: str = "webhook"


def storable_message(message: NewMessage) -> NewMessage:
    """The message as it can be stored: texts without NULs and lone surrogates, blank ids as None, channel lower-cased.

    Raises:
        InvalidInput: a field cannot be stored, whatever is done with it.
    """
    external_id = storable_text(message.external_id or "").strip() or None
    channel = storable_text(message.channel).strip().lower()
    if external_id is not None and len(external_id.encode()) > LONGEST_KEY_BYTES:
        raise InvalidInput(f"A message's id is longer than {LONGEST_KEY_BYTES} bytes. Correct it at its source.")
    if message.provider not in PROVIDERS or message.direction not in DIRECTIONS or message.source not in SOURCES:
        raise InvalidInput(
            f"A message's provider must be one of {', '.join(PROVIDERS)}, its direction one of "
            f"{', '.join(DIRECTIONS)}, its source one of {', '.join(SOURCES)}."
        )
    if not channel:
        raise InvalidInput("A message has no channel. Name one, such as sms.")
    return replace(
        message,
        external_id=external_id,
        channel=channel,
        subject=None if message.subject is None else storable_text(message.subject),
        body=storable_text(message.body),
        status=storable_text(message.status or "") or None,
        conversation_id=storable_text(message.conversation_id or "").strip() or None,
        sent_at=storable_moment(message.sent_at),
    )
