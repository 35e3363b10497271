"""What a person sees of the inbox and does with it: events by state, one event, replaying, dropping old bodies."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, Row, text

from ghl_pipeline.database.rows import as_array
from ghl_pipeline.errors import InvalidInput

STATES = ("pending", "done", "ignored", "dead")
BODIES_PER_STATEMENT = 5000


class UnknownEvent(InvalidInput):
    """The inbox has no event with this id."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event without its body: ids, state, sizes. `body_bytes` is None once the body is gone."""

    id: int
    location: str | None
    provider: str
    type: str
    state: str
    outcome: str | None
    attempts: int
    lead_id: int | None
    found_by: str
    occurred_at: datetime | None
    received_at: datetime
    due_at: datetime
    claimed_until: datetime | None
    handled_at: datetime | None
    error_class: str | None
    error: str | None
    body_bytes: int | None


_EVENT = """
    SELECT id, location_id AS location, provider, event_type AS type, state, outcome, attempts, lead_id, found_by,
           occurred_at, received_at, due_at, claimed_until, handled_at, error_class, error_text AS error,
           octet_length(body) AS body_bytes
    FROM webhook_events
"""


def list_events(
    connection: Connection, *, state: str | None = None, location_id: str | None = None, limit: int = 50
) -> list[EventRow]:
    """The latest events, newest first.

    Raises:
        InvalidInput: there is no such state.
    """
    if state is not None and state not in STATES:
        raise InvalidInput(f"There is no state {state[:40]!r}. Events are: {', '.join(STATES)}.")
    query = text(f"""
        {_EVENT}
        WHERE (CAST(:state AS text) IS NULL OR state = :state)
          AND (CAST(:location_id AS text) IS NULL OR location_id = :location_id)
        ORDER BY id DESC LIMIT :limit
    """)
    rows = connection.execute(query, {"state": state, "location_id": location_id, "limit": limit})
    return [_event(row) for row in rows]


def show_event(connection: Connection, event_id: int) -> EventRow:
    """One event. Raises UnknownEvent."""
    row = connection.execute(text(f"{_EVENT} WHERE id = :id"), {"id": event_id}).one_or_none()
    if row is None:
        raise UnknownEvent(f"There is no event {event_id}. See: ghl-pipeline events list")
    return _event(row)


def body_of(connection: Connection, event_id: int) -> bytes | None:
    """The event's body as it was sent: a person's data. None when it is kept no more."""
    body = connection.execute(text("SELECT body FROM webhook_events WHERE id = :id"), {"id": event_id}).scalar()
    return None if body is None else bytes(body)


def replay(connection: Connection, *, event_ids: Collection[int] | None = None, location_id: str | None = None) -> int:
    """Makes dead events, and those that wait for their next attempt, due now, with all their attempts before them.

    Events that are done, ignored, or in work are left alone, as are those whose body is gone.

    Args:
        connection: in the caller's transaction.
        event_ids: only these; None: all.
        location_id: only of this location; None: of all.

    Returns:
        How many are due now because of this.
    """
    query = text("""
        UPDATE webhook_events
        SET state = 'pending', attempts = 0, due_at = now(), claimed_by = NULL, claimed_until = NULL
        WHERE body IS NOT NULL AND client_id IS NOT NULL
          AND (state = 'dead' OR (state = 'pending' AND due_at > now() AND claimed_by IS NULL))
          AND (:all OR id = ANY(CAST(:ids AS bigint[])))
          AND (CAST(:location_id AS text) IS NULL OR location_id = :location_id)
    """)
    values = {"all": event_ids is None, "ids": as_array(event_ids or ()), "location_id": location_id}
    return connection.execute(query, values).rowcount


def purge_bodies(engine: Engine, older_than: timedelta) -> int:
    """Drops the bodies of events that are done or ignored and came longer ago; their rows stay, for their keys.

    Returns:
        How many bodies were dropped.
    """
    query = text("""
        UPDATE webhook_events SET body = NULL WHERE id = ANY(ARRAY(
            SELECT id FROM webhook_events
            WHERE body IS NOT NULL AND received_at < now() - CAST(:older_than AS interval)
              AND state IN ('done', 'ignored')
            ORDER BY received_at LIMIT :size))
    """)
    purged = 0
    while True:
        with engine.begin() as connection:
            dropped = connection.execute(query, {"older_than": older_than, "size": BODIES_PER_STATEMENT}).rowcount
        purged += dropped
        if dropped < BODIES_PER_STATEMENT:
            return purged


def _event(row: Row[tuple[object, ...]]) -> EventRow:
    values = row._mapping
    return EventRow(**{each.name: values[each.name] for each in fields(EventRow)})
