"""Messages of leads that became somebody's since the last import.

What came while a contact was no lead's was left out, and the imports after that begin later. So the leads that were
made, linked or changed since the last import are looked at again: each by itself while they are few, else by reaching
as far back as a first import does.
"""

from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from ghl_pipeline.conversations.export_walk import ExportWalk
from ghl_pipeline.conversations.import_report import Counts, MessageOutcome
from ghl_pipeline.conversations.message_store import store_messages_of_lead
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.ids import CONTACT_ID_PATTERN
from ghl_pipeline.ghl.message_payloads import MessageExport
from ghl_pipeline.orchestration.blocking import in_thread

# One request each. Reaching back a month takes one request for 500 messages, so beyond this it is seldom more.
MOST_LEADS_ONE_BY_ONE = 50


@dataclass(frozen=True, slots=True)
class LeadBehind:
    """A lead of which messages may be missing, and its contact."""

    lead_id: int
    contact_id: str


def leads_behind(engine: Engine, client_id: int, since: datetime) -> list[LeadBehind]:
    """The client's linked leads that were written since then; at most one more than is asked for one by one."""
    query = text("""
        SELECT id, ghl_contact_id FROM leads
        WHERE client_id = :client_id AND ghl_contact_id ~ :pattern AND updated_at >= :since
        ORDER BY id LIMIT :most
    """)
    values = {
        "client_id": client_id,
        "pattern": f"^{CONTACT_ID_PATTERN}$",
        "since": since,
        "most": MOST_LEADS_ONE_BY_ONE + 1,
    }
    with engine.connect() as connection:
        return [LeadBehind(row.id, row.ghl_contact_id) for row in connection.execute(query, values)]


async def import_of_contact(
    engine: Engine, client_id: int, client: LocationClient, lead: LeadBehind, *, export: MessageExport | None = None
) -> tuple[Counts, int]:
    """Imports the SMS of one lead's contact.

    Args:
        engine: the dashboard database.
        client_id: whose lead it is.
        client: the location's.
        lead: the lead and its contact.
        export: between which dates; from the first message on when not given.

    Returns:
        What became of the messages, and how many pages they were.

    Raises:
        ExportStuck, GhlError: what came before is stored.
    """
    counts, pages = Counts(), 0
    walk = ExportWalk(client, (export or MessageExport()).of_contact(lead.contact_id))
    async with aclosing(walk.pages()) as answers:
        async for page in answers:
            pages += 1
            # Looked at again: another contact's messages must not become this lead's, whatever GHL makes of the query.
            own = [message for message in page.messages if message.contact_id == lead.contact_id and message.is_sms]
            counts.outcomes[MessageOutcome.NOT_SMS] += len(page.messages) - len(own)
            counts.outcomes[MessageOutcome.UNREADABLE] += page.unreadable
            counts.add(await in_thread(store_messages_of_lead, engine, client_id, lead.lead_id, own))
    return counts, pages
