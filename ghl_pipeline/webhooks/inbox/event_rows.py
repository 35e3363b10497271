"""Reading and writing the rows of the inbox."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.database.storable import LONGEST_KEY_BYTES, storable_moment, storable_text
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.webhooks.events import Event, EventKind
from ghl_pipeline.webhooks.inbox.deliveries import Delivery, Stored

Key: TypeAlias = tuple[str, str]  # provider, dedupe key


@dataclass(slots=True)
class NewEvent:
    """An event that is not in the inbox yet, with what storing its lead and message came to."""

    key: Key
    delivery: Delivery
    state: str
    lead_id: int | None = None
    error: InvalidInput | None = None


def key_of(event: Event) -> Key:
    """The event's key; a hash of one that no index could hold."""
    key = event.dedupe_key
    if storable_text(key) != key or len(key.encode()) > LONGEST_KEY_BYTES:
        key = f"sha256:{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"
    return str(event.provider), key


def first_state(delivery: Delivery) -> str:
    """The state that an event has if nothing goes wrong with it."""
    if delivery.client_id is None or not delivery.client_is_active or delivery.event.kind is EventKind.OTHER:
        return "ignored"
    return "pending"


def known_events(connection: Connection, keys: Sequence[Key]) -> dict[Key, Stored]:
    """The events that are there already."""
    wanted = [{"provider": provider, "dedupe_key": dedupe_key} for provider, dedupe_key in keys]
    return {
        (row.provider, row.dedupe_key): Stored(row.id, is_new=False, lead_id=row.lead_id)
        for row in connection.execute(_FIND, {"rows": as_json_rows(wanted)})
    }


_FIND = text("""
    SELECT event.id, event.provider, event.dedupe_key, event.lead_id
    FROM json_to_recordset(CAST(:rows AS json)) AS wanted (provider text, dedupe_key text)
    JOIN webhook_events AS event ON event.provider = wanted.provider AND event.dedupe_key = wanted.dedupe_key
""")


def insert_events(connection: Connection, events: Sequence[NewEvent]) -> dict[Key, int]:
    """Inserts the events, in their order; without those that another transaction inserted meanwhile."""
    if not events:
        return {}
    bodies = [b"" if event.delivery.client_id is None else event.delivery.body for event in events]
    starts = itertools.accumulate(map(len, bodies), initial=1)
    rows = [
        {
            "place": place,
            "provider": event.key[0],
            "dedupe_key": event.key[1],
            "client_id": event.delivery.client_id,
            "location_id": _storable_location(event.delivery),
            "event_type": storable_text(event.delivery.event.event_type),
            "body_start": None if event.delivery.client_id is None else start,
            "body_length": len(body),
            "lead_id": event.lead_id,
            "found_by": event.delivery.found_by,
            "occurred_at": storable_moment(event.delivery.event.occurred_at),
            "state": event.state,
            "error_class": None if event.error is None else type(event.error).__name__,
            "error_text": None if event.error is None else str(event.error),
        }
        for place, (event, body, start) in enumerate(zip(events, bodies, starts, strict=False))
    ]
    inserted = connection.execute(_INSERT, {"rows": as_json_rows(rows), "bodies": b"".join(bodies)})
    return {(row.provider, row.dedupe_key): row.id for row in inserted}


def _storable_location(delivery: Delivery) -> str | None:
    location_id = delivery.location_id or delivery.event.location_id
    return None if location_id is None else storable_text(location_id)


# The bodies are one value, cut into pieces: JSON holds no bytes, and an array of them is written in hexadecimal.
_INSERT = text("""
    INSERT INTO webhook_events (provider, dedupe_key, client_id, location_id, event_type, body, lead_id, found_by,
        occurred_at, state, error_class, error_text)
    SELECT provider, dedupe_key, client_id, location_id, event_type,
        substring(CAST(:bodies AS bytea) FROM body_start FOR body_length), lead_id, found_by, occurred_at, state,
        error_class, error_text
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        place integer, provider text, dedupe_key text, client_id bigint, location_id text, event_type text,
        body_start integer, body_length integer, lead_id bigint, found_by text, occurred_at timestamptz, state text,
        error_class text, error_text text)
    ORDER BY place
    ON CONFLICT (provider, dedupe_key) DO NOTHING
    RETURNING id, provider, dedupe_key
""")
