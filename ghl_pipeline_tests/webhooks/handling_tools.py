"""An inbox to handle: events as providers send them, stored as the receiver stores them, and the handling put together.

The parts are the real ones; only GHL's retries pause for milliseconds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import text

from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.handling.event_work import Ensurer, EventWork
from ghl_pipeline.webhooks.handling.handle_events import EventHandling, HandlingRules
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline.webhooks.inbox.store_events import Delivery, Stored, store_deliveries
from ghl_pipeline.webhooks.reading.read_event import read_event
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.webhooks.ensuring import PROTECTED, ensurer

START = datetime(2026, 5, 4, 12, tzinfo=UTC)
WORKSPACE = 7
_numbers = itertools.count(1)


def moment(minutes: float = 0) -> str:
    """A time as providers write it, minutes after noon."""
    return (START + timedelta(minutes=minutes)).isoformat()


def contact_changed(place: Place, contact: Contact, *, minutes: float = 0, **values: object) -> dict[str, object]:
    """An app's ContactUpdate of a contact as it is; `values` replace what it says."""
    return {
        "type": "ContactUpdate", "locationId": place.id, "id": contact.id, "email": contact.email,
        "phone": contact.phone, "firstName": contact.first_name, "lastName": contact.last_name,
        "companyName": contact.company_name, "timestamp": moment(minutes), "webhookId": f"hook-{next(_numbers)}",
        **values,
    }  # fmt: skip


def contact_deleted(place: Place, contact_id: str, *, minutes: float = 0) -> dict[str, object]:
    """An app's ContactDelete."""
    return {
        "type": "ContactDelete", "locationId": place.id, "id": contact_id, "timestamp": moment(minutes),
        "webhookId": f"hook-{next(_numbers)}",
    }  # fmt: skip


def sms(place: Place, contact_id: str, body: str = "Yes please", *, direction: str = "inbound") -> dict[str, object]:
    """An app's InboundMessage, or OutboundMessage."""
    number = next(_numbers)
    return {
        "type": "InboundMessage" if direction == "inbound" else "OutboundMessage", "locationId": place.id,
        "contactId": contact_id, "body": body, "messageType": "SMS", "direction": direction,
        "messageId": f"message{number:020}", "dateAdded": moment(), "timestamp": moment(),
        "webhookId": f"hook-{number}",
    }  # fmt: skip


def bison(
    event_type: str, *, lead_id: int = 70, email: str | None = "ada@example.com", reply_id: int | None = 900,
    **reply: object,
) -> dict[str, object]:  # fmt: skip
    """An event of EmailBison."""
    data: dict[str, object] = {"lead": {"id": lead_id, "email": email}}
    if reply_id is not None:
        data["reply"] = {
            "id": reply_id, "email_subject": "Re: offer", "text_body": "Tell me more", "from_email_address": email,
            "date_received": moment(), **reply,
        }  # fmt: skip
    return {"event": {"type": event_type, "workspace_id": WORKSPACE}, "data": data}


@dataclass
class Inbox:
    """Delivers events and handles them."""

    agency: Agency
    rules: HandlingRules = field(default_factory=HandlingRules)

    def deliver(self, place: Place, *bodies: dict[str, object] | bytes, provider: Provider | None = None) -> list[int]:
        """Stores events as the receiver does; returns their ids. The provider is told by the body if not given."""
        deliveries = []
        for sent in bodies:
            body = sent if isinstance(sent, bytes) else msgspec.json.encode(sent)
            told = Provider.EMAILBISON if isinstance(sent, dict) and "event" in sent else Provider.GHL
            event = read_event(provider or told, body, location_id=place.id)
            deliveries.append(Delivery(event, body, place.client_id, place.id))
        ids = []
        for stored in store_deliveries(self.agency.engine, deliveries):
            assert isinstance(stored, Stored)
            assert stored.event_id is not None
            ids.append(stored.event_id)
        return ids

    def handling(self, ensure: Ensurer | None = None) -> EventHandling:
        """The capability against the sandbox."""
        agency = self.agency
        work = EventWork(agency.engine, agency.hydration(), ensure or ensurer(agency), PROTECTED)
        return EventHandling(agency.engine, work, self.rules)

    async def handle(self, place: Place, ensure: Ensurer | None = None) -> EventsReport:
        """Handles what is due."""
        return await self.handling(ensure).handle_location(place.id)

    async def handled(self, place: Place, *bodies: dict[str, object] | bytes, **how: Any) -> list[dict[str, Any]]:
        """Delivers events, handles what is due, and returns their rows."""
        ids = self.deliver(place, *bodies, **how)
        await self.handle(place)
        return self.events(ids)

    def events(self, ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Event rows, those with these ids in their order, or all."""
        rows = sorted(self.agency.table("webhook_events"), key=lambda row: int(row["id"]))
        return rows if ids is None else [next(row for row in rows if row["id"] == id_) for id_ in ids]

    def outcomes(self) -> list[str]:
        """How each event ended, in the order in which they came: its outcome, else its state."""
        return [row["outcome"] or row["state"] for row in self.events()]

    def make_due(self) -> None:
        """Lets the pauses of all waiting events be over."""
        with self.agency.engine.begin() as connection:
            connection.execute(text("UPDATE webhook_events SET due_at = now() WHERE state = 'pending'"))

    def let_claims_run_out(self) -> None:
        """Lets all leases be over, as after a kill and a minute."""
        with self.agency.engine.begin() as connection:
            connection.execute(text("UPDATE webhook_events SET claimed_until = now() WHERE claimed_by IS NOT NULL"))
