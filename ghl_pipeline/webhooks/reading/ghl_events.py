"""What the webhooks of a GHL app say. Their fields are flat in what is really sent, and below `data` in GHL's guide."""

from dataclasses import replace

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.ghl.channels import channel_of
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.webhooks.events import Event, EventKind, Provider, UnreadableEvent
from ghl_pipeline.webhooks.reading.json_values import (
    Fields,
    address,
    digest_of,
    event_name,
    fields,
    first,
    identifier,
    key_part,
    moment,
    text,
)
from ghl_pipeline.webhooks.reading.plain_text import plain_text

_CONTACT_CHANGES = frozenset({"ContactCreate", "ContactUpdate", "ContactTagUpdate", "ContactDndUpdate"})
_MESSAGES = frozenset({"InboundMessage", "OutboundMessage"})


def read_ghl_event(payload: Fields) -> Event:
    """Reads an app's webhook.

    Raises:
        UnreadableEvent: it has no type, or no location.
    """
    said = {**fields(payload.get("data")), **payload}
    location_id = text(said.get("locationId"))
    if text(said.get("type")) is None:
        raise UnreadableEvent("An event of a GHL app has no `type`, so nobody knows what it says. Nothing was stored.")
    if location_id is None or not is_contact_id(location_id):
        raise UnreadableEvent("An event of a GHL app has no `locationId`, so it is nobody's. Nothing was stored.")
    event = Event(
        Provider.GHL,
        EventKind.OTHER,
        event_name(said.get("type"), "Unknown"),
        _key(location_id, said),
        location_id=location_id,
        occurred_at=moment(said.get("timestamp")),
    )
    if event.event_type in _MESSAGES:
        return _message_event(event, said)
    return _contact_event(event, said)


def _key(location_id: str, said: Fields) -> str:
    """`webhookId` where there is one, since GHL repeats it with each delivery; else the most that is known."""
    location = key_part(location_id)
    if webhook_id := text(said.get("webhookId")):
        return f"{location}:{key_part(webhook_id)}"
    name = event_name(said.get("type"), "Unknown")
    if name in _MESSAGES and (message_id := text(said.get("messageId"))):
        return f"{location}:message:{key_part(message_id)}"
    contact_id, timestamp = first((said, ("id", "contactId"))), text(said.get("timestamp"))
    if contact_id and timestamp:
        return f"{location}:{name}:{key_part(contact_id)}:{key_part(timestamp)}"
    return f"{location}:{digest_of(said)}"


def _contact_event(event: Event, said: Fields) -> Event:
    contact_id = first((said, ("id", "contactId")))
    if contact_id is None or not is_contact_id(contact_id):
        return event
    if event.event_type == "ContactDelete":
        return replace(event, kind=EventKind.CONTACT_DELETED, person=NewLead(contact_id=contact_id))
    if event.event_type not in _CONTACT_CHANGES:
        return event
    contact = contact_of(contact_id, said)
    return replace(event, kind=EventKind.CONTACT_CHANGED, contact=contact, person=lead_of(contact))


def contact_of(contact_id: str, said: Fields) -> Contact:
    """The contact that a webhook describes. Empty fields are left out of it, so a missing one is an empty one.

    GHL sends the names as they are spelled; where only the whole name is given, the parts need a look at the contact.
    """
    first_name = first((said, ("firstName", "first_name")))
    last_name = first((said, ("lastName", "last_name")))
    return Contact(
        id=contact_id,
        email=address(said.get("email")),
        phone=text(said.get("phone")),
        first_name=first_name,
        last_name=last_name,
        company_name=first((said, ("companyName", "company_name", "businessName"))),
        names_are_whole=bool(first_name or last_name) or not first((said, ("name", "fullName", "full_name"))),
    )


def lead_of(contact: Contact) -> NewLead:
    """The contact as what is known of a lead."""
    return NewLead(
        contact_id=contact.id,
        email=contact.email,
        phone=contact.phone,
        first_name=contact.first_name,
        last_name=contact.last_name,
        company_name=contact.company_name,
    )


def _message_event(event: Event, said: Fields) -> Event:
    """A message; a call, a voicemail or a comment is none. The direction decides, since GHL's samples mix up types."""
    kinds = (said.get("messageType"), said.get("messageTypeString"), said.get("messageTypeId"))
    named = [name for kind in kinds if (name := text(kind))]
    channel = channel_of(named[0]) if named else "email" if said.get("emailMessageId") else "sms"
    contact_id = text(said.get("contactId"))
    if channel is None or contact_id is None or not is_contact_id(contact_id):
        return event
    direction = (text(said.get("direction")) or "").lower()
    is_outbound = direction == "outbound" if direction in {"inbound", "outbound"} else event.event_type[0] == "O"
    body = text(said.get("body")) or ""
    sent_at = moment(said.get("dateAdded")) or event.occurred_at  # of a contact, that would be its creation
    message = NewMessage(
        provider="ghl",
        external_id=identifier(said.get("messageId")),
        channel=channel,
        direction="outbound" if is_outbound else "inbound",
        subject=text(said.get("subject")),
        body=plain_text(body) if text(said.get("contentType")) == "text/html" else body,
        status=event_name(said.get("status"), "") or None,
        conversation_id=identifier(said.get("conversationId")),
        sent_at=sent_at,
    )
    # The sender of an e-mail that GHL filed under a contact is an address of that contact.
    sender = address(said.get("from")) if channel == "email" and not is_outbound else None
    return replace(
        event,
        kind=EventKind.MESSAGE_SENT if is_outbound else EventKind.MESSAGE_RECEIVED,
        occurred_at=event.occurred_at or sent_at,
        person=NewLead(contact_id=contact_id, email=sender),
        message=message,
    )
