"""What EmailBison's webhooks say: `{"event": {...}, "data": {...}}`. They carry no id of their own and no signature."""

import re
from dataclasses import replace
from datetime import datetime

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.webhooks.events import Event, EventKind, Provider, SentBy, UnreadableEvent
from ghl_pipeline.webhooks.reading.json_values import (
    Fields,
    address,
    digest_of,
    event_name,
    fields,
    first,
    flag,
    identifier,
    key_part,
    moment,
    number,
    text,
)
from ghl_pipeline.webhooks.reading.plain_text import plain_text

_KINDS = {
    "LEAD_REPLIED": EventKind.LEAD_REPLIED,
    "LEAD_INTERESTED": EventKind.LEAD_INTERESTED,
    "LEAD_UNSUBSCRIBED": EventKind.LEAD_UNSUBSCRIBED,
    "EMAIL_BOUNCED": EventKind.LEAD_BOUNCED,
    "UNTRACKED_REPLY_RECEIVED": EventKind.MESSAGE_OF_KNOWN_LEAD,
    "MANUAL_EMAIL_SENT": EventKind.MESSAGE_SENT,
}
# Types of events that do something here.
USED_TYPES = tuple(_KINDS)
# Of a lead's bounce there may be no other event; a person who marks a reply as interested has read it.
_OF_A_BOUNCE = {EventKind.LEAD_REPLIED: EventKind.LEAD_BOUNCED, EventKind.MESSAGE_OF_KNOWN_LEAD: None}
# A list of columns is shorter; a body of 5 MB could hold a million of them, and cost seconds.
_MOST_VARIABLES = 1000
_LONGEST_NAME = 200
_NAMES_A_PHONE = re.compile(r"\b(phone|mobile|cell|telephone|tel)\b", re.IGNORECASE)


def read_emailbison_event(payload: Fields, location_id: str | None) -> Event:
    """Reads a webhook's body, or an event of `GET /api/events`, which is the same.

    Args:
        payload: the body.
        location_id: of the client whose secret it came with. Part of the key, because two instances of EmailBison
            number their workspaces from 1.

    Raises:
        UnreadableEvent: it has no event type.
    """
    about, data = fields(payload.get("event")), fields(payload.get("data"))
    if text(about.get("type")) is None:
        raise UnreadableEvent(
            "An event of EmailBison has no `event.type`, so nobody knows what it says. Nothing was stored."
        )
    event_type = event_name((text(about.get("type")) or "").upper(), "UNKNOWN")
    workspace = number(about.get("workspace_id"))
    owner = f"{workspace or 0}" if location_id is None else f"{key_part(location_id)}:{workspace or 0}"
    reply = fields(data.get("reply"))
    event = Event(
        Provider.EMAILBISON,
        EventKind.OTHER,
        event_type,
        f"{owner}:{_own_key(event_type, payload, data)}",
        workspace_id=workspace,
        occurred_at=_moment_of(data),
    )
    kind = _KINDS.get(event_type)
    if _is_bounce(reply):
        kind = _OF_A_BOUNCE.get(kind, kind) if kind else None
    if kind is None:
        return event
    person = _person(kind, fields(data.get("lead")), reply)
    if person is None:
        return event
    message = None
    if reply and kind not in {EventKind.LEAD_BOUNCED, EventKind.LEAD_UNSUBSCRIBED}:
        message = _message(kind, reply)
    if message is None and kind in {EventKind.MESSAGE_SENT, EventKind.MESSAGE_OF_KNOWN_LEAD}:
        return event
    return replace(event, kind=kind, person=person, message=message, sent_by=_sent_by(data, reply))


