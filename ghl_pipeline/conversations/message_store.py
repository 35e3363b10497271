"""What an import reads and writes in the database: how far it is, a page of messages, one lead's messages.

A page, the leads it makes and the mark of how far the import is are one transaction: a kill costs one page, asked again
and recognised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.conversations.import_report import Counts, MessageOutcome
from ghl_pipeline.database.blank import WHITE_SPACE
from ghl_pipeline.database.leads import LeadUpsert, NewLead, lock_clients, upsert_leads
from ghl_pipeline.database.messages import NewMessage, StoredMessage, store_messages
from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.ids import CONTACT_ID_PATTERN, is_contact_id
from ghl_pipeline.ghl.message_payloads import Message

# The lead, its message, when it was sent, and whether it is news: it came after the client's first import.
ImportedMessage: TypeAlias = tuple[int, NewMessage, datetime, bool]
# What messages say of their leads (a STOP, a reply): called in the transaction that stores them, with the client's id.
TellLeads: TypeAlias = Callable[[Connection, int, Sequence[ImportedMessage]], None]


@dataclass(frozen=True, slots=True)
class ImportMark:
    """How far a client's messages are imported, on the database's clock.

    Attributes:
        client_id: `clients.id`.
        imported_until: messages up to then are stored; None before the first.
        live_since: inbound messages after then make a lead of their contact.
        now: when this import began.
    """

    client_id: int
    imported_until: datetime | None
    live_since: datetime
    now: datetime

    def begins_at(self, first: timedelta, overlap: timedelta) -> datetime:
        """Where this import begins: some way before the last one's end, or `first` ago when there was none."""
        return self.now - first if self.imported_until is None else self.imported_until - overlap


def begin_import(engine: Engine, client_id: int) -> ImportMark:
    """How far the client's import is. The first import decides from when on messages make leads."""
    query = text("""
        INSERT INTO message_imports (client_id, live_since) VALUES (:client_id, now())
        ON CONFLICT (client_id) DO UPDATE SET live_since = message_imports.live_since
        RETURNING imported_until, live_since, now() AS now
    """)
    with engine.begin() as connection:
        row = connection.execute(query, {"client_id": client_id}).one()
    return ImportMark(client_id, row.imported_until, row.live_since, row.now)


def store_page(
    engine: Engine,
    mark: ImportMark,
    messages: Sequence[Message],
    tell: TellLeads,
    *,
    not_before: datetime,
    until: datetime | None,
) -> Counts:
    """Stores what is to be stored of a page, what it says of leads, and how far the import is, in one transaction.

    Args:
        engine: the dashboard database.
        mark: of this import.
        messages: the page.
        tell: what the messages that nobody knew say of their leads.
        not_before: where the import began; what is older was not asked for.
        until: messages up to then are stored once this page is; None when that cannot be said.
    """
    with engine.begin() as connection:
        # Before any row of a lead, as whoever unites two leads does; else the two would wait for each other.
        lock_clients(connection, [mark.client_id])
        counts = _store(connection, mark, messages, tell, not_before)
        if until is not None:
            _move_mark(connection, mark.client_id, until)
    return counts


def end_import(engine: Engine, mark: ImportMark, until: datetime | None) -> tuple[datetime | None, int]:
    """Moves the mark to where a whole import has come.

    Returns:
        Up to when messages are stored, and how many leads have a link that can be no contact's.
    """
    junk = text("""
        SELECT count(*) FROM leads
        WHERE client_id = :client_id AND btrim(ghl_contact_id, :white_space) <> '' AND ghl_contact_id !~ :pattern
    """)
    stored_until = text("SELECT imported_until FROM message_imports WHERE client_id = :client_id")
    with engine.begin() as connection:
        if until is not None:
            _move_mark(connection, mark.client_id, until)
        of_client = {"client_id": mark.client_id, "pattern": f"^{CONTACT_ID_PATTERN}$", "white_space": WHITE_SPACE}
        leads = connection.execute(junk, of_client)
        moment = connection.execute(stored_until, {"client_id": mark.client_id}).scalar_one_or_none()
        return moment, int(leads.scalar_one())


def store_messages_of_lead(
    engine: Engine, client_id: int, lead_id: int, messages: Sequence[Message], tell: TellLeads
) -> Counts:
    """Stores messages that are all the lead's, and what they say of it. A lead deleted meanwhile has none."""
    alive = text("SELECT id FROM leads WHERE id = :id AND client_id = :client_id FOR KEY SHARE")
    first_import = text("SELECT live_since FROM message_imports WHERE client_id = :client_id")
    with engine.begin() as connection:
        lock_clients(connection, [client_id])  # before the row, as in `store_page`
        if connection.execute(alive, {"id": lead_id, "client_id": client_id}).one_or_none() is None:
            return Counts()
        live_since = connection.execute(first_import, {"client_id": client_id}).scalar_one_or_none()
        return _store_rows(connection, client_id, [(lead_id, message) for message in messages], tell, live_since)


@dataclass(frozen=True, slots=True)
class LinkedLead:
    """A lead as messages are asked for: whose it is, and its contact if it has one that can be asked for."""

    location_id: str
    client_id: int
    contact_id: str | None


