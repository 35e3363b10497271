"""EmailBison workspaces: the leads, mailboxes and replies in each, and the events that happened there.

What of it EmailBison's API answers is `emailbison.py`; how the objects look on the wire is `emailbison_payloads.py`.
"""

import string
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.contacts import email_key
from ghl_pipeline.sandbox.emailbison_payloads import (
    LONG_TEXT,
    WITH_REPLY,
    BisonEvent,
    BisonLead,
    Occurrence,
    Reply,
    event_payload,
)
from ghl_pipeline.sandbox.limits import Limits, RateLimiter
from ghl_pipeline.sandbox.mailboxes import Mailboxes
from ghl_pipeline.sandbox.people import seeded
from ghl_pipeline.sandbox.responses import JsonObject
from ghl_pipeline.sandbox.sender_payloads import SenderEmail
from ghl_pipeline.sandbox.statistics import LocationStatistics

LIMITS: Final = Limits(requests=3000, interval_seconds=60.0, requests_per_day=10**9)
"""3,000 requests a minute is what the vendor's own tool is told; its documentation says nothing."""
_TOKEN_CHARACTERS: Final = string.ascii_letters + string.digits
_STATUS_AFTER: Final = {
    BisonEvent.LEAD_REPLIED: "replied",
    BisonEvent.EMAIL_BOUNCED: "bounced",
    BisonEvent.LEAD_UNSUBSCRIBED: "unsubscribed",
}


@dataclass
class RecordedEvent:
    """An event of the log: its payload is what webhooks carry, the identity is here. Time in epoch milliseconds."""

    id: int
    uuid: str
    kind: BisonEvent
    payload: JsonObject
    created_at: int
    reply_id: int | None = None
    lead_id: int | None = None
    deliveries: int = 0


