"""Events that are to be handled after all: dead letters, those that wait, and what came while a client was deactivated.

An event that was ignored, or buried on arrival, never had its lead and message stored; that is made up for here, so
that a replayed reply ends as one that came today does.
"""

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ghl_pipeline.database.leads import lock_clients
from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.webhooks.events import EventKind, Provider
from ghl_pipeline.webhooks.inbox.deliveries import Delivery
from ghl_pipeline.webhooks.inbox.event_rows import NewEvent, key_of
from ghl_pipeline.webhooks.inbox.store_events import store_leads
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event

log = logging.getLogger(__name__)

# The receiver waits while leads of its client are stored here, so a transaction is short.
EVENTS_PER_TRANSACTION = 200
_MOST_BYTES_AT_ONCE = 16 * 1024 * 1024

_DEAD_OR_WAITING = "event.state = 'dead' OR (event.state = 'pending' AND event.due_at > now() AND claimed_by IS NULL)"
_IGNORED = "event.state = 'ignored'"
# What the inbox has stored no lead for. Whatever was handled once had its lead, and counts an attempt.
_IS_NEW = "(event.state = 'ignored' OR (event.state = 'dead' AND event.attempts = 0))"


class _Replayed(NamedTuple):
    """What an event becomes; `lead_id` and error only of one whose lead was stored, or could not be."""

    id: int
    was: str
    state: str
    lead_id: int | None = None
    error_class: str | None = None
    error_text: str | None = None


def replay(engine: Engine, *, event_ids: Collection[int] | None = None, location_id: str | None = None) -> list[int]:
    """Makes dead events, and those that wait for their next attempt, due now, with all their attempts before them.

    Ignored events become due, too, when they are asked for by id or by location, and there is something to do about
    them. Events that are done or in work are left alone, as are those whose body is gone or whose client is
    deactivated. One whose lead or message still cannot be stored stays dead, with the reason.

    Args:
        engine: the dashboard database; every few hundred events are a transaction.
        event_ids: only these; None: all.
        location_id: only of this location; None: of all.

    Returns:
        The events that are due now because of this.
    """
    scopes = []
    if event_ids is not None:
        scopes.append("event.id = ANY(CAST(:ids AS bigint[]))")
    if location_id is not None:
        scopes.append(_OF_LOCATION)
    which = f"({_DEAD_OR_WAITING} OR {_IGNORED})" if scopes else f"({_DEAD_OR_WAITING})"
    return _replay(engine, [which, *scopes], {"ids": as_array(event_ids or ()), "location_id": location_id})


def take_up_ignored(engine: Engine, location_id: str) -> int:
    """Makes due what came, or waited, while the location's client was deactivated. Doing it again does no harm.

    Returns:
        How many events are due now because of this.
    """
    return len(_replay(engine, [_IGNORED, _OF_LOCATION], {"location_id": location_id}))


_OF_LOCATION = "event.client_id = (SELECT id FROM clients WHERE location_id = :location_id)"
_PAGE = """
    WITH page AS (
        SELECT event.id, CASE WHEN {is_new} THEN octet_length(event.body) ELSE 0 END AS size
        FROM webhook_events AS event JOIN clients AS client ON client.id = event.client_id AND client.active
        WHERE event.id > :after AND event.body IS NOT NULL AND {which}
        ORDER BY event.id LIMIT :size
    ), counted AS (
        SELECT id, sum(size) OVER (ORDER BY id) AS bytes, row_number() OVER (ORDER BY id) AS place FROM page
    )
    SELECT event.id, event.provider, event.state, {is_new} AS is_new, event.lead_id, event.client_id, event.location_id,
           event.found_by, event.received_at, CASE WHEN {is_new} THEN event.body END AS body
    FROM webhook_events AS event
    WHERE event.id = ANY(ARRAY(SELECT id FROM counted WHERE bytes <= :most_bytes OR place = 1))
    ORDER BY event.id
"""


