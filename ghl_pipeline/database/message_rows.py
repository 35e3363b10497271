"""Which row a report of a message belongs to. Decided here in memory; read and written by `messages.py`."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from ghl_pipeline.database.new_messages import NewMessage

# Two reports of one message carry times that differ by the way they took; a person does not send the same words twice
# within a minute.
SAME_MESSAGE_WITHIN = timedelta(seconds=60)

Identity: TypeAlias = tuple[int, str, str]  # client, provider, external id
Words: TypeAlias = tuple[int, str, str, str, str]  # lead, provider, channel, direction, text


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """The row of a message, and what this report of it did.

    Attributes:
        message_id: `messages.id`.
        created: this report made the row.
        healed: this report gave its external id to a row that had none.
        updated: this report changed a row that was there, by healing it or otherwise.
    """

    message_id: int
    created: bool
    healed: bool = False
    updated: bool = False


@dataclass(slots=True)
class Report:
    """A message of the batch."""

    place: int
    client_id: int
    lead_id: int
    message: NewMessage
    sent_at: datetime = field(init=False)  # by the database's clock when the sender did not say it

    @property
    def identity(self) -> Identity | None:
        """What makes it one message for certain; None when the sender did not say the id."""
        external_id = self.message.external_id
        return None if external_id is None else (self.client_id, self.message.provider, external_id)

    @property
    def words(self) -> Words:
        """What two reports of one message have in common, besides the time."""
        message = self.message
        return self.lead_id, message.provider, message.channel, message.direction, message.body.strip()


@dataclass(slots=True, eq=False)
class MessageRow:
    """A row of `messages`, there already or to be inserted."""

    message_id: int | None
    external_id: str | None
    sent_at: datetime
    status: str | None
    is_automated: bool
    is_interested: bool
    conversation_id: str | None
    first: Report | None = None  # of a row that is to be inserted
    is_changed: bool = False

    def take(self, report: Report) -> tuple[bool, bool]:
        """Takes what the report adds; whether that healed the row, and whether it changed it."""
        message = report.message
        before = self.external_id, self.status, self.is_automated, self.is_interested, self.conversation_id
        heals = self.external_id is None and message.external_id is not None
        if heals:
            self.external_id = message.external_id
            # The provider knows when it was sent; a report without id has often only the time of its arrival.
            self.sent_at = self.sent_at if message.sent_at is None else message.sent_at
        self.status = message.status or self.status
        self.is_automated |= message.is_automated
        self.is_interested |= message.is_interested
        self.conversation_id = self.conversation_id or message.conversation_id
        changes = before != (
            self.external_id, self.status, self.is_automated, self.is_interested, self.conversation_id
        )  # fmt: skip
        self.is_changed |= changes
        return heals, changes


class MessageRows:
    """The rows that the batch is about, as they become report by report."""

    def __init__(self) -> None:
        self.all: dict[int, MessageRow] = {}
        self.new: list[MessageRow] = []
        self._by_identity: dict[Identity, MessageRow] = {}
        self._by_words: dict[Words, list[MessageRow]] = {}

    def add(self, row: MessageRow, report: Report, *, says_the_same: bool) -> None:
        """Adds a row that a report found or makes."""
        if row.message_id is not None:
            row = self.all.setdefault(row.message_id, row)
        if row.external_id is not None:
            self._by_identity[report.client_id, report.message.provider, row.external_id] = row
        like = self._by_words.setdefault(report.words, [])
        if says_the_same and row not in like:
            like.append(row)

    def take(self, report: Report) -> tuple[MessageRow, StoredMessage]:
        """The row that the report belongs to, changed or made by it. The message id of a new one is not known yet."""
        row = self._of(report)
        if row is None:
            message = report.message
            row = MessageRow(
                None, message.external_id, report.sent_at, message.status, message.is_automated,
                message.is_interested, message.conversation_id, first=report,
            )  # fmt: skip
            self.new.append(row)
            self.add(row, report, says_the_same=True)
            return row, StoredMessage(0, created=True)
        healed, changed = row.take(report)
        if healed and report.identity is not None:
            self._by_identity[report.identity] = row
        return row, StoredMessage(row.message_id or 0, created=False, healed=healed, updated=changed)

    def _of(self, report: Report) -> MessageRow | None:
        if report.identity is not None and (known := self._by_identity.get(report.identity)) is not None:
            return known
        like = [
            row
            for row in self._by_words.get(report.words, ())
            if (report.identity is None or row.external_id is None)
            and abs(row.sent_at - report.sent_at) <= SAME_MESSAGE_WITHIN
        ]
        return min(like, key=lambda row: abs(row.sent_at - report.sent_at), default=None)
