"""EmailBison's objects as its webhooks and its API show them, which differ in places, and the envelope of an event.

An event's payload has no id: the identity is on the outer row of `GET /api/events`. Who is in a workspace and what
happened there is `workspaces.py`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from ghl_pipeline.sandbox.responses import JsonObject, moment
from ghl_pipeline.sandbox.sender_payloads import Campaign, SenderEmail, sender_object

LONG_TEXT: Final = "It was a long quotation of everything that had been written before. "
_STEP_ID: Final = 11


class BisonEvent(StrEnum):
    """The types of events that the sandbox can make, as `event.type` spells them."""

    LEAD_REPLIED = "LEAD_REPLIED"
    LEAD_INTERESTED = "LEAD_INTERESTED"
    EMAIL_BOUNCED = "EMAIL_BOUNCED"
    UNTRACKED_REPLY_RECEIVED = "UNTRACKED_REPLY_RECEIVED"
    MANUAL_EMAIL_SENT = "MANUAL_EMAIL_SENT"
    LEAD_UNSUBSCRIBED = "LEAD_UNSUBSCRIBED"
    EMAIL_SENT = "EMAIL_SENT"
    EMAIL_OPENED = "EMAIL_OPENED"
    LEAD_FIRST_CONTACTED = "LEAD_FIRST_CONTACTED"
    TAG_ATTACHED = "TAG_ATTACHED"
    TAG_REMOVED = "TAG_REMOVED"
    EMAIL_ACCOUNT_DISCONNECTED = "EMAIL_ACCOUNT_DISCONNECTED"


EVENT_NAMES: Final = {
    BisonEvent.LEAD_REPLIED: "Contact Replied",
    BisonEvent.LEAD_INTERESTED: "Contact Interested",
    BisonEvent.EMAIL_BOUNCED: "Email Bounced",
    BisonEvent.UNTRACKED_REPLY_RECEIVED: "Untracked Reply Received",
    BisonEvent.MANUAL_EMAIL_SENT: "Manual Email Sent",
    BisonEvent.LEAD_UNSUBSCRIBED: "Contact Unsubscribed",
    BisonEvent.EMAIL_SENT: "Email Sent",
    BisonEvent.EMAIL_OPENED: "Email Opened",
    BisonEvent.LEAD_FIRST_CONTACTED: "Contact First Emailed",
    BisonEvent.TAG_ATTACHED: "Tag Attached",
    BisonEvent.TAG_REMOVED: "Tag Removed",
    BisonEvent.EMAIL_ACCOUNT_DISCONNECTED: "Email Account Disconnected",
}
"""`event.name` of each type, as the page on triggers calls it."""

WITH_REPLY: Final = frozenset(
    {
        BisonEvent.LEAD_REPLIED,
        BisonEvent.LEAD_INTERESTED,
        BisonEvent.EMAIL_BOUNCED,
        BisonEvent.UNTRACKED_REPLY_RECEIVED,
        BisonEvent.MANUAL_EMAIL_SENT,
    }
)
"""Events with a `reply`. A manual e-mail is one, in the folder of what was sent."""


class BisonLead(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whom the workspace's campaigns write to. Times are epoch milliseconds."""

    id: int
    email: str
    first_name: str | None = None
    last_name: str | None = None
    company: str | None = None
    title: str | None = None
    status: str = "in_sequence"
    phone: str | None = None  # EmailBison has no phones; agencies keep them in a custom variable
    created_at: int = 0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A mail of the master inbox: received, bounced back, or sent by hand."""

    id: int
    uuid: str
    subject: str
    text: str
    html: str
    from_email: str
    from_name: str
    to_email: str
    sender_email_id: int
    received_at: int
    lead_id: int | None = None
    campaign_id: int | None = None
    folder: str = "Inbox"
    type: str = "Tracked Reply"
    automated: bool = False
    interested: bool = False
    raw: str | None = None


@dataclass(frozen=True)
class Occurrence:
    """What an event is made of; which parts a type shows is the type's."""

    lead: BisonLead
    sender: SenderEmail
    campaign: Campaign
    at: int
    number: int
    """Of this occurrence: the id of its scheduled e-mail and of its campaign event."""
    reply: Reply | None = None
    tag: str = field(default="hot")


def event_payload(kind: BisonEvent, workspace_id: int, workspace_name: str, occurrence: Occurrence) -> JsonObject:
    """The body of a webhook, and the `payload` of a row of `GET /api/events`: the two are equal."""
    event: JsonObject = {
        "type": kind.value,
        "name": EVENT_NAMES[kind],
        "instance_url": "https://emailbison.example.com",
        "workspace_id": workspace_id,
        "workspace_name": workspace_name,
    }
    return {"event": event, "data": _data(kind, occurrence)}


