"""What GHL said of the contacts of leads, and when: that they changed, or that they were deleted.

Every statement that writes leads is bound to one client, so that no other client's row can be reached.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, TextClause, text

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.webhooks.handling.early_events import note_keys
from ghl_pipeline.webhooks.person_keys import person_keys


@dataclass(frozen=True, slots=True)
class ContactSeen:
    """What GHL said of a lead's contact, that it is deleted or that it is there, and when."""

    lead_id: int
    contact_id: str
    at: datetime


def note_contacts(connection: Connection, contact_ids: Mapping[int, str]) -> None:
    """Notes on events, by id, which contact they are about, so that `contact_news` can tell."""
    note_keys(connection, {id_: person_keys(NewLead(contact_id=contact)) for id_, contact in contact_ids.items()})


def contact_news(connection: Connection, contacts: Collection[tuple[int, str]]) -> dict[tuple[int, str], datetime]:
    """When GHL last said that a contact changed, of the lead's events that are done; by lead id and contact id.

    Events come in any order: one that tells of an earlier time than this is old news. A lead may have had another
    contact before, of which this says nothing. No event is of a later time than that at which it came.
    """
    query = text("""
        SELECT asked.n, max(least(event.occurred_at, event.received_at)) AS at
        FROM json_to_recordset(CAST(:rows AS json)) AS asked (n integer, lead_id bigint, key uuid)
        JOIN webhook_events AS event ON event.lead_id = asked.lead_id
        WHERE asked.key = ANY(event.person_keys) AND event.state = 'done' AND event.provider = 'ghl'
          AND event.event_type LIKE 'Contact%' AND event.event_type <> 'ContactDelete'
        GROUP BY asked.n
    """)
    listed = list(contacts)
    rows = [
        {"n": n, "lead_id": lead_id, "key": key}
        for n, (lead_id, contact_id) in enumerate(listed)
        for key in person_keys(NewLead(contact_id=contact_id))
    ]
    return {listed[row.n]: row.at for row in connection.execute(query, {"rows": as_json_rows(rows)})} if rows else {}


def mark_deleted(connection: Connection, client_id: int, deletions: Sequence[ContactSeen]) -> set[int]:
    """Notes on leads when their contact was deleted, if they are still linked to it and did not know yet.

    Returns:
        The leads that changed.
    """
    query = text("""
        UPDATE leads AS lead SET contact_deleted_at = new.at
        FROM (SELECT id, contact_id, max(at) AS at
              FROM json_to_recordset(CAST(:rows AS json)) AS asked (id bigint, contact_id text, at timestamptz)
              GROUP BY id, contact_id) AS new
        WHERE lead.id = new.id AND lead.client_id = :client_id AND lead.ghl_contact_id = new.contact_id
          AND (lead.contact_deleted_at IS NULL OR lead.contact_deleted_at < new.at)
        RETURNING lead.id
    """)
    return _changed(connection, query, client_id, deletions)


def mark_alive(connection: Connection, client_id: int, changes: Sequence[ContactSeen]) -> set[int]:
    """Takes the note back from leads whose contact was said to have changed after it was said to be deleted.

    Returns:
        The leads that changed.
    """
    query = text("""
        UPDATE leads AS lead SET contact_deleted_at = NULL
        FROM json_to_recordset(CAST(:rows AS json)) AS new (id bigint, contact_id text, at timestamptz)
        WHERE lead.id = new.id AND lead.client_id = :client_id AND lead.ghl_contact_id = new.contact_id
          AND lead.contact_deleted_at < new.at
        RETURNING lead.id
    """)
    return _changed(connection, query, client_id, changes)


def _changed(connection: Connection, query: TextClause, client_id: int, seen: Sequence[ContactSeen]) -> set[int]:
    if not seen:
        return set()
    rows = [{"id": each.lead_id, "contact_id": each.contact_id, "at": each.at} for each in seen]
    return set(connection.execute(query, {"client_id": client_id, "rows": as_json_rows(rows)}).scalars())
