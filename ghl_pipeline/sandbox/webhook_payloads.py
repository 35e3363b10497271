"""The bodies of GHL's webhooks: an app's events, and what a workflow's webhook action sends.

Shaped as live captures show them (flat, empty fields left out), not as the samples of the guide are (nested under
`data`), which `nested` makes of them. EmailBison's are `emailbison_payloads.py`; sending them is `webhook_sender.py`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.conversations import TYPE_NUMBERS, Message
from ghl_pipeline.sandbox.responses import JsonObject, iso_time

_APP_ID: Final = "665c6bb13d4e5364bdec0e2f"
_CHANNELS: Final = {
    "TYPE_CALL": "CALL",
    "TYPE_SMS": "SMS",
    "TYPE_CAMPAIGN_SMS": "SMS",
    "TYPE_CUSTOM_SMS": "SMS",
    "TYPE_EMAIL": "Email",
    "TYPE_WHATSAPP": "WhatsApp",
}
OFFICE_PHONE: Final = "+12125550198"
OFFICE_EMAIL: Final = "office@example.com"
"""The location's own number and address, to which inbound messages go."""


class ContactEvent(StrEnum):
    """An app's events about a contact. All have one schema."""

    CREATE = "ContactCreate"
    UPDATE = "ContactUpdate"
    DELETE = "ContactDelete"
    TAG_UPDATE = "ContactTagUpdate"
    DND_UPDATE = "ContactDndUpdate"


@dataclass(frozen=True)
class Occasion:
    """What an event carries besides its subject: its id, the same on every delivery, and its time in epoch ms."""

    webhook_id: str
    timestamp: int


def contact_event(kind: ContactEvent, contact: Contact, location_id: str, occasion: Occasion) -> JsonObject:
    """An app's event about a contact. There is no `dateUpdated` in it."""
    event: JsonObject = {
        "type": kind.value,
        "locationId": location_id,
        "versionId": _APP_ID,
        "appId": _APP_ID,
        "id": contact.id,
        "address1": contact.address1,
        "city": contact.city,
        "state": contact.state,
        "companyName": contact.company_name,
        "country": contact.country,
        "source": contact.source,
        "dateAdded": iso_time(contact.date_added),
        "dateOfBirth": contact.date_of_birth and f"{contact.date_of_birth}T00:00:00.000Z",
        "dnd": contact.dnd,
        "email": contact.email,
        "name": contact.name,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "phone": contact.phone,
        "postalCode": contact.postal_code,
        "tags": list(contact.tags),
        "website": contact.website,
        "assignedTo": contact.assigned_to,
        "customFields": [{"id": field_id, "value": value} for field_id, value in contact.custom_fields],
    }
    return _sent(event, occasion)


def message_event(message: Message, contact: Contact, location_id: str, occasion: Occasion) -> JsonObject:
    """An app's InboundMessage or OutboundMessage; an e-mail has a few fields of its own."""
    inbound = message.direction == "inbound"
    is_email = message.message_type == "TYPE_EMAIL"
    theirs, ours = (contact.email, OFFICE_EMAIL) if is_email else (contact.phone, OFFICE_PHONE)
    sender, recipient = (theirs, ours) if inbound else (ours, theirs)
    event: JsonObject = {
        "type": "InboundMessage" if inbound else "OutboundMessage",
        "locationId": location_id,
        "versionId": _APP_ID,
        "appId": _APP_ID,
        "body": message.body,
        "contactId": message.contact_id,
        "contentType": "text/html" if is_email else "text/plain",
        "conversationId": message.conversation_id,
        "dateAdded": iso_time(message.date_added),
        "direction": message.direction,
        "messageType": _CHANNELS.get(message.message_type, message.message_type),
        "messageTypeId": TYPE_NUMBERS.get(message.message_type),
        "messageTypeString": message.message_type,
        "messageId": message.id,
        "status": message.status,
        "source": None if inbound else message.source or "app",
        "from": sender,
        "to": recipient,
    }
    if is_email:
        event |= {"emailMessageId": message.id, "threadId": message.conversation_id, "subject": "Your offer"}
        event["to"] = [recipient]  # a string in the documented schema, a list in its example
    if message.message_type == "TYPE_CALL":
        event |= {"callDuration": 42, "callStatus": message.status}
    return _sent(event, occasion)