def find_lead(engine: Engine, lead_id: int) -> LinkedLead:
    """The lead's location and contact.

    Raises:
        UnknownClient: there is no such lead.
    """
    query = text("""
        SELECT client.location_id, lead.client_id, lead.ghl_contact_id
        FROM leads AS lead JOIN clients AS client ON client.id = lead.client_id WHERE lead.id = :lead_id
    """)
    with engine.connect() as connection:
        row = connection.execute(query, {"lead_id": lead_id}).one_or_none()
    if row is None:
        raise UnknownClient(f"UnknownClient: there is no lead {lead_id}. Check the id in the dashboard's leads table.")
    contact_id = row.ghl_contact_id if is_contact_id(row.ghl_contact_id) else None
    return LinkedLead(row.location_id, row.client_id, contact_id)


def _store(
    connection: Connection, mark: ImportMark, messages: Sequence[Message], tell: TellLeads, not_before: datetime
) -> Counts:
    counts = Counts()
    wanted: list[tuple[str, Message]] = []
    for message in messages:
        if not message.is_sms:
            counts.outcomes[MessageOutcome.NOT_SMS] += 1
        elif message.sent_at < not_before:
            counts.outcomes[MessageOutcome.TOO_OLD] += 1
        elif message.contact_id is None or not is_contact_id(message.contact_id):
            counts.outcomes[MessageOutcome.JUNK_CONTACT] += 1
        else:
            wanted.append((message.contact_id, message))
    leads = _leads_of_contacts(connection, mark.client_id, {contact_id for contact_id, _ in wanted})
    newcomers = {
        contact_id: None
        for contact_id, message in wanted
        if contact_id not in leads and message.direction == "inbound" and message.sent_at > mark.live_since
    }
    made = upsert_leads(connection, [(mark.client_id, NewLead(contact_id=contact_id)) for contact_id in newcomers])
    for contact_id, lead in zip(newcomers, made, strict=True):
        if isinstance(lead, LeadUpsert):
            leads[contact_id] = lead.lead_id
            counts.leads_created += lead.created
    rows = [(leads[contact_id], message) for contact_id, message in wanted if contact_id in leads]
    counts.outcomes[MessageOutcome.NO_LEAD] += len(wanted) - len(rows)
    counts.add(_store_rows(connection, mark.client_id, rows, tell, mark.live_since))
    return counts


def _leads_of_contacts(connection: Connection, client_id: int, contact_ids: set[str]) -> dict[str, int]:
    """The client's leads by contact id. None of them can be deleted until the transaction ends."""
    query = text("""
        SELECT ghl_contact_id, id FROM leads
        WHERE client_id = :client_id AND ghl_contact_id <> ''
          AND ghl_contact_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:contact_ids AS json))))
        ORDER BY id FOR KEY SHARE
    """)
    values = {"client_id": client_id, "contact_ids": as_json_list(sorted(contact_ids))}
    return {row.ghl_contact_id: row.id for row in connection.execute(query, values)}


def _store_rows(
    connection: Connection,
    client_id: int,
    messages: Sequence[tuple[int, Message]],
    tell: TellLeads,
    live_since: datetime | None,
) -> Counts:
    """Stores messages of leads and tells the leads of those that nobody had seen whole.

    A message that a webhook brought has an event of its own, whose status a person may have changed since. So a row
    that only gets its id now (healed) is no news; an opt-out is one even so.
    """
    rows = [(lead_id, _new_message(message)) for lead_id, message in messages]
    outcomes = [_outcome(each) for each in store_messages(connection, [(client_id, *row) for row in rows])]
    told: list[ImportedMessage] = []
    for (lead_id, new), (_, message), outcome in zip(rows, messages, outcomes, strict=True):
        if message.direction == "inbound" and outcome in (MessageOutcome.IMPORTED, MessageOutcome.HEALED):
            is_live = live_since is not None and message.sent_at > live_since
            told.append((lead_id, new, message.sent_at, is_live and outcome is MessageOutcome.IMPORTED))
    if told:
        tell(connection, client_id, told)
    counts = Counts()
    counts.outcomes.update(outcomes)
    return counts


def _outcome(stored: object) -> MessageOutcome:
    if not isinstance(stored, StoredMessage):
        return MessageOutcome.UNSTORABLE
    if stored.created:
        return MessageOutcome.IMPORTED
    if stored.healed:
        return MessageOutcome.HEALED
    return MessageOutcome.UPDATED if stored.updated else MessageOutcome.KNOWN


def _new_message(message: Message) -> NewMessage:
    return NewMessage(
        provider="ghl",
        external_id=message.id,
        channel="sms",
        direction=message.direction,
        body=message.body,
        status=message.status,
        conversation_id=message.conversation_id,
        sent_at=message.sent_at,
        source="import",
    )


def _move_mark(connection: Connection, client_id: int, until: datetime) -> None:
    """Forward only: `greatest` knows no null."""
    query = text("""
        UPDATE message_imports SET imported_until = greatest(imported_until, :until) WHERE client_id = :client_id
    """)
    connection.execute(query, {"client_id": client_id, "until": until})
