"""Storing messages, so that each is one row per client however it arrives: by webhook, by import, or by both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

# Two reports of one message carry times that differ by the way they took; a person does not send the same words twice
# within a minute.
SAME_MESSAGE_WITHIN = timedelta(seconds=60)


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


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """The row of a message, and whether this call made it."""

    message_id: int
    created: bool


def store_messages(
    connection: Connection, client_id: int, of_leads: Sequence[tuple[int, NewMessage]]
) -> list[StoredMessage]:
    """Stores messages of a client's leads in a few statements; one entry each, in their order."""
    raise NotImplementedError
