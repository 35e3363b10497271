"""What was decided of each event of a batch, until it is written into the inbox all at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ghl_pipeline.privacy.redaction import safe_error_text
from ghl_pipeline.webhooks.events import Event
from ghl_pipeline.webhooks.inbox.claims import Claimed, Done, Postponed
from ghl_pipeline.webhooks.outcomes import EventOutcome


@dataclass(frozen=True, slots=True)
class Place:
    """A client and its location."""

    client_id: int
    location_id: str


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed event and what its body says."""

    claimed: Claimed
    event: Event

    @property
    def id(self) -> int:
        """`webhook_events.id`."""
        return self.claimed.id

    @property
    def at(self) -> datetime:
        """When it happened, as the sender says; else when it came. Nothing happens after it was told."""
        return min(self.event.occurred_at or self.claimed.received_at, self.claimed.received_at)


@dataclass(slots=True)
class Verdicts:
    """Events that are done or postponed, and what they cost. An event without a verdict is still open."""

    done: dict[int, Done] = field(default_factory=dict)
    postponed: dict[int, Postponed] = field(default_factory=dict)
    requests: int = 0
    phones_refused: int = 0
    values_refused: int = 0

    def finish(self, item: Item, outcome: EventOutcome, lead_id: int | None = None) -> None:
        """The event is done."""
        self.done[item.id] = Done(item.id, outcome, lead_id)

    def postpone(self, event: Claimed, error: Exception, retry_at: datetime | None = None) -> None:
        """The event failed; `retry_at`: at no fault of its own, and it is to be tried again then."""
        self.postponed[event.id] = Postponed(event.id, type(error).__name__, safe_error_text(error), retry_at)

    def moved(self, united: Mapping[int, int]) -> None:
        """Leads have become part of others; what was decided of their events is about those."""
        for event_id, done in self.done.items():
            if done.lead_id is not None and done.lead_id in united:
                self.done[event_id] = replace(done, lead_id=united[done.lead_id])

    def open(self, items: Iterable[Item]) -> list[Item]:
        """Those of the events that have no verdict."""
        return [item for item in items if item.id not in self.done and item.id not in self.postponed]
