"""An event as the rest of the project sees it, whoever sent it. Reading a body into one: the `*_events` modules."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.payloads import Contact


class Provider(StrEnum):
    """Who sent it, and so how it is authenticated and read."""

    GHL = "ghl"  # an app's webhook, signed
    GHL_WORKFLOW = "ghl_workflow"  # a workflow's action, with a secret
    EMAILBISON = "emailbison"  # with a secret


class UnreadableEvent(InvalidInput):
    """A body that says nothing that can be stored. Its text quotes nothing of it."""


class EventKind(StrEnum):
    """What an event means to us. Whatever we do nothing about is `OTHER`, and is kept all the same."""

    CONTACT_CHANGED = "contact_changed"
    CONTACT_DELETED = "contact_deleted"
    MESSAGE_RECEIVED = "message_received"
    MESSAGE_SENT = "message_sent"
    MESSAGE_OF_KNOWN_LEAD = "message_of_known_lead"  # a reply to no campaign: newsletters and warm-up mail come so, too
    LEAD_REPLIED = "lead_replied"
    LEAD_INTERESTED = "lead_interested"
    LEAD_BOUNCED = "lead_bounced"
    LEAD_UNSUBSCRIBED = "lead_unsubscribed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class SentBy:
    """Who writes to the person in EmailBison: the account, and the campaign that it does so for (None: for none)."""

    sender_id: int
    campaign_id: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What a body says. Its `repr` shows no value of a person.

    Attributes:
        provider: who sent it.
        kind: what it means to us.
        event_type: its name as the sender gives it; a made-up one where there is none.
        dedupe_key: the same for every delivery of one event. It holds the location (EmailBison: the workspace), so
            that no client can take another's key, and no value of a person.
        location_id: as the body names it; None when it does not (then the route knows it).
        workspace_id: of EmailBison; None otherwise.
        occurred_at: when it happened, as the sender says.
        person: what it says of the person; None when it is about nobody, or nothing identifies them.
        message: the message it brings, None when it brings none.
        contact: the whole contact, of contact events.
        sent_by: who writes to the person, of EmailBison's events.
    """

    provider: Provider
    kind: EventKind
    event_type: str
    dedupe_key: str
    location_id: str | None = None
    workspace_id: int | None = None
    occurred_at: datetime | None = None
    person: NewLead | None = None
    message: NewMessage | None = None
    contact: Contact | None = field(default=None, repr=False)
    sent_by: SentBy | None = None

    @property
    def makes_lead(self) -> bool:
        """Whether the person becomes a lead at once: somebody wrote to the client, or is interested."""
        return self.person is not None and self.kind in _MAKES_LEAD


_MAKES_LEAD = frozenset({EventKind.MESSAGE_RECEIVED, EventKind.LEAD_REPLIED, EventKind.LEAD_INTERESTED})
