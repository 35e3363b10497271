"""An event on its way into the inbox, and what became of it there."""

from dataclasses import dataclass, field

from ghl_pipeline.webhooks.events import Event


@dataclass(frozen=True, slots=True)
class Delivery:
    """An authenticated event, as it is to be stored. Its `repr` shows no value of a person.

    Attributes:
        event: what the body says.
        body: as it was sent.
        client_id: whose it is; None when no client has the location.
        location_id: of the client, as the route or the workspace knows it; None: as the event names it.
        client_is_active: events of a client that is not are kept and ignored.
        found_by: `webhook`, or `reconcile` for an event that the webhook lost.
    """

    event: Event
    body: bytes = field(repr=False)
    client_id: int | None
    location_id: str | None
    client_is_active: bool = True
    found_by: str = "webhook"


@dataclass(frozen=True, slots=True)
class Stored:
    """A delivery that is in the inbox.

    Attributes:
        event_id: `webhook_events.id`; None when another transaction stored the event at the same moment.
        is_new: whether this delivery made the row.
        lead_id: of the lead that the event made or belongs to; None when it makes none, or the lead could not be
            stored.
    """

    event_id: int | None
    is_new: bool
    lead_id: int | None


@dataclass(frozen=True, slots=True)
class NotStored:
    """A delivery of which nothing was stored, so that its sender should try again.

    Attributes:
        error_class: the class of the reason.
        is_blocked: somebody keeps rows of its client; it is not the event's fault.
    """

    error_class: str
    is_blocked: bool = False