class Workspace:
    """A client's workspace. Its token opens nothing but the sandbox, and yet stays out of the `repr`."""

    def __init__(self, workspace_id: int, name: str, token: str, location_id: str, *, now: int) -> None:
        self.id = workspace_id
        self.name = name
        self.token = token
        self.location_id = location_id
        self.leads: dict[int, BisonLead] = {}
        self.replies: dict[int, Reply] = {}
        self.mailboxes = Mailboxes(now)
        self.events: list[RecordedEvent] = []
        """Oldest first."""
        self.sent: list[Reply] = []
        """What was sent through the API, oldest first."""
        self.limiter = RateLimiter(LIMITS)
        self.statistics = LocationStatistics(LIMITS.interval_seconds)
        self._ids_by_email: dict[str, int] = {}
        self._next_lead = 1
        self._last_replies: dict[int, int] = {}
        self._numbers = count(workspace_id * 1_000_000 + 1)
        self._rng = seeded("workspace events", workspace_id)

    def __repr__(self) -> str:
        return f"Workspace({self.id}, {len(self.leads)} leads, {len(self.events)} events)"

    @property
    def senders(self) -> list[SenderEmail]:
        """The mailboxes that there are."""
        return self.mailboxes.senders

    @property
    def faults_key(self) -> str:
        """Under this name the fault board has the faults of the workspace, apart from its location's."""
        return f"workspace {self.id}"

    def add_leads(self, leads: Iterable[BisonLead]) -> None:
        """Adds leads, or replaces those with their ids."""
        for lead in leads:
            self.leads[lead.id] = lead
            self._next_lead = max(self._next_lead, lead.id + 1)
            self._ids_by_email.setdefault(email_key(lead.email), lead.id)

    def lead_with(self, email: str) -> BisonLead | None:
        """The lead with this e-mail."""
        lead_id = self._ids_by_email.get(email_key(email))
        return None if lead_id is None else self.leads[lead_id]

    def new_lead(
        self, email: str, names: tuple[str | None, str | None] = (None, None), company: str | None = None, *, now: int
    ) -> BisonLead:
        """Adds a lead with the next free id."""
        lead = BisonLead(
            id=self._next_lead,
            email=email,
            first_name=names[0],
            last_name=names[1],
            company=company,
            created_at=now,
        )
        self.add_leads([lead])
        return lead

    def happens(
        self,
        kind: BisonEvent,
        lead: BisonLead,
        *,
        now: int,
        text: str = "Yes, tell me more.",
        same_reply: bool = False,
        without_reply: bool = False,
        automated: bool = False,
        long: bool = False,
    ) -> RecordedEvent:
        """Makes an event happen; the log has it from now on, whether or not it is delivered.

        Args:
            kind: what happens.
            lead: to whom; of an untracked reply, who wrote it.
            now: epoch milliseconds.
            text: of the reply, for events that have one.
            same_reply: the event is about the lead's last reply, as an interest is that follows the reply itself.
            without_reply: leaves the reply out, as of a lead that is marked without one.
            automated: the reply is an out-of-office note.
            long: the reply quotes half a megabyte.
        """
        number = next(self._numbers)
        status = _STATUS_AFTER.get(kind)
        if status is not None:
            lead = msgspec.structs.replace(lead, status=status)
            self.add_leads([lead])
        reply: Reply | None = None
        if kind in WITH_REPLY and not without_reply:
            last = self._last_replies.get(lead.id) if same_reply else None
            reply = self.replies[last] if last else self._reply(kind, lead, number, now, text, long=long)
            interested = reply.interested or kind is BisonEvent.LEAD_INTERESTED
            reply = msgspec.structs.replace(reply, interested=interested, automated=automated or reply.automated)
            self.replies[reply.id] = reply
            if reply.folder == "Inbox":
                self._last_replies[lead.id] = reply.id
        sender = self.mailboxes.sender_for(lead.id)
        if kind is BisonEvent.EMAIL_ACCOUNT_DISCONNECTED and self.mailboxes.with_id(sender.id) is not None:
            sender = self.mailboxes.change(sender.id, status="Disconnected")
        campaign = self.mailboxes.campaign_for(lead.id)
        occurrence = Occurrence(lead, sender, campaign, now, number, reply)
        event = RecordedEvent(
            id=number,
            uuid=self._uuid(),
            kind=kind,
            payload=event_payload(kind, self.id, self.name, occurrence),
            created_at=now,
            reply_id=reply.id if reply else None,
            lead_id=lead.id,
        )
        self.events.append(event)
        return event

    def answered(self, reply: Reply, sender: SenderEmail, text: str, to_email: str, now: int) -> Reply:
        """Sends an answer to a reply by hand: it is in the master inbox and among `sent` from now on."""
        number = next(self._numbers)
        sent = msgspec.structs.replace(
            reply,
            id=number,
            uuid=self._uuid(),
            text=text,
            html=text,
            raw=None,
            from_email=sender.email,
            from_name=sender.name,
            to_email=to_email,
            sender_email_id=sender.id,
            received_at=now,
            folder="Sent",
            type="Outgoing Email",
            automated=False,
            interested=False,
        )
        self.replies[number] = sent
        self.sent.append(sent)
        return sent

    def reset_statistics(self) -> None:
        """Starts counting anew; the rate limit's window goes on."""
        self.statistics = LocationStatistics(LIMITS.interval_seconds)

    def _reply(self, kind: BisonEvent, lead: BisonLead, number: int, now: int, text: str, *, long: bool) -> Reply:
        sender = self.mailboxes.sender_for(lead.id)
        quoted = LONG_TEXT * 8000 if long else ""
        reply = Reply(
            id=number,
            uuid=self._uuid(),
            subject="Re: A question about your business",
            text=text + ("\n\n" + quoted if quoted else ""),
            html=f"<div>{text}</div>" + (f"<blockquote>{quoted}</blockquote>" if quoted else ""),
            raw=f"From: a lead\r\n\r\n{text}\r\n{quoted}" if long else None,
            from_email=lead.email,
            from_name=" ".join(part for part in (lead.first_name, lead.last_name) if part),
            to_email=sender.email,
            sender_email_id=sender.id,
            received_at=now,
            lead_id=lead.id,
            campaign_id=self.mailboxes.campaign_for(lead.id).id,
        )
        changes: dict[str, object] = {}
        if kind is BisonEvent.EMAIL_BOUNCED:
            changes = {
                "folder": "Bounced",
                "type": "Bounced",
                "from_email": "mailer-daemon@example.net",
                "from_name": "Mail Delivery Subsystem",
                "subject": "Delivery Status Notification (Failure)",
                "text": "The address could not be found.",
                "html": "<p>The address could not be found.</p>",
            }
        elif kind is BisonEvent.MANUAL_EMAIL_SENT:
            changes = {"folder": "Sent", "type": "Outgoing Email", "from_email": sender.email, "to_email": lead.email}
        elif kind is BisonEvent.UNTRACKED_REPLY_RECEIVED:
            changes = {"type": "Untracked Reply", "lead_id": None, "campaign_id": None}
        return msgspec.structs.replace(reply, **changes)

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


class Workspaces:
    """All workspaces of the EmailBison instance."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self.by_id: dict[int, Workspace] = {}
        self._seed = seed
        self._clock = clock
        self._by_token: dict[str, Workspace] = {}

    def add(
        self,
        location_id: str,
        *,
        workspace_id: int | None = None,
        name: str | None = None,
        token: str | None = None,
        leads: Iterable[BisonLead] = (),
    ) -> Workspace:
        """Adds a workspace for the client of a location; what is not given is made from the seed."""
        rng = seeded("workspace", self._seed, len(self.by_id))
        number = workspace_id or len(self.by_id) + 101
        secret = f"{rng.randrange(1, 1000)}|{''.join(rng.choices(_TOKEN_CHARACTERS, k=40))}"
        workspace = Workspace(
            number, name or f"Sample Workspace {number}", token or secret, location_id, now=int(self._clock() * 1000)
        )
        workspace.add_leads(leads)
        self.by_id[number] = workspace
        self._by_token[workspace.token] = workspace
        return workspace

    def known(self, workspace_id: object) -> Workspace:
        """The workspace with this id.

        Raises:
            InvalidInput: there is none.
        """
        workspace = self.by_id.get(workspace_id) if isinstance(workspace_id, int) else None
        if workspace is None:
            raise InvalidInput("The sandbox has no such workspace. Its workspaces are listed at /_sandbox/workspaces.")
        return workspace

    def of_token(self, token: str) -> Workspace | None:
        """The workspace that a token opens."""
        return self._by_token.get(token)

    def of_location(self, location_id: str) -> Workspace | None:
        """The first workspace of the location's client."""
        return next((each for each in self.by_id.values() if each.location_id == location_id), None)
