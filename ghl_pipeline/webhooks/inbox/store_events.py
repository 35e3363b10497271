"""The inbox: each event once, with the lead and the message that it brings, in one transaction.

Here events are stored. Who may send them is decided before (the receiver), what they do afterwards (the handling).
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

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

__all__ = ["Delivery", "NotStored", "Stored", "Suspects", "store_deliveries", "store_events"]

log = logging.getLogger(__name__)

# A statement holds at most 1 GB; whole e-mails are up to 5 MB each.
_MOST_BYTES_AT_ONCE = 16 * 1024 * 1024
# What PostgreSQL says (SQLSTATE) when it can take nothing at all just now, so that no event is to blame. Classes:
# connection lost, read-only, log-in refused, no such database, out of resources, locked, shut down or timed out,
# input/output. States: table, column or permission is missing, so it is not migrated.
_UNAVAILABLE_CLASSES = frozenset({"08", "25", "28", "3D", "53", "55", "57", "58"})
_UNAVAILABLE_STATES = frozenset({"42P01", "42703", "42501"})
# A lock was not to be had, or a statement took too long. It may be one client's rows that somebody keeps.
_BLOCKED_STATES = frozenset({"55P03", "57014"})
_SUSPECT_SECONDS = 10.0
# The requests are answered after 6 s anyway; what is stored later is stored for nobody.
_GIVE_UP_AFTER_SECONDS = 5.0
# For those who may have to wait for one who keeps rows: all the others wait meanwhile.
_BE_BRIEF = text("SELECT set_config('lock_timeout', '200ms', true), set_config('statement_timeout', '500ms', true)")

_Numbered: TypeAlias = tuple[int, Delivery]


class Suspects:
    """Clients whose rows or locks somebody kept a moment ago, so that their events could not be stored."""

    def __init__(self) -> None:
        self._until: dict[int | None, float] = {}

    def __contains__(self, client_id: int | None) -> bool:
        return self._until.get(client_id, 0.0) > time.monotonic()

    def add(self, client_id: int | None) -> None:
        """The client is one for some seconds."""
        self._until[client_id] = time.monotonic() + _SUSPECT_SECONDS

    def remove(self, client_id: int | None) -> None:
        """The client is none."""
        self._until.pop(client_id, None)


def store_deliveries(
    engine: Engine, deliveries: Sequence[Delivery], suspects: Suspects | None = None
) -> list[Stored | NotStored]:
    """Stores deliveries in one transaction; if one of them spoils it, each in a transaction of its own.

    Waiting for the disk once for many is what takes hundreds of events a second. But an event that the database
    refuses must not cost the others theirs; nor must a client whose rows somebody else keeps: when a transaction does
    not get them, or a statement takes too long, each client has one of its own.

    Args:
        engine: its sessions decide how long a lock is waited for.
        deliveries: of any clients.
        suspects: kept from call to call: they are stored after the others and with less patience.

    Returns:
        One entry for each delivery, in their order. What is `Stored` is committed.

    Raises:
        DatabaseUnavailable: the database does not answer, or takes nothing at all; nothing was stored.
    """
    storing = _Storing(engine, Suspects() if suspects is None else suspects)
    numbered = list(enumerate(deliveries))
    try:
        storing.store([each for each in numbered if each[1].client_id not in storing.suspects])
        storing.store_by_client([each for each in numbered if each[1].client_id in storing.suspects])
    except DatabaseUnavailable as error:
        if not any(isinstance(each, Stored) for each in storing.answers.values()):
            raise
        missing = NotStored(type(error).__name__)
        return [storing.answers.get(number, missing) for number, _ in numbered]
    return [storing.answers[number] for number, _ in numbered]


def _of_bounded_size(deliveries: Sequence[_Numbered]) -> Iterator[list[_Numbered]]:
    batch: list[_Numbered] = []
    size = 0
    for number, delivery in deliveries:
        if batch and size + len(delivery.body) > _MOST_BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append((number, delivery))
        size += len(delivery.body)
    if batch:
        yield batch


class _Storing:
    """Deliveries on their way into the inbox, each with its number, and what became of those that got there."""

    def __init__(self, engine: Engine, suspects: Suspects) -> None:
        self.suspects = suspects
        self.answers: dict[int, Stored | NotStored] = {}
        self._engine = engine
        self._give_up_at = time.monotonic() + _GIVE_UP_AFTER_SECONDS

    def store(self, deliveries: Sequence[_Numbered]) -> None:
        """All in one transaction, as far as they fit; raises DatabaseUnavailable."""
        for batch in _of_bounded_size(deliveries):
            self._store(batch, is_brief=False)

    def store_by_client(self, deliveries: Sequence[_Numbered]) -> None:
        """Each client's in a transaction of their own, that waits for nobody for long; raises DatabaseUnavailable."""
        of_clients: dict[int | None, list[_Numbered]] = defaultdict(list)
        for each in deliveries:
            of_clients[each[1].client_id].append(each)
        for client_id, group in of_clients.items():
            for batch in _of_bounded_size(group):
                self._store(batch, is_brief=True)
            if not any(_is_blocked(self.answers.get(number)) for number, _ in group):
                self.suspects.remove(client_id)

    def _store(self, batch: Sequence[_Numbered], *, is_brief: bool) -> None:
        if is_brief and time.monotonic() > self._give_up_at:
            self._refuse(batch, NotStored("TimeIsUp", is_blocked=True))
            return
        try:
            stored = _in_transaction(self._engine, [delivery for _, delivery in batch], is_brief=is_brief)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one event did must not cost the others theirs
            self._store_less(batch, error)
        else:
            self.answers.update(zip((number for number, _ in batch), stored, strict=True))

    def _store_less(self, batch: Sequence[_Numbered], error: Exception) -> None:
        """After a transaction of them failed: what else can be stored of them."""
        # The class only: a text may quote a value.
        failure = _class_of(error)
        if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _BLOCKED_STATES:
            clients = {delivery.client_id for _, delivery in batch}
            if len(clients) > 1:
                log.warning("a transaction of %d clients had to wait too long; storing each client's", len(clients))
                self.store_by_client(batch)
                return
            self.suspects.add(batch[0][1].client_id)
            log.warning("events of client %s cannot be stored now (%s): somebody keeps its rows", *clients, failure)
            self._refuse(batch, NotStored(failure, is_blocked=True))
        elif len(batch) > 1:
            log.warning("a transaction of %d events failed (%s); storing them one by one", len(batch), failure)
            for each in batch:
                self._store([each], is_brief=True)
        else:
            log.error("an event of %s cannot be stored: %s", batch[0][1].event.provider, failure)
            self._refuse(batch, NotStored(failure))

    def _refuse(self, batch: Sequence[_Numbered], answer: NotStored) -> None:
        self.answers.update((number, answer) for number, _ in batch)


def _is_blocked(answer: Stored | NotStored | None) -> bool:
    return isinstance(answer, NotStored) and answer.is_blocked


def _in_transaction(engine: Engine, deliveries: Sequence[Delivery], *, is_brief: bool) -> list[Stored]:
    try:
        with engine.begin() as connection:
            if is_brief:
                connection.execute(_BE_BRIEF)
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
    if state in _BLOCKED_STATES:
        return False
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
    store_leads(connection, [event for event in new.values() if _makes_lead(event.delivery)])
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


def store_leads(connection: Connection, events: Sequence[NewEvent]) -> None:
    """Stores the leads of events that make one, and their messages; notes in each what became of it.

    Call it after `leads.lock_clients` with all clients of the transaction.
    """
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