def _data(kind: BisonEvent, occurrence: Occurrence) -> JsonObject:
    if kind in (BisonEvent.TAG_ATTACHED, BisonEvent.TAG_REMOVED):
        return {
            "tag_id": 5,
            "tag_name": occurrence.tag,
            "taggable_id": occurrence.lead.id,
            "taggable_type": "Lead",
        }
    sender: JsonObject = {"sender_email": sender_object(occurrence.sender)}
    if kind is BisonEvent.EMAIL_ACCOUNT_DISCONNECTED:
        return sender
    data: JsonObject = {}
    if kind in WITH_REPLY and occurrence.reply is not None:
        data["reply"] = webhook_reply(occurrence.reply)
    if kind is BisonEvent.UNTRACKED_REPLY_RECEIVED:
        return {**data, **sender}
    data |= {
        "lead": webhook_lead(occurrence.lead),
        "campaign": {"id": occurrence.campaign.id, "name": occurrence.campaign.name},
        "scheduled_email": _scheduled_email(occurrence),
        **sender,
    }
    if kind is not BisonEvent.MANUAL_EMAIL_SENT:
        data["campaign_event"] = {
            "id": occurrence.number,
            "type": kind.value.rpartition("_")[2].lower(),
            "created_at": moment(occurrence.at),
            "created_at_local": moment(occurrence.at),
            "local_timezone": "UTC",
        }
    return data


def webhook_lead(lead: BisonLead) -> JsonObject:
    """A lead inside an event."""
    return {
        "id": lead.id,
        "email": lead.email,
        "first_name": lead.first_name,
        "last_name": lead.last_name,
        "status": lead.status,
        "title": lead.title,
        "company": lead.company,
        "custom_variables": [{"name": "phone", "value": lead.phone}] if lead.phone else [],
        "emails_sent": 1,
        "opens": 0,
        "unique_opens": 0,
        "replies": 1,
        "unique_replies": 1,
        "bounces": 0,
    }


def api_lead(lead: BisonLead) -> JsonObject:
    """A lead as the API shows it: the counters are in `overall_stats`."""
    counters = ("emails_sent", "opens", "unique_opens", "replies", "unique_replies")
    plain = webhook_lead(lead)
    return {
        **{name: value for name, value in plain.items() if name not in (*counters, "bounces")},
        "notes": None,
        "tags": [],
        "lead_campaign_data": [],
        "overall_stats": {name: plain[name] for name in counters},
        "created_at": moment(lead.created_at),
        "updated_at": moment(lead.created_at),
    }


def webhook_reply(reply: Reply) -> JsonObject:
    """A reply inside an event: its subject is called `email_subject` there."""
    return {
        "id": reply.id,
        "uuid": reply.uuid,
        "email_subject": reply.subject,
        "interested": reply.interested,
        "automated_reply": reply.automated,
        "html_body": reply.html,
        "text_body": reply.text,
        "raw_body": reply.raw,
        "headers": None,
        "date_received": moment(reply.received_at),
        "type": reply.type,
        "folder": reply.folder,
        "from_name": reply.from_name,
        "from_email_address": reply.from_email,
        "primary_to_email_address": reply.to_email,
        "to": [{"address": reply.to_email, "name": None}],
        "cc": None,
        "bcc": None,
        "parent_id": None,
        "raw_message_id": f"<{reply.uuid}@example.com>",
        "attachments": [],
        "created_at": moment(reply.received_at),
        "updated_at": moment(reply.received_at),
    }


def api_reply(reply: Reply, lead: BisonLead | None) -> JsonObject:
    """A reply as the API shows it: `subject`, and what it belongs to."""
    shown = webhook_reply(reply)
    shown["subject"] = shown.pop("email_subject")
    return {
        **shown,
        "read": False,
        "tracked_reply": reply.lead_id is not None,
        "lead_id": reply.lead_id,
        "lead": api_lead(lead) if lead else None,
        "campaign_id": reply.campaign_id,
        "scheduled_email_id": None,
        "sender_email_id": reply.sender_email_id,
    }


def _scheduled_email(occurrence: Occurrence) -> JsonObject:
    return {
        "id": occurrence.number,
        "lead_id": occurrence.lead.id,
        "sequence_step_id": _STEP_ID,
        "sequence_step_order": 1,
        "sequence_step_variant": None,
        "email_subject": "A question about your business",
        "email_body": "<p>May I ask you something?</p>",
        "status": "sent",
        "sent_at": moment(occurrence.at),
        "scheduled_date_est": moment(occurrence.at),
        "scheduled_date_local": moment(occurrence.at),
        "local_timezone": "UTC",
        "opens": 0,
        "unique_opens": 0,
        "replies": 0,
        "unique_replies": 0,
        "interested": None,
        "raw_message_id": f"<{occurrence.number}.sent@example.com>",
    }
