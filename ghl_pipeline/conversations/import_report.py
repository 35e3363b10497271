"""What an import of messages says of a location: what became of each message, and what it cost. Counts only."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

from ghl_pipeline.orchestration.reports import Report, bar_chart


class MessageOutcome(StrEnum):
    """What became of a message in a page of the export. Every one has exactly one."""

    IMPORTED = "imported"  # a new row
    HEALED = "healed"  # a webhook had brought it without its id, which the row has now
    UPDATED = "updated"  # its row was there; the status changed
    KNOWN = "known"  # its row was there as it is
    NO_LEAD = "skipped_no_lead"  # its contact is no lead of the client
    JUNK_CONTACT = "skipped_junk_contact"  # GHL names no contact, or none that can be one
    NOT_SMS = "skipped_not_sms"  # of another channel than was asked for
    TOO_OLD = "skipped_too_old"  # from before what was asked for
    UNSTORABLE = "unstorable"  # the database takes no such message
    UNREADABLE = "unreadable"  # no id, direction or date


@dataclass(slots=True)
class Counts:
    """Messages by outcome, and leads that messages made."""

    outcomes: Counter[MessageOutcome] = field(default_factory=Counter)
    leads_created: int = 0

    def add(self, other: "Counts") -> None:
        """Adds the other's."""
        self.outcomes.update(other.outcomes)
        self.leads_created += other.leads_created


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """One import at one location.

    Attributes:
        location: its id.
        outcomes: messages by outcome, all outcomes named; they add up to `messages_seen`.
        leads_created: leads that an inbound message made, as a webhook would have.
        leads_caught_up: leads made or changed since the last import, whose earlier messages were asked for by contact.
        leads_refused: of such leads, those for whose contact GHL gave no messages (deleted, most likely).
        leads_with_junk_contact_id: leads whose link can be no contact's, so that no message is theirs.
        pages: answers of the export.
        requests: requests sent, retries included.
        restarts: how often the export was begun anew because its cursor died.
        imported_from: where this import began, ISO 8601.
        imported_until: up to where messages are stored now; None when there never was one.
        looked: what the next import has to know of this one about the leads it saw; in the record only.
        seconds: how long it took.
        seconds_waited_on_limit: of them, spent waiting on the rate limit.
    """

    location: str
    outcomes: Mapping[str, int]
    leads_created: int
    leads_caught_up: int
    leads_refused: int
    leads_with_junk_contact_id: int
    pages: int
    requests: int
    restarts: int
    imported_from: str
    imported_until: str | None
    looked: Mapping[str, object] = field(default_factory=dict)
    seconds: float
    seconds_waited_on_limit: float

    @property
    def messages_seen(self) -> int:
        """Messages in the pages; one that came again after a restart counts twice."""
        return sum(self.outcomes.values())

    @property
    def imported(self) -> int:
        """Messages that were not here before."""
        return self.outcomes[MessageOutcome.IMPORTED]

    def as_dict(self) -> dict[str, object]:
        """As JSON-ready values."""
        values = {**asdict(self), "messages_seen": self.messages_seen, "messages_imported": self.imported}
        del values["looked"]
        return values

    def as_record(self) -> dict[str, object]:
        """As `location_attempts` keeps it: what the next import reads of it included."""
        return {**self.as_dict(), "looked": self.looked}

    def as_report(self) -> Report:
        """For the materialization of `sms_messages`."""
        outcomes = dict(self.outcomes)
        return Report(
            values={
                "messages_imported": self.imported,
                "messages_seen": self.messages_seen,
                "leads_created": self.leads_created,
                "leads_caught_up": self.leads_caught_up,
                "leads_refused": self.leads_refused,
                "leads_with_junk_contact_id": self.leads_with_junk_contact_id,
                "pages": self.pages,
                "requests": self.requests,
                "restarts": self.restarts,
                "imported_from": self.imported_from,
                "imported_until": self.imported_until or "",
                "seconds": self.seconds,
                "seconds_waited_on_limit": self.seconds_waited_on_limit,
            },
            tables={"by_outcome": [{"outcome": name, "messages": count} for name, count in outcomes.items()]},
            data={"location_report": self.as_dict()},
            charts={"outcomes": bar_chart(outcomes, unit="messages")},
        )


def named_counts(outcomes: Mapping[MessageOutcome, int]) -> dict[str, int]:
    """All outcomes in their order, those that nothing had included."""
    return {outcome.value: outcomes.get(outcome, 0) for outcome in MessageOutcome}


def written(moment: datetime | None) -> str | None:
    """A time as the report tells it."""
    return None if moment is None else moment.isoformat(timespec="milliseconds")
