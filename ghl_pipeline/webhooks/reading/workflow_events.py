"""What the actions "Webhook" and "Custom Webhook" of a GHL workflow say.

They have no type, id or time of their own; whoever builds the workflow can add them as custom data. The standard action
sends `contact_id`, the contact's fields, `location{}`, `customData{}` and, of a reply, `message{}`; the custom one what
its author wrote, with the values put in raw: a quote or a line break in a message then breaks the JSON. Of the standard
one the top level is not asked for a message, an id or a time: every custom field of the contact stands there, under the
name that somebody gave it, and a form's field "message" is no SMS.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.ghl.channels import channel_of
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.webhooks.events import Event, EventKind, Provider, UnreadableEvent
from ghl_pipeline.webhooks.reading.ghl_events import contact_of, lead_of
from ghl_pipeline.webhooks.reading.json_values import (
    Fields,
    digest_of,
    event_name,
    fields,
    first,
    identifier,
    key_part,
    moment,
)

# Mending text costs up to half a microsecond a byte. The longest SMS has 1,600 characters.
_LONGEST_MENDED = 262_144
# A string of JSON, also one that is never closed, so that the search is linear in the length of any body.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_CONTACT_ID = re.compile(rb'"contact[_.]?id"\s*:\s*"([A-Za-z0-9]{15,64})"', re.IGNORECASE)

# 1 is TYPE_CALL, as `message.type` of a workflow's own message has it.
_CALLS = frozenset({"1", "CALL", "VOICEMAIL", "IVR_CALL", "CUSTOM_CALL"})


def escape_line_breaks(body: bytes) -> bytes:
    """The body with raw control characters inside its strings escaped, which a message with line breaks brings.

    One of more than 256 KiB is given back as it is.
    """
    if len(body) > _LONGEST_MENDED:
        return body
    return _STRING.sub(lambda string: _CONTROL.sub(lambda found: b"\\u%04x" % found[0][0], string[0]), body)


def salvage_workflow_event(body: bytes, location_id: str | None, received_at: datetime) -> Event:
    """What is left of a body that is no JSON: whose contact it is about, so that at least that is looked up.

    The message that broke it is not guessed at; the import brings it.

    Raises:
        UnreadableEvent: no contact can be told, or several, or it is longer than 256 KiB.
    """
    found = {match.decode() for match in _CONTACT_ID.findall(body)} if len(body) <= _LONGEST_MENDED else set()
    if len(found) != 1 or location_id is None:
        raise UnreadableEvent(
            "A workflow's event is no JSON and names no single contact. Put its values in quotes, and only values "
            "without quotes of their own, in the workflow's webhook action. Nothing was stored."
        )
    text = body.decode(errors="replace")
    return Event(
        Provider.GHL_WORKFLOW,
        EventKind.CONTACT_CHANGED,
        "Unreadable",
        f"{key_part(location_id)}:{digest_of(text)}:{received_at.astimezone(UTC):%Y-%m-%d}",
        person=NewLead(contact_id=found.pop()),
    )


def read_workflow_event(payload: Fields, location_id: str | None, received_at: datetime) -> Event:
    """Reads the body of a workflow's webhook action.

    Args:
        payload: the body.
        location_id: of the client whose secret it came with; None: the one that it names.
        received_at: aware; its date tells the same words of two days apart when the body has no id and no time.

    Raises:
        UnreadableEvent: it has no contact, no message and no event name; or no location is known.
    """
    custom = fields(payload.get("customData")) or fields(payload.get("custom_data"))
    named = _location_named(payload, custom)
    owner = location_id or named
    if owner is None:
        raise UnreadableEvent("A workflow's event has no location, so it is nobody's. Nothing was stored.")
    own = {} if _is_standard(payload) else payload
    said = (custom, fields(payload.get("message")), own)
    name = first((custom, ("event", "event_type", "eventType", "type")), (own, ("event", "event_type", "type")))
    at = moment(first((custom, _TIMES), (own, _TIMES)))
    contact, person = _person(payload, custom)
    message = _message(said, at)
    if person is None and message is None and name is None:
        raise UnreadableEvent(
            "A workflow's event names no contact, no message and no event. Add `contact_id` to the custom data of the "
            "workflow's webhook action. Nothing was stored."
        )
    event = Event(
        Provider.GHL_WORKFLOW,
        EventKind.OTHER,
        event_name(name, "Message" if message else "Contact"),
        _key(
            owner,
            payload,
            person,
            message,
            event_id=first((custom, _EVENT_IDS), (own, _EVENT_IDS)),
            at=at or received_at,
        ),
        location_id=named,
        occurred_at=at,
        person=person,
    )
    if person is None:
        return event
    if message is None:
        if _channel_named(said)[1]:
            return event  # a call: nothing of the contact changed
        return replace(event, kind=EventKind.CONTACT_CHANGED, contact=contact)
    sent = message.direction == "outbound"
    return replace(event, kind=EventKind.MESSAGE_SENT if sent else EventKind.MESSAGE_RECEIVED, message=message)


_TIMES = ("timestamp", "dateAdded", "date_added", "sent_at")
_EVENT_IDS = ("event_id", "eventId", "webhookId")
_CONTACT_IDS = ("contact_id", "contactId", "contactid")
_MESSAGE_IDS = ("message_id", "messageId")
# Custom data, the trigger's `message{}`, and the top level of a custom webhook (empty of a standard one).
_Said: TypeAlias = tuple[Fields, Fields, Fields]


def _is_standard(payload: Fields) -> bool:
    """Whether it comes from the standard action, by the objects that this one always sends."""
    return any(isinstance(payload.get(name), dict) for name in ("location", "workflow", "customData", "custom_data"))


def _of_event(said: _Said, *names: str) -> str | None:
    return first(*((where, names) for where in said))


def _location_named(payload: Fields, custom: Fields) -> str | None:
    names = ("location_id", "locationId")
    found = first((fields(payload.get("location")), ("id",)), (payload, names), (custom, names))
    return found if is_contact_id(found) else None


def _person(payload: Fields, custom: Fields) -> tuple[Contact | None, NewLead | None]:
    """Who it is about, as a contact if it has its id, and as a lead; None when nothing identifies them."""
    nested = fields(payload.get("contact"))
    contact_id = first((custom, _CONTACT_IDS), (payload, _CONTACT_IDS), (nested, ("id", "contact_id")))
    said = {**nested, **{name: value for name, value in {**payload, **custom}.items() if value not in ("", None)}}
    if contact_id is not None and is_contact_id(contact_id):
        contact = contact_of(contact_id, said)
        return contact, lead_of(contact)
    nobody = contact_of("", said)
    return None, replace(lead_of(nobody), contact_id=None) if nobody.email else None


def _channel_named(said: _Said) -> tuple[str, bool]:
    """The channel, SMS unless said otherwise, and whether it is no message at all but a call."""
    found = _of_event(said, "channel", "message_type", "messageType", "type") or ""
    return channel_of(found) or "sms", found.upper().removeprefix("TYPE_") in _CALLS


def _message(said: _Said, at: datetime | None) -> NewMessage | None:
    custom, of_trigger, own = said
    names = ("message", "message_body", "messageBody", "body")
    body = first((custom, names), (of_trigger, ("body", "text")), (own, names))
    external_id = first((custom, _MESSAGE_IDS), (of_trigger, ("id", *_MESSAGE_IDS)), (own, _MESSAGE_IDS))
    channel, is_call = _channel_named(said)
    if body is None or is_call:
        return None
    return NewMessage(
        provider="ghl",
        external_id=identifier(external_id),
        channel=channel,
        direction="outbound" if (_of_event(said, "direction") or "").lower() == "outbound" else "inbound",
        subject=_of_event(said, "subject"),
        body=body,
        conversation_id=identifier(_of_event(said, "conversation_id", "conversationId")),
        sent_at=at,
    )


def _key(
    owner: str,
    payload: Fields,
    person: NewLead | None,
    message: NewMessage | None,
    *,
    event_id: str | None,
    at: datetime,
) -> str:
    """An id that the workflow's author added, else the content and its date: a person may say "yes" again tomorrow.

    What is said, and of whom, is in the key beside an id: one that is the same in every event, which is easily put into
    a workflow, would else make a second reply, or another person's, a repetition of the first.
    """
    location = key_part(owner)
    whom = (person.contact_id or person.email) if person else None
    content = digest_of([whom, message.body] if message else [whom, payload])
    if event_id:
        return f"{location}:{key_part(event_id)}:{content}"
    if message is not None and message.external_id:
        return f"{location}:message:{key_part(message.external_id)}:{content}"
    return f"{location}:{digest_of(payload)}:{at.astimezone(UTC):%Y-%m-%d}"
