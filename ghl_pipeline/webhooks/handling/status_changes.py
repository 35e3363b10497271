"""Giving leads the status that events ask for, once per event, whatever a person does to them in between."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.webhooks.events import EventKind
from ghl_pipeline.webhooks.handling.lead_status import status_after


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What an event says of a lead's status. `opts_out`: the person asked not to be written to."""

    lead_id: int
    kind: EventKind
    at: datetime
    is_automated: bool = False
    opts_out: bool = False


def change_statuses(
    connection: Connection, client_id: int, changes: Sequence[StatusChange], protected: frozenset[str]
) -> set[int]:
    """Gives leads the status that events ask for, by the rule of `lead_status`.

    The rows are locked in id order first, as the write-back of hydration does, so that the two queue and cannot
    deadlock.

    Returns:
        The leads that changed.
    """
    ids = as_array({change.lead_id for change in changes})
    rows = connection.execute(_LOCK, {"client_id": client_id, "ids": ids}).all()
    by_lead: dict[int, list[StatusChange]] = {}
    for change in changes:
        by_lead.setdefault(change.lead_id, []).append(change)
    changed: list[dict[str, object]] = []
    for row in rows:
        mine = by_lead[row.id]
        opted_out_at = row.opted_out_at or min((change.at for change in mine if change.opts_out), default=None)
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
        connection.execute(_UPDATE, {"client_id": client_id, "rows": as_json_rows(changed)})
    return {int(str(row["id"])) for row in changed}


_LOCK = text("""
    SELECT id, status, opted_out_at FROM leads
    WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[]))
    ORDER BY id FOR NO KEY UPDATE
""")

_UPDATE = text("""
    UPDATE leads AS lead SET status = new.status, opted_out_at = new.opted_out_at
    FROM json_to_recordset(CAST(:rows AS json)) AS new (id bigint, status text, opted_out_at timestamptz)
    WHERE lead.id = new.id AND lead.client_id = :client_id
""")


def applied_events(connection: Connection, event_ids: Collection[int]) -> set[int]:
    """Those of the events whose status their lead was given already, by an attempt that failed later on."""
    query = text("""
        SELECT id FROM webhook_events
        WHERE id = ANY(CAST(:ids AS bigint[])) AND status_applied_at IS NOT NULL
    """)
    return set(connection.execute(query, {"ids": as_array(event_ids)}).scalars()) if event_ids else set()


def note_applied(connection: Connection, event_ids: Collection[int]) -> None:
    """Notes on events that their lead has their status, in the transaction that gave it. Call it after that.

    Whoever makes one lead of two locks leads first and events afterwards, too.
    """
    query = text("""
        UPDATE webhook_events SET status_applied_at = now()
        WHERE id = ANY(CAST(:ids AS bigint[])) AND status_applied_at IS NULL
    """)
    if event_ids:
        connection.execute(query, {"ids": as_array(event_ids)})
