"""What the sandbox can be told to send: the events by name, and the order of `POST /_sandbox/webhooks`."""

from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent
from ghl_pipeline.sandbox.faults import Count, Seconds, Share
from ghl_pipeline.sandbox.webhook_payloads import ContactEvent

Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class AppEvent(StrEnum):
    """Events of a GHL app, signed. The first five are about a contact, and happen to it in the sandbox's world too."""

    CONTACT_CREATE = "contact_create"
    CONTACT_UPDATE = "contact_update"
    CONTACT_DELETE = "contact_delete"
    CONTACT_TAG_UPDATE = "contact_tag_update"
    CONTACT_DND_UPDATE = "contact_dnd_update"
    INBOUND_SMS = "inbound_sms"
    INBOUND_EMAIL = "inbound_email"
    INBOUND_WHATSAPP = "inbound_whatsapp"
    INBOUND_CALL = "inbound_call"
    OUTBOUND_SMS = "outbound_sms"
    NOTE_CREATE = "note_create"  # one of the many that nobody here does anything about


class WorkflowEvent(StrEnum):
    """What a workflow's webhook action sends: about a contact, or about what it wrote; standard or custom body."""

    CONTACT = "workflow_contact"
    SMS = "workflow_sms"
    CUSTOM_CONTACT = "custom_workflow_contact"
    CUSTOM_SMS = "custom_workflow_sms"


CONTACT_EVENTS: Final = {
    AppEvent.CONTACT_CREATE: ContactEvent.CREATE,
    AppEvent.CONTACT_UPDATE: ContactEvent.UPDATE,
    AppEvent.CONTACT_DELETE: ContactEvent.DELETE,
    AppEvent.CONTACT_TAG_UPDATE: ContactEvent.TAG_UPDATE,
    AppEvent.CONTACT_DND_UPDATE: ContactEvent.DND_UPDATE,
}
MESSAGE_TYPES: Final = {
    AppEvent.INBOUND_SMS: "TYPE_SMS",
    AppEvent.INBOUND_EMAIL: "TYPE_EMAIL",
    AppEvent.INBOUND_WHATSAPP: "TYPE_WHATSAPP",
    AppEvent.INBOUND_CALL: "TYPE_CALL",
    AppEvent.OUTBOUND_SMS: "TYPE_SMS",
}
EventName: TypeAlias = AppEvent | WorkflowEvent | BisonEvent
_EVENTS: Final[dict[str, EventName]] = {
    **{each.value: each for each in AppEvent},
    **{each.value: each for each in WorkflowEvent},
    **{each.value.lower(): each for each in BisonEvent},
}


class SendOrder(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An order to send `count` events, each `copies` times.

    Whom they are about: `contact`, `lead` or `email` when given, else the location's contacts in turn, of EmailBison's
    events the workspace's leads or, when it has none, leads with the contacts' addresses; with `strangers` somebody
    new each time.
    """

    url: str
    """Base URL of the receiver; the path follows from the event unless `path` is given."""
    location: str
    event: str
    """A value of `AppEvent`, `WorkflowEvent`, or `BisonEvent` in lower case."""
    path: str | None = None
    secret: str | None = None
    """Goes into the path of workflow and EmailBison webhooks."""
    secret_header: str | None = None
    """Name of a header that carries the secret instead."""

    count: Number = 1
    copies: Number = 1
    copies_as_new: bool = False
    """Each copy of an app's event has a `webhookId` of its own."""
    shuffle: bool = False
    """All deliveries are sent in a random order."""
    lost_share: Share = 0.0
    """That share of the events is never delivered."""
    repeated_share: Share = 0.0
    """That share of the events is delivered once more than `copies`."""
    deliver: bool = True
    """False: the events happen, EmailBison's log lists them, and nothing is sent."""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    retries: Count = 0
    """More attempts per delivery while it is not answered with 2xx."""
    retry_429_only: bool = False
    """Whatever else is answered counts as delivered, as one of GHL's two contradicting texts says of its app events."""
    retry_pause_seconds: Seconds = 0.1
    timeout_seconds: Seconds = 15.0
    seed: int = 0
    """Of what is shuffled, lost and repeated."""

    contact: str | None = None
    lead: int | None = None
    """EmailBison's lead by its id."""
    email: str | None = None
    """EmailBison's lead by e-mail; a new one when it has none with it. GHL need not know it."""
    strangers: bool = False
    """A new contact for each event; for EmailBison a new lead whom GHL does not know."""
    fields: dict[str, object] = {}
    """Of contact events: what changes, in the names of `contacts.Contact`; of a workflow: its `customData`."""
    body: str | None = None
    """Text of a message or reply."""
    workspace: int | None = None
    """EmailBison's workspace; the location's when not given."""
    same_reply: bool = False
    """An EmailBison event about the lead's last reply, as an interest that follows it."""
    without_reply: bool = False
    automated: bool = False
    """The reply is an out-of-office note."""
    long: bool = False
    """The reply quotes half a megabyte."""

    signatures: Literal["both", "ed25519", "rsa", "none"] = "both"
    bad_signature: bool = False
    """Signed is something else than what is sent."""
    timestamp_shift_seconds: float = 0.0
    """Added to the time that an app's event says, or at which an EmailBison event happened."""
    nested: bool = False
    """An app's event shaped as in GHL's guide."""

    @property
    def event_name(self) -> EventName:
        """The event.

        Raises:
            InvalidInput: there is none of that name.
        """
        name = _EVENTS.get(self.event)
        if name is None:
            raise InvalidInput(f"The sandbox sends no such event. It sends: {', '.join(_EVENTS)}.")
        return name


def read_order(content: bytes) -> SendOrder:
    """The order in a request's body.

    Raises:
        InvalidInput: it is none; the text names what is wrong.
    """
    try:
        return msgspec.json.decode(content, type=SendOrder)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"This is no order: {error}. See ghl_pipeline/sandbox/webhook_orders.py.") from None
