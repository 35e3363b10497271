"""Messages of leads that became somebody's since the last import.

What came while a contact was no lead's was left out, and the imports after that begin later. So the leads that were
made, linked or changed since the last import are looked at again: each by itself while they are few, else by reaching
as far back as a first import does. An import remembers whom it saw, so that the next one does not see to them again.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from ghl_pipeline.conversations.export_walk import ExportStuck, ExportWalk
from ghl_pipeline.conversations.import_report import Counts, MessageOutcome
from ghl_pipeline.conversations.message_store import TellLeads, store_messages_of_lead
from ghl_pipeline.database.rows import as_array
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import (
    ContactNotFound,
    GhlError,
    GhlServerError,
    GhlTimeout,
    LocationAccessDenied,
    RequestRejected,
    SearchContextLost,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.ids import CONTACT_ID_PATTERN
from ghl_pipeline.ghl.message_payloads import MessageExport
from ghl_pipeline.orchestration.blocking import in_thread

# One request each. Reaching back a month takes one request for 500 messages, so beyond this it is seldom more.
MOST_LEADS_ONE_BY_ONE = 50
# GHL is down rather than so many contacts broken: each failure has taken all its retries, a minute together.
MOST_FAILURES_FROM_THE_START = 5

# Said of one contact right after the same token was answered for the whole location. What GHL says of a contact that is
# deleted is not documented; trying again changes none of it.
_OF_THE_CONTACT = (RequestRejected, ContactNotFound, LocationAccessDenied)
# Of one contact, or of GHL as a whole: that shows in whether any other is answered.
_OF_THE_CONTACT_OR_GHL = (GhlServerError, SearchContextLost, GhlTimeout, UnreadableAnswer, ExportStuck)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeadBehind:
    """A lead of which messages may be missing, and its contact."""

    lead_id: int
    contact_id: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What an import leaves to the next one about the leads it looked for.

    Attributes:
        before: it saw what transactions with lower numbers wrote, which needs no second look. A time would not tell:
            rows carry the one at which their transaction began. Nor would a whole snapshot: a savepoint has a number of
            its own, which is higher than its transaction's and in no snapshot.
        missed: leads that failed in a way that can pass; asked for once more.
    """

    before: int
    missed: tuple[int, ...] = ()

    def as_record(self) -> dict[str, object]:
        """For the record of the import."""
        return {"before": self.before, "missed": list(self.missed)}

    @classmethod
    def of_record(cls, record: Mapping[str, object]) -> "Looked | None":
        """As the last import's record has it; None when it has none."""
        match record.get("looked"):
            case {"before": int(before), "missed": list(missed)}:
                return cls(before, tuple(each for each in missed if isinstance(each, int)))
        return None


def look(engine: Engine) -> Looked:
    """What is seen from now on; take it before the leads are read."""
    with engine.connect() as connection:
        lowest_under_way = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
        return Looked(connection.execute(lowest_under_way).scalar_one())


def leads_behind(engine: Engine, client_id: int, since: datetime, last: Looked | None = None) -> list[LeadBehind]:
    """The client's linked leads that were written since then; at most one more than is asked for one by one.

    Args:
        engine: the dashboard database.
        client_id: whose leads.
        since: aware; some way before `last`, for transactions that were under way then.
        last: what the last whole import saw is left out, but for what it missed. None: nothing is.
    """
    # A row shows the lower 32 bits of the transaction that wrote it, and a row that is visible here was written before
    # this statement's own upper bound. A number from beyond that is another server's, from which this one was filled.
    query = text("""
        WITH here AS MATERIALIZED (
            SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS next
        ), written AS (
            SELECT id, ghl_contact_id, next,
                   next - ((next - CAST(CAST(leads.xmin AS text) AS bigint)) & 4294967295) AS writer
            FROM leads CROSS JOIN here
            WHERE client_id = :client_id AND ghl_contact_id ~ :pattern AND updated_at >= :since
        )
        SELECT id, ghl_contact_id FROM written
        WHERE writer >= :seen_before OR :seen_before > next
        UNION
        SELECT id, ghl_contact_id FROM leads
        WHERE client_id = :client_id AND ghl_contact_id ~ :pattern
          AND id = ANY(CAST(:missed AS bigint[]))
        ORDER BY id LIMIT :most
    """)
    values = {
        "client_id": client_id,
        "pattern": f"^{CONTACT_ID_PATTERN}$",
        "since": since,
        "seen_before": 0 if last is None else last.before,
        "missed": as_array(() if last is None else last.missed),
        "most": MOST_LEADS_ONE_BY_ONE + 1,
    }
    with engine.connect() as connection:
        return [LeadBehind(row.id, row.ghl_contact_id) for row in connection.execute(query, values)]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What catching up brought.

    Attributes:
        counts: messages by outcome.
        pages: answers of the export.
        refused: leads asked for in vain.
        missed: those of them for which another try can help.
    """

    counts: Counts
    pages: int
    refused: int
    missed: tuple[int, ...]


async def catch_up(
    engine: Engine,
    client_id: int,
    client: LocationClient,
    leads: Sequence[LeadBehind],
    *,
    tell: TellLeads,
    export: MessageExport,
) -> CaughtUp:
    """Imports the SMS of leads one by one; a contact that GHL does not answer for costs nobody else their messages.

    Args:
        engine: the dashboard database.
        client_id: whose leads they are.
        client: the location's.
        leads: the leads and their contacts.
        tell: what messages say of their leads.
        export: between which dates.

    Raises:
        ExportStuck, GhlError: it concerns the location, or GHL answered for nobody and another try can help. What came
            before is stored.
    """
    counts, pages, answered = Counts(), 0, 0
    vain: Counter[str] = Counter()
    passing: dict[int, ExportStuck | GhlError] = {}
    for lead in leads:
        try:
            of_lead, pages_of_lead = await import_of_contact(engine, client_id, client, lead, tell, export=export)
        except _OF_THE_CONTACT as error:
            vain[type(error).__name__] += 1
        except _OF_THE_CONTACT_OR_GHL as error:
            vain[type(error).__name__] += 1
            passing[lead.lead_id] = error
            if not answered and len(passing) == MOST_FAILURES_FROM_THE_START:
                break
        else:
            answered += 1
            counts.add(of_lead)
            pages += pages_of_lead
    if passing and not answered:
        raise next(iter(passing.values()))
    if vain:
        told = ", ".join(f"{count} {name}" for name, count in sorted(vain.items()))
        logger.warning("Location %s: messages of leads that could not be caught up: %s", client.location_id, told)
    return CaughtUp(counts, pages, vain.total(), tuple(passing))


async def import_of_contact(
    engine: Engine,
    client_id: int,
    client: LocationClient,
    lead: LeadBehind,
    tell: TellLeads,
    *,
    export: MessageExport | None = None,
) -> tuple[Counts, int]:
    """Imports the SMS of one lead's contact.

    Args:
        engine: the dashboard database.
        client_id: whose lead it is.
        client: the location's.
        lead: the lead and its contact.
        tell: what messages say of their lead.
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
            counts.add(await in_thread(store_messages_of_lead, engine, client_id, lead.lead_id, own, tell))
    return counts, pages