def other_event(event_type: str, location_id: str, occasion: Occasion) -> JsonObject:
    """An app's event of a type that has nothing to do with contacts or messages."""
    event: JsonObject = {"type": event_type, "locationId": location_id, "versionId": _APP_ID, "appId": _APP_ID}
    return _sent(event, occasion)


def nested(event: JsonObject) -> JsonObject:
    """The same event as the samples of GHL's webhook guide are shaped: its own fields under `data`."""
    outer = ("type", "timestamp", "webhookId")
    inner = {name: value for name, value in event.items() if name not in outer}
    return {**{name: event[name] for name in outer}, "data": inner}


def workflow_event(
    contact: Contact,
    location: tuple[str, str],
    *,
    message: Message | None = None,
    custom_data: JsonObject | None = None,
) -> JsonObject:
    """What a workflow's action "Webhook" sends: the contact in snake case, objects beside it, no type, id or time.

    Args:
        contact: whom the workflow runs for.
        location: id and name of the location.
        message: of a workflow that a customer's reply started.
        custom_data: what whoever built the workflow added.
    """
    body: JsonObject = {
        "contact_id": contact.id,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "full_name": contact.name,
        "email": contact.email,
        "phone": contact.phone,
        "company_name": contact.company_name,
        "tags": ",".join(contact.tags),
        "country": contact.country,
        "city": contact.city,
        "state": contact.state,
        "postal_code": contact.postal_code,
        "full_address": ", ".join(part for part in (contact.address1, contact.city, contact.state) if part),
        "timezone": contact.time_zone,
        "date_created": iso_time(contact.date_added),
        "contact_source": contact.source,
        "contact_type": contact.type,
        # Custom fields come under their display names, between the standard ones.
        **{f"Custom Field {field_id}": value for field_id, value in contact.custom_fields},
    }
    body = {name: value for name, value in body.items() if value is not None}
    if message is not None:
        body["message"] = {
            "type": TYPE_NUMBERS.get(message.message_type),
            "body": message.body,
            "direction": message.direction,
            "status": message.status,
        }
    return {
        **body,
        "location": {"id": location[0], "name": location[1], "country": "US"},
        "workflow": {"id": "5d7ed3a6-2c9b-4b8e-9f0a-61c58f5f3a10", "name": "Tell the dashboard"},
        "triggerData": {},
        "contact": {"attributionSource": {"sessionSource": "CRM UI"}, "lastAttributionSource": {}},
        "attributionSource": {"sessionSource": "CRM UI"},
        "customData": custom_data or {},
    }


def custom_workflow_body(contact: Contact, location_id: str, message: Message | None = None) -> bytes:
    """What a workflow's "Custom Webhook" sends: a JSON text in which GHL has replaced merge fields.

    They are put in as they are, so a quote, a backslash or a line break in a value breaks the JSON.
    """
    fields = {
        "contact_id": contact.id,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "email": contact.email,
        "phone": contact.phone,
        "location_id": location_id,
    }
    if message is not None:
        fields |= {"message": message.body, "message_id": message.id}
    members = (f'  "{name}": "{value or ""}"' for name, value in fields.items())
    return ("{\n" + ",\n".join(members) + "\n}").encode()


def _sent(event: JsonObject, occasion: Occasion) -> JsonObject:
    """Without its empty fields, as GHL leaves them out, and with what every event has."""
    event = {name: value for name, value in event.items() if value not in (None, "", [], ())}
    return {**event, "timestamp": iso_time(occasion.timestamp), "webhookId": occasion.webhook_id}