def _replay(engine: Engine, tests: Sequence[str], values: dict[str, object]) -> list[int]:
    page = text(_PAGE.format(is_new=_IS_NEW, which=" AND ".join(tests)))
    limits = {"size": EVENTS_PER_TRANSACTION, "most_bytes": _MOST_BYTES_AT_ONCE}
    wanted = {name: value for name, value in values.items() if f":{name}" in page.text}
    replayed: list[int] = []
    after = 0
    while True:
        with engine.connect() as connection:
            rows = connection.execute(page, {**wanted, **limits, "after": after}).all()
        if not rows:
            return replayed
        replayed += _in_transaction(engine, rows)
        after = rows[-1].id


def _in_transaction(engine: Engine, rows: Sequence[Row[tuple[object, ...]]]) -> list[int]:
    """Replays events in one transaction; if one of them spoils it, each alone, and that one stays as it was."""
    try:
        with engine.begin() as connection:
            return _write(connection, _with_leads(connection, rows))
    except (OperationalError, InterfaceError):
        raise
    except DBAPIError as error:
        if len(rows) == 1:
            log.error(  # noqa: TRY400 - a text may quote a value
                "event %s cannot be replayed: %s", rows[0].id, type(error.orig or error).__name__
            )
            return []
    return [event_id for row in rows for event_id in _in_transaction(engine, [row])]


def _with_leads(connection: Connection, rows: Sequence[Row[tuple[object, ...]]]) -> list[_Replayed]:
    """What the events become, with their leads and messages stored where they never were."""
    replayed: list[_Replayed] = []
    stored: list[tuple[Row[tuple[object, ...]], NewEvent]] = []
    for row in rows:
        if not row.is_new:
            replayed.append(_Replayed(row.id, row.state, "pending"))
            continue
        try:
            event = _read(row)
        except UnreadableEvent as error:
            if row.state == "dead":
                replayed.append(_Replayed(row.id, "dead", "dead", None, type(error).__name__, str(error)))
            continue
        # One that was pending when its client was deactivated has its lead and its message already.
        if event.event.makes_lead and (row.state == "dead" or row.lead_id is None):
            stored.append((row, NewEvent(key_of(event.event), event, "pending")))
        elif row.state == "dead" or event.event.kind is not EventKind.OTHER:
            replayed.append(_Replayed(row.id, row.state, "pending"))
    lock_clients(connection, (row.client_id for row, _ in stored))
    store_leads(connection, [new for _, new in stored])
    for row, new in stored:
        reason = (None, None) if new.error is None else (type(new.error).__name__, str(new.error))
        replayed.append(_Replayed(row.id, row.state, new.state, new.lead_id, *reason))
    return replayed


def _read(row: Row[tuple[object, ...]]) -> Delivery:
    try:
        event = read_event(
            Provider(row.provider), row.body, location_id=row.location_id, received_at=row.received_at
        )  # fmt: skip
    except UnreadableEvent:
        raise
    except Exception as error:  # noqa: BLE001 - whatever one body does to the reader is that event's problem
        raise UnreadableEvent(f"The reader failed at the event's body ({type(error).__name__}).") from None
    return Delivery(event, row.body, row.client_id, row.location_id, found_by=row.found_by)


_WRITE = text("""
    UPDATE webhook_events AS event
    SET state = new.state, attempts = 0, due_at = now(), claimed_by = NULL, claimed_until = NULL,
        lead_id = coalesce(new.lead_id, event.lead_id), error_class = new.error_class, error_text = new.error_text
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        id bigint, was text, state text, lead_id bigint, error_class text, error_text text)
    WHERE event.id = new.id AND event.state = new.was AND event.claimed_by IS NULL
    RETURNING event.id, event.state
""")


def _write(connection: Connection, events: Sequence[_Replayed]) -> list[int]:
    """Writes what the events become; returns those that are due now, in their order."""
    if not events:
        return []
    rows = as_json_rows([event._asdict() for event in events])
    written = connection.execute(_WRITE, {"rows": rows})
    return sorted(int(row.id) for row in written if row.state == "pending")
