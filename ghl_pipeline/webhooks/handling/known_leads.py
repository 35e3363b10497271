"""The leads that events are about: finding them, and what an event changes in them without asking GHL.

Every statement is bound to one client, so that an id or an address that another client has too cannot reach its rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, TextClause, text

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.lead_status import status_after


@dataclass(frozen=True, slots=True)
class KnownLead:
    """A lead of the client, as far as handling an event needs it."""

    id: int
    contact_id: str | None
    opted_out: bool
    contact_deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Matches:
    """Which leads have which of a person's keys. `lead` is the one that the person is."""

    by_contact: KnownLead | None = None
    by_emailbison: KnownLead | None = None
    by_email: KnownLead | None = None

    @property
    def lead(self) -> KnownLead | None:
        """By contact id, else by EmailBison id, else by e-mail: the order in which a lead is stored."""
        return self.by_contact or self.by_emailbison or self.by_email


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What an event says of a lead's status. `opts_out`: the person asked not to be written to."""

    lead_id: int
    kind: EventKind
    at: datetime
    is_automated: bool = False
    opts_out: bool = False


@dataclass(frozen=True, slots=True)
class ContactSeen:
    """What GHL said of a lead's contact, that it is deleted or that it is there, and when."""

    lead_id: int
    contact_id: str
    at: datetime


_COLUMNS = "lead.id, lead.ghl_contact_id, lead.opted_out_at IS NOT NULL AS opted_out, lead.contact_deleted_at"


def find_leads(connection: Connection, client_id: int, persons: Sequence[NewLead]) -> list[Matches]:
    """The client's leads that have the keys of these persons, in one statement; an entry for each person, in order."""
    query = text(f"""
        SELECT asked.n, found.key, {_COLUMNS}
        FROM json_to_recordset(CAST(:rows AS json)) AS asked (
            n integer, contact_id text, emailbison_lead_id bigint, email text)
        CROSS JOIN LATERAL (
            SELECT 'contact' AS key, id FROM leads
            WHERE client_id = :client_id AND ghl_contact_id <> '' AND ghl_contact_id = asked.contact_id
            UNION ALL
            SELECT 'emailbison', id FROM leads
            WHERE client_id = :client_id AND emailbison_lead_id IS NOT NULL
              AND emailbison_lead_id = asked.emailbison_lead_id
            UNION ALL
            SELECT 'email', id FROM leads
            WHERE client_id = :client_id AND btrim(email) <> '' AND lower(btrim(email)) = lower(btrim(asked.email))
        ) AS found
        JOIN leads AS lead ON lead.id = found.id
    """)  # noqa: S608 - constants of ours
    rows = [
        {
            "n": n,
            "contact_id": _storable(person.contact_id),
            "emailbison_lead_id": person.emailbison_lead_id,
            "email": _storable(person.email),
        }
        for n, person in enumerate(persons)
    ]
    found: list[dict[str, KnownLead]] = [{} for _ in persons]
    if rows:
        for row in connection.execute(query, {"client_id": client_id, "rows": as_json_rows(rows)}):
            found[row.n][row.key] = _lead(row)
    return [Matches(each.get("contact"), each.get("emailbison"), each.get("email")) for each in found]


def leads_by_id(connection: Connection, client_id: int, lead_ids: Collection[int]) -> dict[int, KnownLead]:
    """Those of the leads that are the client's."""
    query = text(f"""
        SELECT {_COLUMNS} FROM leads AS lead WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[]))
    """)  # noqa: S608 - a constant of ours
    rows = connection.execute(query, {"client_id": client_id, "ids": as_array(lead_ids)})
    return {row.id: _lead(row) for row in rows}


def change_statuses(
    connection: Connection, client_id: int, changes: Sequence[StatusChange], protected: frozenset[str]
) -> set[int]:
    """Gives leads the status that events ask for, by the rule of `lead_status`.

    The rows are locked in id order first, as the write-back of hydration does, so that the two queue and cannot
    deadlock.

    Returns:
        The leads that changed.
    """
    locked = text("""
        SELECT id, status, opted_out_at FROM leads
        WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[]))
        ORDER BY id FOR NO KEY UPDATE
    """)
    update = text("""
        UPDATE leads AS lead SET status = new.status, opted_out_at = new.opted_out_at
        FROM json_to_recordset(CAST(:rows AS json)) AS new (id bigint, status text, opted_out_at timestamptz)
        WHERE lead.id = new.id AND lead.client_id = :client_id
    """)
    ids = as_array({change.lead_id for change in changes})
    rows = connection.execute(locked, {"client_id": client_id, "ids": ids}).all()
    changed: list[dict[str, object]] = []
    for row in rows:
        mine = [change for change in changes if change.lead_id == row.id]
        opted_out_at = min((c.at for c in mine if c.opts_out), default=None) if not row.opted_out_at else None
        opted_out_at = row.opted_out_at or opted_out_at
        status = row.status
        for change in mine:
            wanted = status_after(
                status,
                change.kind,
                opted_out=opted_out_at is not None,
                protected=protected,
                is_automated=change.is_automated,
            )
            status = wanted or status
        if (status, opted_out_at) != (row.status, row.opted_out_at):
            changed.append({"id": row.id, "status": status, "opted_out_at": opted_out_at})
    if changed:
        connection.execute(update, {"client_id": client_id, "rows": as_json_rows(changed)})
    return {int(str(row["id"])) for row in changed}


def contact_news(connection: Connection, lead_ids: Collection[int]) -> dict[int, datetime]:
    """When GHL last said that a lead's contact changed, of the events that are done; by lead.

    Events come in any order: one that tells of an earlier time than this is old news.
    """
    query = text("""
        SELECT lead_id, max(coalesce(occurred_at, received_at)) AS at FROM webhook_events
        WHERE lead_id = ANY(CAST(:ids AS bigint[])) AND state = 'done' AND provider = 'ghl'
          AND event_type LIKE 'Contact%' AND event_type <> 'ContactDelete'
        GROUP BY lead_id
    """)
    return {row.lead_id: row.at for row in connection.execute(query, {"ids": as_array(lead_ids)})}


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


def _storable(key: str | None) -> str | None:
    return storable_text(key) if key else None


def _lead(row: Row[tuple[object, ...]]) -> KnownLead:
    return KnownLead(row.id, row.ghl_contact_id, row.opted_out, row.contact_deleted_at)
