"""What a person sees of the inbox: events by state, one event, its body; and dropping old bodies.

Trying events again is in `replays.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, Row, text

from ghl_pipeline.database.rows import as_array
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import TokenMissing
from ghl_pipeline.operations.housekeeping import Chore

STATES = ("pending", "done", "ignored", "dead")
BODIES_PER_STATEMENT = 5000
_LARGEST_BIGINT = 2**63 - 1
# Done and ignored events are the whole history, without an index by state: a rare one would be looked for in millions.
_HISTORY = ("done", "ignored")
MOST_LOOKED_AT = 100_000


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
    """The latest events, newest first; done and ignored ones of the latest 100,000 events only.

    Args:
        connection: reads only.
        state: only these; one of `STATES`.
        location_id: only of this location, with those that came before it was a client's.
        limit: at most so many.

    Raises:
        InvalidInput: there is no such state.
    """
    if state is not None and state not in STATES:
        raise InvalidInput(f"There is no state {state[:40]!r}. Events are: {', '.join(STATES)}.")
    query = text(f"""
        {_EVENT}
        WHERE id = ANY(ARRAY({_latest(state, by_location=location_id is not None)}))
        ORDER BY id DESC
    """)
    values: dict[str, object] = {"limit": limit}
    if state in _HISTORY:
        values["state"] = state
    if location_id is not None:
        values["location_id"] = location_id
    return [_event(row) for row in connection.execute(query, values)]


_OF_CLIENT = "client_id = (SELECT id FROM clients WHERE location_id = :location_id)"
_OF_NOBODY = "client_id IS NULL AND location_id = :location_id"


def _latest(state: str | None, *, by_location: bool) -> str:
    """A query of ids, with the parameters `limit`, `state` and `location_id` where they are asked for."""
    is_bounded = state in _HISTORY
    # `state` as a constant in these two, so that the index of such events alone is used.
    test = f"state = '{state}'" if state is not None and not is_bounded else "TRUE"
    size = str(MOST_LOOKED_AT) if is_bounded else ":limit"
    places: tuple[str, ...] = ("TRUE",)
    if by_location:
        # The small indexes of these two begin with the location; the index of all events begins with the client.
        places = ("location_id = :location_id",) if state in ("pending", "dead") else (_OF_CLIENT, _OF_NOBODY)
    latest = " UNION ALL ".join(
        f"(SELECT id, state FROM webhook_events WHERE {place} AND {test} ORDER BY id DESC LIMIT {size})"  # noqa: S608
        for place in places
    )
    wanted = "WHERE state = :state" if is_bounded else ""
    return f"SELECT id FROM ({latest}) AS latest {wanted} ORDER BY id DESC LIMIT :limit"  # noqa: S608 - words of ours


def show_event(connection: Connection, event_id: int) -> EventRow:
    """One event. Raises UnknownEvent."""
    row = connection.execute(text(f"{_EVENT} WHERE id = :id"), {"id": event_id}).one_or_none()
    if row is None:
        raise UnknownEvent(f"There is no event {event_id}. See: ghl-pipeline events list")
    return _event(row)


def states_of(connection: Connection, event_ids: Collection[int]) -> dict[int, str]:
    """The state of each of these events; without those that the inbox does not have."""
    known = text("SELECT id, state FROM webhook_events WHERE id = ANY(CAST(:ids AS bigint[]))")
    ids = as_array(event_id for event_id in event_ids if 0 < event_id <= _LARGEST_BIGINT)
    return {row.id: row.state for row in connection.execute(known, {"ids": ids})}


def body_of(connection: Connection, event_id: int) -> bytes | None:
    """The event's body as it was sent: a person's data. None when it is kept no more."""
    body = connection.execute(text("SELECT body FROM webhook_events WHERE id = :id"), {"id": event_id}).scalar()
    return None if body is None else bytes(body)


def purge_bodies(engine: Engine, older_than: timedelta) -> int:
    """Drops the bodies of events that are done or ignored and came longer ago; their rows stay, for their keys.

    Pending events that nobody handles become ignored: those of deactivated clients, of which the receiver learns some
    seconds later; and those that have waited for their client's token for longer.

    Returns:
        How many bodies were dropped.
    """
    ignore = text(f"""
        UPDATE webhook_events AS event
        SET state = 'ignored', claimed_by = NULL, claimed_until = NULL
        FROM clients AS client
        WHERE client.id = event.client_id AND event.state = 'pending'
          AND (NOT client.active
               OR (client.ghl_token_encrypted IS NULL AND event.error_class = '{TokenMissing.__name__}'
                   AND event.received_at < now() - CAST(:older_than AS interval)))
    """)  # noqa: S608 - a constant of ours
    query = text("""
        UPDATE webhook_events SET body = NULL WHERE id = ANY(ARRAY(
            SELECT id FROM webhook_events
            WHERE body IS NOT NULL AND received_at < now() - CAST(:older_than AS interval)
              AND state IN ('done', 'ignored')
            ORDER BY received_at LIMIT :size))
    """)
    with engine.begin() as connection:
        connection.execute(ignore, {"older_than": older_than})
    purged = 0
    while True:
        with engine.begin() as connection:
            dropped = connection.execute(query, {"older_than": older_than, "size": BODIES_PER_STATEMENT}).rowcount
        purged += dropped
        if dropped < BODIES_PER_STATEMENT:
            return purged


def count_old_bodies(engine: Engine, older_than: timedelta) -> int:
    """How many bodies `purge_bodies` would drop."""
    query = text("""
        SELECT count(*) FROM webhook_events
        WHERE body IS NOT NULL AND received_at < now() - CAST(:older_than AS interval) AND state IN ('done', 'ignored')
    """)
    with engine.connect() as connection:
        return int(connection.execute(query, {"older_than": older_than}).scalar_one())


def bodies_chore(engine: Engine, days: float) -> Chore:
    """The bodies, as part of housekeeping."""
    older_than = timedelta(days=days)
    return Chore(
        "webhook_bodies",
        f"bodies of events that were handled and came more than {days:g} days ago",
        lambda dry_run: (count_old_bodies if dry_run else purge_bodies)(engine, older_than),
    )


def _event(row: Row[tuple[object, ...]]) -> EventRow:
    values = row._mapping
    return EventRow(**{each.name: values[each.name] for each in fields(EventRow)})