def _own_key(event_type: str, payload: Fields, data: Fields) -> str:
    """What the event is about: a second delivery names the same reply, or the same e-mail and campaign event."""
    reply = text(fields(data.get("reply")).get("id"))
    if reply:
        return f"{event_type}:{_id_part(reply)}"
    email, campaign = (text(fields(data.get(name)).get("id")) for name in ("scheduled_email", "campaign_event"))
    if email and campaign:
        return f"{event_type}:{_id_part(email)}:{_id_part(campaign)}"
    lead = text(fields(data.get("lead")).get("id"))
    if event_type == "LEAD_UNSUBSCRIBED" and lead:  # once in a lifetime; anything else may happen to a lead again
        return f"{event_type}:lead:{_id_part(lead)}"
    return f"{event_type}:{digest_of(payload)}"


def _id_part(written: str) -> str:
    """An id of EmailBison, a number, as it stands in a key."""
    found = number(written)
    return key_part(written) if found is None else str(found)


def _moment_of(data: Fields) -> datetime | None:
    """When it happened: an event has no time of its own, so that of what it is about."""
    reply, of_campaign, email = (fields(data.get(name)) for name in ("reply", "campaign_event", "scheduled_email"))
    times = (reply.get("date_received"), reply.get("created_at"), of_campaign.get("created_at"), email.get("sent_at"))
    return next((found for time in times if (found := moment(time))), None)


def _is_bounce(reply: Fields) -> bool:
    """Whether a mail server wrote the reply, since the e-mail before it could not be delivered."""
    if "bounced" in {(text(reply.get(name)) or "").lower() for name in ("type", "folder")}:
        return True
    return (address(reply.get("from_email_address")) or "").lower().startswith("mailer-daemon@")


def _person(kind: EventKind, lead: Fields, reply: Fields) -> NewLead | None:
    """The lead of the campaign; where there is none, whoever wrote the reply (not who sent a bounce)."""
    lead_id, email = number(lead.get("id")), address(lead.get("email"))
    if lead_id is None and email is None:
        lead_id = number(reply.get("lead_id"))
        is_theirs = kind not in {EventKind.LEAD_BOUNCED, EventKind.MESSAGE_SENT}
        email = address(reply.get("from_email_address")) if is_theirs else None
        if kind is EventKind.MESSAGE_SENT:
            email = address(reply.get("primary_to_email_address"))
    if lead_id is None and email is None:
        return None
    return NewLead(
        emailbison_lead_id=lead_id,
        email=email,
        phone=_phone(lead),
        first_name=text(lead.get("first_name")),
        last_name=text(lead.get("last_name")),
        company_name=text(lead.get("company")),
    )


def _sent_by(data: Fields, reply: Fields) -> SentBy | None:
    """The account that the person was written to by, or wrote to."""
    sender = number(fields(data.get("sender_email")).get("id")) or number(reply.get("sender_email_id"))
    campaign = number(fields(data.get("campaign")).get("id")) or number(reply.get("campaign_id"))
    return None if sender is None else SentBy(sender, campaign)


def _phone(lead: Fields) -> str | None:
    """A phone among the lead's own variables, which have the names that the client's list had."""
    variables = lead.get("custom_variables")
    own = [fields(item) for item in variables[:_MOST_VARIABLES]] if isinstance(variables, list) else []
    named = (((text(item.get("name")) or "")[:_LONGEST_NAME], text(item.get("value"))) for item in own)
    return first((lead, ("phone", "phone_number"))) or next(
        (value for name, value in named if value and _NAMES_A_PHONE.search(re.sub(r"[_-]", " ", name))), None
    )


def _message(kind: EventKind, reply: Fields) -> NewMessage:
    return NewMessage(
        provider="emailbison",
        external_id=identifier(reply.get("id")),
        channel="email",
        direction="outbound" if kind is EventKind.MESSAGE_SENT else "inbound",
        subject=first((reply, ("email_subject", "subject"))),
        body=text(reply.get("text_body")) or plain_text(text(reply.get("html_body")) or ""),
        is_automated=flag(reply.get("automated_reply")),
        is_interested=kind is EventKind.LEAD_INTERESTED or flag(reply.get("interested")),
        sent_at=moment(reply.get("date_received")) or moment(reply.get("created_at")),
    )
