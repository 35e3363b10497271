"""The inbox: each event once, with the lead and the message that it brings, in one transaction.

Here events are stored. Who may send them is decided before (the receiver), what they do afterwards (the handling).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.database.leads import NewLead, lock_clients, upsert_leads
from ghl_pipeline.database.messages import NewMessage, store_messages
from ghl_pipeline.database.rows import as_array
from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.webhooks.inbox.deliveries import Delivery, NotStored, Stored
from ghl_pipeline.webhooks.inbox.event_rows import Key, NewEvent, first_state, insert_events, key_of, known_events

__all__ = ["Delivery", "NotStored", "Stored", "store_deliveries", "store_events"]

log = logging.getLogger(__name__)

# A statement holds at most 1 GB; whole e-mails are up to 5 MB each.
_MOST_BYTES_AT_ONCE = 16 * 1024 * 1024
# What PostgreSQL says (SQLSTATE) when it can take nothing at all just now, so that no event is to blame. Classes:
# connection lost, read-only, log-in refused, no such database, out of resources, locked, shut down or timed out,
# input/output. States: table, column or permission is missing, so it is not migrated.
_UNAVAILABLE_CLASSES = frozenset({"08", "25", "28", "3D", "53", "55", "57", "58"})
_UNAVAILABLE_STATES = frozenset({"42P01", "42703", "42501"})


def store_deliveries(engine: Engine, deliveries: Sequence[Delivery]) -> list[Stored | NotStored]:
    """Stores deliveries in one transaction; if one of them spoils it, each in a transaction of its own.

    Waiting for the disk once for many is what takes hundreds of events a second. But an event that the database
    refuses must not cost the others theirs.

    Returns:
        One entry for each delivery, in their order. What is `Stored` is committed.

    Raises:
        DatabaseUnavailable: the database does not answer, or takes nothing at all; nothing was stored.
    """
    stored: list[Stored | NotStored] = []
    for batch in _of_bounded_size(deliveries):
        try:
            stored += _store_batch(engine, batch)
        except DatabaseUnavailable as error:
            if not any(isinstance(each, Stored) for each in stored):
                raise
            stored += [NotStored(type(error).__name__)] * (len(deliveries) - len(stored))
            break
    return stored


def _of_bounded_size(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    batch: list[Delivery] = []
    size = 0
    for delivery in deliveries:
        if batch and size + len(delivery.body) > _MOST_BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(delivery)
        size += len(delivery.body)
    if batch:
        yield batch


def _store_batch(engine: Engine, batch: Sequence[Delivery]) -> Sequence[Stored | NotStored]:
    """The batch in one transaction, else each alone; raises DatabaseUnavailable only when nothing was stored."""
    try:
        return _in_transaction(engine, batch)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever one event did must not cost the others theirs
        # The class only: a text may quote a value.
        log.warning("a transaction of %d events failed (%s); storing them one by one", len(batch), _class_of(error))
    stored: list[Stored | NotStored] = []
    for delivery in batch:
        try:
            stored += _in_transaction(engine, [delivery])
        except DatabaseUnavailable as error:
            if not any(isinstance(each, Stored) for each in stored):
                raise
            stored += [NotStored(type(error).__name__)] * (len(batch) - len(stored))
            break
        except Exception as error:  # noqa: BLE001 - as above
            log.error(  # noqa: TRY400 - as above
                "an event of %s cannot be stored: %s", delivery.event.provider, _class_of(error)
            )
            stored.append(NotStored(_class_of(error)))
    return stored


def _in_transaction(engine: Engine, deliveries: Sequence[Delivery]) -> list[Stored]:
    try:
        with engine.begin() as connection:
            return store_events(connection, deliveries)
    except NoFreeConnection:
        raise DatabaseUnavailable(
            "All connections to the database are in use, and none came free. Nothing was stored; look at its load."
        ) from None
    except DBAPIError as error:
        if _is_unavailable(error):
            raise unavailable(engine.url, error) from None
        raise


def _is_unavailable(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # raised by the driver
        return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES


def _class_of(error: Exception) -> str:
    """The driver's class says more than SQLAlchemy's: UntranslatableCharacter, not DataError."""
    return type(error.orig if isinstance(error, DBAPIError) and error.orig else error).__name__


def store_events(connection: Connection, deliveries: Sequence[Delivery]) -> list[Stored]:
    """Stores events that are not in the inbox yet, with the leads and messages they bring.

    An event is `pending`; `ignored` when nothing is to be done about it, or its client is deactivated or none; `dead`,
    with the reason, when its lead or message cannot be stored. The body of a location of no client is not kept.

    Deliveries of one event at the same time, here or in other transactions, end with one event, one lead and one
    message: those that make leads wait for each other per client (`leads.lock_clients`), and events are inserted in the
    order of their keys. So call this once per transaction, before the transaction writes leads or messages by other
    ways; otherwise two can wait for each other.

    Args:
        connection: in the caller's transaction, which the caller commits.
        deliveries: of any clients; the same event may be among them several times.

    Returns:
        One entry for each delivery, in their order.

    Raises:
        DatabaseUnavailable: other writers kept changing the same rows.
        DBAPIError: the database refuses a row, and with it the transaction.
    """
    if not deliveries:
        return []
    keys = [key_of(delivery.event) for delivery in deliveries]
    # Before the look at what is there: whoever waited here then sees what the other one stored.
    if makers := [delivery.client_id for delivery in deliveries if _makes_lead(delivery) and delivery.client_id]:
        lock_clients(connection, makers)
    known = known_events(connection, keys)
    new: dict[Key, NewEvent] = {}
    for key, delivery in zip(keys, deliveries, strict=True):
        if key not in known and key not in new:
            new[key] = NewEvent(key, delivery, first_state(delivery))
    _store_leads(connection, [event for event in new.values() if _makes_lead(event.delivery)])
    inserted = insert_events(connection, sorted(new.values(), key=lambda event: event.key))
    stored = []
    for key in keys:
        if key in known:
            stored.append(known[key])
        else:
            stored.append(Stored(inserted.get(key), key in inserted, new[key].lead_id))
            known[key] = replace(stored[-1], is_new=False)
    return stored


def _makes_lead(delivery: Delivery) -> bool:
    return delivery.event.makes_lead and first_state(delivery) == "pending"


def _store_leads(connection: Connection, events: Sequence[NewEvent]) -> None:
    """Stores the leads of events that make one, and their messages; notes in each what became of it."""
    of_clients = [
        (event, event.delivery.client_id, event.delivery.event.person)
        for event in events
        if event.delivery.client_id is not None and event.delivery.event.person is not None
    ]
    if not of_clients:
        return
    persons = _with_storable_phones(connection, [(client_id, person) for _, client_id, person in of_clients])
    of_leads: list[tuple[NewEvent, tuple[int, int, NewMessage]]] = []
    for (event, client_id, _), stored in zip(of_clients, upsert_leads(connection, persons), strict=True):
        if isinstance(stored, InvalidInput):
            event.error, event.state = stored, "dead"
            continue
        event.lead_id = stored.lead_id
        if (message := _message_of(event.delivery)) is not None:
            of_leads.append((event, (client_id, stored.lead_id, message)))
    messages = store_messages(connection, [row for _, row in of_leads])
    for (event, _), made in zip(of_leads, messages, strict=True):
        if isinstance(made, InvalidInput):
            event.error, event.state = made, "dead"


def _message_of(delivery: Delivery) -> NewMessage | None:
    message = delivery.event.message
    if message is None:
        return None
    return replace(message, sent_at=message.sent_at or delivery.event.occurred_at, source=delivery.found_by)


def _with_storable_phones(connection: Connection, persons: Sequence[tuple[int, NewLead]]) -> list[tuple[int, NewLead]]:
    with_phone = {client_id for client_id, person in persons if person.phone}
    if not with_phone:
        return list(persons)
    regions = {row.id: row.default_region for row in connection.execute(_REGIONS, {"ids": as_array(with_phone)})}
    return [
        (client_id, replace(person, phone=storable_phone(storable_text(person.phone or ""), regions[client_id])))
        if client_id in regions
        else (client_id, person)
        for client_id, person in persons
    ]


_REGIONS = text("SELECT id, default_region FROM clients WHERE id = ANY(CAST(:ids AS bigint[]))")
