"""EmailBison's mailboxes and campaigns: the records, and how events and the API show a mailbox."""

import msgspec

from ghl_pipeline.sandbox.responses import JsonObject, moment


class SenderEmail(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox that the workspace writes from."""

    id: int
    name: str
    email: str
    status: str = "Connected"
    """`Connected`, `Disconnected` or whatever else; only the first can send."""
    daily_limit: int = 25
    created_at: int = 0
    broken: bool = False
    """The list does not show it, and yet the provider refuses its password when it is to send."""
    selectable: bool = True
    """False: the list shows it, and yet a reply by it is refused as by an unknown one."""


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign; `sender_ids` None means that it sends by all mailboxes."""

    id: int
    name: str
    sender_ids: tuple[int, ...] | None = None


def sender_object(sender: SenderEmail) -> JsonObject:
    """A sender's mailbox, in events and in the API."""
    return {
        "id": sender.id,
        "name": sender.name,
        "email": sender.email,
        "email_signature": None,
        "daily_limit": sender.daily_limit,
        "type": "google_workspace_oauth",
        "status": sender.status,
        "warmup_enabled": True,
        "tags": [],
        "emails_sent_count": 0,
        "total_replied_count": 0,
        "total_opened_count": 0,
        "unsubscribed_count": 0,
        "bounced_count": 0,
        "unique_replied_count": 0,
        "unique_opened_count": 0,
        "total_leads_contacted_count": 0,
        "interested_leads_count": 0,
        "created_at": moment(sender.created_at),
        "updated_at": moment(sender.created_at),
    }
