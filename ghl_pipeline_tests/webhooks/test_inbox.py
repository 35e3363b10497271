"""An event is stored once, with its lead and its message, however its deliveries arrive."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, insert, text

from ghl_pipeline.database.leads import NewLead, lock_clients
from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.database.tables import clients
from ghl_pipeline.errors import DatabaseUnavailable
from ghl_pipeline.webhooks.events import Event, EventKind, Provider
from ghl_pipeline.webhooks.inbox.store_events import (
    Delivery,
    NotStored,
    Stored,
    Suspects,
    store_deliveries,
    store_events,
)
from ghl_pipeline.webhooks.receiving.connections import receiver_engine

CONTACT = "ve9EPM428h8vShlRW1KT"
LOCATION = "Acme0000000000000000"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = NewLead(contact_id=CONTACT, email="ann@example.com", first_name="Ann")


@dataclass(frozen=True)
class Inbox:
    engine: Engine
    client_id: int

    def store(self, *deliveries: Delivery) -> list[Stored | NotStored]:
        return store_deliveries(self.engine, deliveries)

    def table(self, name: str) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name} ORDER BY id"))]

    def counts(self) -> tuple[int, int, int]:
        """Events, leads and messages."""
        return len(self.table("webhook_events")), len(self.table("leads")), len(self.table("messages"))

    def empty(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE webhook_events, leads, messages CASCADE"))

    def sms(self, number: int = 1, person: NewLead = ANN, **more: Any) -> Delivery:
        """An inbound SMS as GHL tells it."""
        message = NewMessage(
            provider="ghl", channel="sms", direction="inbound", external_id=f"m{number}", body=f"text {number}"
        )  # fmt: skip
        event = Event(
            Provider.GHL, EventKind.MESSAGE_RECEIVED, "InboundMessage", f"{LOCATION}:{number}", LOCATION,
            occurred_at=NOON, person=person, message=message,
        )  # fmt: skip
        return self.of(replace(event, **more))

    def reply(self, kind: EventKind, number: int, person: NewLead, **message: Any) -> Delivery:
        """A reply, or that somebody is interested, as EmailBison tells it; both have the reply's id."""
        event = Event(
            Provider.EMAILBISON, kind, kind.upper(), f"7:{kind.upper()}:{number}", workspace_id=7, occurred_at=NOON,
            person=person,
            message=NewMessage(
                provider="emailbison", channel="email", direction="inbound", external_id=f"{number}", subject="Re: Hi",
                body=f"reply {number}", **message,
            ),
        )  # fmt: skip
        return self.of(event)

    def of(self, event: Event, **more: Any) -> Delivery:
        return replace(Delivery(event, event.dedupe_key.encode(errors="replace"), self.client_id, LOCATION), **more)


def make_client(engine: Engine, name: str, region: str = "US") -> int:
    with engine.begin() as connection:
        new = {"name": name, "location_id": f"{name:0<20}", "default_region": region}
        return int(connection.execute(insert(clients).values(new).returning(clients.c.id)).scalar_one())


@pytest.fixture
def inbox(engine: Engine) -> Inbox:
    return Inbox(engine, make_client(engine, "Acme"))


def in_parallel(actions: Sequence[Callable[[], list[Stored | NotStored]]]) -> list[Stored | NotStored]:
    barrier = threading.Barrier(len(actions))

    def start(action: Callable[[], list[Stored | NotStored]]) -> list[Stored | NotStored]:
        barrier.wait(30)
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return [each for future in [pool.submit(start, action) for action in actions] for each in future.result(60)]


# --- one event


def test_an_inbound_message_is_an_event_a_lead_and_a_message(inbox: Inbox) -> None:
    body = b'{"type": "InboundMessage", "odd": "\xff\x00"}'
    (stored,) = inbox.store(replace(inbox.sms(), body=body))
    (row,) = inbox.table("webhook_events")
    (lead,) = inbox.table("leads")
    (message,) = inbox.table("messages")
    assert stored == Stored(row["id"], is_new=True, lead_id=lead["id"])
    assert bytes(row["body"]) == body
    assert (row["provider"], row["dedupe_key"], row["event_type"]) == ("ghl", f"{LOCATION}:1", "InboundMessage")
    assert (row["client_id"], row["location_id"], row["lead_id"]) == (inbox.client_id, LOCATION, lead["id"])
    assert (row["state"], row["found_by"], row["occurred_at"]) == ("pending", "webhook", NOON)
    assert (lead["ghl_contact_id"], lead["email"], lead["first_name"]) == (CONTACT, "ann@example.com", "Ann")
    assert (message["lead_id"], message["external_id"], message["body"]) == (lead["id"], "m1", "text 1")
    assert (message["sent_at"], message["source"]) == (NOON, "webhook")


def test_what_a_reconcile_finds_says_so(inbox: Inbox) -> None:
    inbox.store(replace(inbox.sms(), found_by="reconcile"))
    assert inbox.table("webhook_events")[0]["found_by"] == "reconcile"
    assert inbox.table("messages")[0]["source"] == "reconcile"


def test_a_second_delivery_is_known_and_changes_nothing(inbox: Inbox) -> None:
    (first,) = inbox.store(inbox.sms())
    with inbox.engine.begin() as connection:
        connection.execute(text("DELETE FROM messages"))  # an operator did; a duplicate does not bring it back
    second, third = inbox.store(inbox.sms(), inbox.sms())
    assert isinstance(first, Stored)
    assert second == third == replace(first, is_new=False)
    assert inbox.counts() == (1, 1, 0)


def test_two_deliveries_of_one_event_within_a_batch_are_one(inbox: Inbox) -> None:
    first, second = inbox.store(inbox.sms(), inbox.sms())
    assert isinstance(first, Stored)
    assert first.is_new
    assert second == replace(first, is_new=False)
    assert inbox.counts() == (1, 1, 1)


@pytest.mark.parametrize(
    "kind", [EventKind.CONTACT_CHANGED, EventKind.MESSAGE_SENT, EventKind.LEAD_BOUNCED, EventKind.LEAD_UNSUBSCRIBED]
)
def test_an_event_about_somebody_who_is_no_lead_makes_none(inbox: Inbox, kind: EventKind) -> None:
    (stored,) = inbox.store(inbox.sms(kind=kind))
    assert isinstance(stored, Stored)
    assert stored.lead_id is None
    assert inbox.table("webhook_events")[0]["state"] == "pending"
    assert inbox.counts() == (1, 0, 0)


def test_what_nothing_is_done_about_is_kept_and_ignored(inbox: Inbox) -> None:
    inbox.store(inbox.sms(1, kind=EventKind.OTHER), replace(inbox.sms(2), client_is_active=False))
    assert [row["state"] for row in inbox.table("webhook_events")] == ["ignored", "ignored"]
    assert all(row["body"] for row in inbox.table("webhook_events"))
    assert inbox.counts() == (2, 0, 0)


def test_of_a_location_of_no_client_the_body_is_not_kept(inbox: Inbox) -> None:
    inbox.store(replace(inbox.sms(), client_id=None, location_id=None), inbox.sms(2))
    unknown, known = inbox.table("webhook_events")
    assert (unknown["body"], unknown["state"], unknown["location_id"]) == (None, "ignored", LOCATION)
    assert bytes(known["body"]) == f"{LOCATION}:2".encode()
    assert inbox.counts() == (2, 1, 1)


def test_a_phone_is_stored_as_its_client_dials_it(inbox: Inbox) -> None:
    british = make_client(inbox.engine, "Beta", region="GB")
    person = NewLead(contact_id=CONTACT, phone="020 7946 0018\x00")
    american = NewLead(contact_id=CONTACT, phone="(305) 555-0123")
    inbox.store(inbox.sms(1, american), replace(inbox.sms(2, person), client_id=british))
    assert [row["phone"] for row in inbox.table("leads")] == ["+13055550123", "+442079460018"]


def test_two_clients_with_the_same_contact_id_and_address_have_a_lead_each(inbox: Inbox) -> None:
    other = make_client(inbox.engine, "Beta")
    more = NewLead(contact_id=CONTACT, emailbison_lead_id=7, email="ann@example.com", last_name="Lee")
    stored = inbox.store(inbox.sms(1), replace(inbox.sms(2, more), client_id=other, location_id="Beta0000000000000000"))
    first, second = inbox.table("leads")
    assert [each.lead_id for each in stored if isinstance(each, Stored)] == [first["id"], second["id"]]
    assert (first["client_id"], first["last_name"], first["emailbison_lead_id"]) == (inbox.client_id, None, None)
    assert (second["client_id"], second["last_name"], second["emailbison_lead_id"]) == (other, "Lee", 7)
    assert [row["lead_id"] for row in inbox.table("messages")] == [first["id"], second["id"]]


def test_a_lead_is_found_by_emailbison_id_before_address(inbox: Inbox) -> None:
    with inbox.engine.begin() as connection:
        for number, email in ((7, "old@example.com"), (None, "ann@example.com")):
            connection.execute(
                text("INSERT INTO leads (client_id, emailbison_lead_id, email) VALUES (:client, :number, :email)"),
                {"client": inbox.client_id, "number": number, "email": email},
            )
    by_number, by_address = (row["id"] for row in inbox.table("leads"))
    stored = inbox.store(
        inbox.reply(EventKind.LEAD_REPLIED, 1, NewLead(emailbison_lead_id=7, email="ann@example.com")),
        inbox.reply(EventKind.LEAD_REPLIED, 2, NewLead(emailbison_lead_id=8, email="ANN@example.com")),
    )
    assert [each.lead_id for each in stored if isinstance(each, Stored)] == [by_number, by_address]


# --- what cannot be stored


def test_an_event_whose_lead_or_message_cannot_be_stored_is_a_dead_letter(inbox: Inbox) -> None:
    nobody = inbox.sms(1, NewLead(first_name="Nobody"))
    good = inbox.sms(2)
    assert good.event.message is not None
    no_channel = inbox.sms(3, message=replace(good.event.message, channel=" "))
    stored = inbox.store(nobody, good, no_channel)
    dead, pending, half = inbox.table("webhook_events")
    assert all(isinstance(each, Stored) and each.is_new for each in stored)
    assert (dead["state"], dead["error_class"], dead["lead_id"]) == ("dead", "InvalidInput", None)
    assert "Nobody" not in dead["error_text"]
    assert (pending["state"], pending["error_class"]) == ("pending", None)
    assert (half["state"], half["error_class"], half["lead_id"]) == ("dead", "InvalidInput", pending["lead_id"])
    assert inbox.counts() == (3, 1, 1)


def test_nuls_and_lone_surrogates_are_left_out_of_every_text(inbox: Inbox) -> None:
    odd = "a\x00b\ud83dc"
    person = NewLead(contact_id=CONTACT, email=f"{odd}@example.com", first_name=odd, company_name=odd)
    message = NewMessage(
        provider="ghl", channel="sms", direction="inbound", external_id=odd, subject=odd, body=odd, status=odd,
        conversation_id=odd,
    )  # fmt: skip
    delivery = inbox.sms(1, person, message=message, event_type=odd, dedupe_key=f"{LOCATION}:{odd}")
    (stored,) = inbox.store(replace(delivery, location_id=odd))
    assert isinstance(stored, Stored)
    assert inbox.store(delivery) == [replace(stored, is_new=False)]
    (event,), (lead,), (row,) = (inbox.table(name) for name in ("webhook_events", "leads", "messages"))
    assert (event["event_type"], event["location_id"]) == ("abc", "abc")
    assert (lead["email"], lead["first_name"], lead["company_name"]) == ("abc@example.com", "abc", "abc")
    assert {row[name] for name in ("external_id", "subject", "body", "status", "conversation_id")} == {"abc"}


def test_keys_that_no_index_holds_are_still_different(inbox: Inbox) -> None:
    keys = ["k" * 5000, "k" * 5001, "odd\x00key", "oddkey", "odd\ud83dkey"]
    deliveries = [inbox.sms(number, dedupe_key=key) for number, key in enumerate(keys)]
    for _ in range(2):
        inbox.store(*deliveries)
    assert len(inbox.table("webhook_events")) == 5


def test_times_that_nobody_could_read_again_are_left_out(inbox: Inbox) -> None:
    for number, moment in enumerate((datetime.max.replace(tzinfo=UTC), datetime(2026, 1, 1))):  # noqa: DTZ001
        inbox.store(inbox.sms(number, occurred_at=moment))
    assert [row["occurred_at"] for row in inbox.table("webhook_events")] == [None, None]
    assert len(inbox.table("messages")) == 2


def refuse(inbox: Inbox, first_name: str) -> None:
    """What only the database knows to be wrong: a rule of the dashboard's."""
    with inbox.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE leads ADD CHECK (first_name <> '{first_name}')"))


def test_an_event_that_the_database_refuses_costs_only_itself(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    refuse(inbox, "Ann")
    before, poison, after = inbox.store(
        inbox.sms(1, NewLead(email="bob@example.com")), inbox.sms(2), inbox.sms(3, NewLead(email="eve@example.com"))
    )
    assert isinstance(before, Stored)
    assert poison == NotStored("CheckViolation")
    assert isinstance(after, Stored)
    assert [row["dedupe_key"] for row in inbox.table("webhook_events")] == [f"{LOCATION}:1", f"{LOCATION}:3"]
    assert [row["email"] for row in inbox.table("leads")] == ["bob@example.com", "eve@example.com"]
    assert "CheckViolation" in caplog.text
    assert "example.com" not in caplog.text
    assert "Ann" not in caplog.text


def test_an_event_of_a_client_that_was_deleted_meanwhile_costs_only_itself(inbox: Inbox) -> None:
    gone, gone_too, good = inbox.store(
        replace(inbox.sms(1), client_id=4711), replace(inbox.sms(2, kind=EventKind.OTHER), client_id=4711), inbox.sms(3)
    )
    assert gone == NotStored("UnknownClient")
    assert gone_too == NotStored("ForeignKeyViolation")
    assert isinstance(good, Stored)
    assert inbox.counts() == (1, 1, 1)


def test_bodies_larger_than_a_statement_takes_go_in_several_transactions(inbox: Inbox) -> None:
    large = [replace(inbox.sms(number), body=bytes([number]) * 5_000_000) for number in range(8)]
    stored = inbox.store(*large)
    assert all(isinstance(each, Stored) and each.is_new for each in stored)
    with inbox.engine.connect() as connection:
        query = text("SELECT length(body), get_byte(body, 4999999), xmin::text FROM webhook_events ORDER BY id")
        found = connection.execute(query).all()
    assert [(row.length, row.get_byte) for row in found] == [(5_000_000, number) for number in range(8)]
    assert len({row.xmin for row in found}) == 3  # of 3, 3 and 2


def test_a_database_that_does_not_answer_is_said_to(inbox: Inbox) -> None:
    nobody_there = create_engine("postgresql+psycopg://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable) as raised:
        store_deliveries(nobody_there, [inbox.sms()])
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_database_that_takes_nothing_is_unavailable_and_stores_nothing(inbox: Inbox) -> None:
    with inbox.engine.begin() as connection:
        connection.execute(text("ALTER TABLE messages RENAME TO messages_of_another_version"))
    with pytest.raises(DatabaseUnavailable):
        inbox.store(inbox.sms(1), inbox.sms(2))
    assert inbox.table("webhook_events") == inbox.table("leads") == []


@contextmanager
def kept(engine: Engine, client_id: int) -> Iterator[None]:
    """Another transaction stores leads of the client until the end of the block."""
    with engine.connect() as connection, connection.begin():
        lock_clients(connection, [client_id])
        yield


def test_a_client_whose_rows_somebody_keeps_costs_only_its_own_events(
    inbox: Inbox, database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    others, suspects = [make_client(inbox.engine, f"Other{number}") for number in range(3)], Suspects()

    def batch(number: int) -> list[Delivery]:
        of_others = [
            replace(inbox.sms(10 * number + place), client_id=id_) for place, id_ in enumerate(others, start=2)
        ]
        return [inbox.sms(10 * number), *of_others, inbox.sms(10 * number + 1)]

    engine = receiver_engine(database_url)
    taken: list[float] = []
    with kept(inbox.engine, inbox.client_id):
        for number in (1, 2):
            began = time.monotonic()
            first, *of_others, last = store_deliveries(engine, batch(number), suspects)
            taken.append(time.monotonic() - began)
            assert first == last == NotStored("LockNotAvailable", is_blocked=True)
            assert all(isinstance(each, Stored) and each.is_new for each in of_others)
    assert inbox.counts() == (6, 3, 6)
    assert caplog.text.count("storing each client's") == 1, "the second time it was known beforehand"
    assert 1 < taken[0] < 3
    assert taken[1] < 1
    again = store_deliveries(engine, batch(2), suspects)
    assert [isinstance(each, Stored) and each.is_new for each in again] == [True, False, False, False, True]
    assert inbox.client_id not in suspects
    engine.dispose()


def test_a_statement_that_takes_too_long_for_one_client_costs_only_its_own_events(
    inbox: Inbox, database_url: URL
) -> None:
    other = make_client(inbox.engine, "Other")
    with inbox.engine.begin() as connection:
        connection.execute(
            text(f"""
                CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN IF NEW.client_id = {inbox.client_id} THEN PERFORM pg_sleep(30); END IF; RETURN NEW; END $$;
                CREATE TRIGGER dawdle BEFORE INSERT ON leads FOR EACH ROW EXECUTE FUNCTION dawdle()
            """)
        )
    engine = receiver_engine(database_url)
    slow, good = store_deliveries(engine, [inbox.sms(1), replace(inbox.sms(2), client_id=other)])
    assert slow == NotStored("QueryCanceled", is_blocked=True)
    assert isinstance(good, Stored)
    assert [row["client_id"] for row in inbox.table("webhook_events")] == [other]
    engine.dispose()


def test_a_session_that_is_ended_amid_a_transaction_leaves_nothing(inbox: Inbox) -> None:
    with inbox.engine.begin() as connection:
        connection.execute(
            text("""
                CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NEW; END $$;
                CREATE TRIGGER end_session BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION end_session()
            """)
        )
    with pytest.raises(DatabaseUnavailable):
        inbox.store(inbox.sms(1), inbox.sms(2))
    assert inbox.counts() == (0, 0, 0)
    with inbox.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER end_session ON messages"))
    inbox.store(inbox.sms(1), inbox.sms(2))
    assert inbox.counts() == (2, 1, 2)


def test_a_transaction_that_is_rolled_back_leaves_nothing_half_stored(inbox: Inbox) -> None:
    with inbox.engine.connect() as connection:
        store_events(connection, [inbox.sms(1), inbox.sms(2)])
        connection.rollback()
    assert inbox.counts() == (0, 0, 0)


# --- at the same time


def test_100_deliveries_of_one_event_at_once_are_one_event_one_lead_one_message(inbox: Inbox) -> None:
    engine = create_engine(inbox.engine.url, pool_size=50, max_overflow=0)
    stored = in_parallel([lambda: store_deliveries(engine, [inbox.sms()])] * 100)
    engine.dispose()
    assert inbox.counts() == (1, 1, 1)
    (event,), (lead,) = inbox.table("webhook_events"), inbox.table("leads")
    assert {(each.event_id, each.lead_id) for each in stored if isinstance(each, Stored)} == {(event["id"], lead["id"])}
    assert sum(isinstance(each, Stored) and each.is_new for each in stored) == 1


def ten_events(inbox: Inbox) -> list[Delivery]:
    """Of one new lead, who wrote three SMS and two e-mails. Some senders know more of its keys than others."""
    email = "Ann@example.com"
    from_ghl = NewLead(contact_id=CONTACT, email=email, phone="(305) 555-0123")
    by_workflow = NewLead(contact_id=CONTACT, email=" ann@EXAMPLE.com")
    from_emailbison = NewLead(emailbison_lead_id=7, email="ANN@example.com", first_name="Ann")
    by_address = NewLead(email=email, last_name="Lee")
    first, second, third = (inbox.sms(number, from_ghl) for number in (1, 2, 3))

    def without_id(sms: Delivery, key: str, person: NewLead) -> Delivery:
        assert sms.event.message is not None
        message = replace(sms.event.message, external_id=None)
        event = replace(sms.event, provider=Provider.GHL_WORKFLOW, dedupe_key=key, person=person, message=message)
        return replace(sms, event=event)

    return [
        first, second, third,
        without_id(first, "workflow 1", by_workflow),
        without_id(third, "workflow 3", by_address),
        replace(second, event=replace(second.event, dedupe_key="again under another webhook id")),
        inbox.reply(EventKind.LEAD_REPLIED, 50, from_emailbison),
        inbox.reply(EventKind.LEAD_INTERESTED, 50, from_emailbison, is_interested=True),
        inbox.reply(EventKind.LEAD_REPLIED, 51, by_address),
        inbox.reply(EventKind.LEAD_INTERESTED, 51, from_emailbison, is_interested=True),
    ]  # fmt: skip


def check_ten_events(inbox: Inbox) -> None:
    assert inbox.counts() == (10, 1, 5)
    (lead,) = inbox.table("leads")
    assert (lead["ghl_contact_id"], lead["emailbison_lead_id"]) == (CONTACT, 7)
    assert (lead["phone"], lead["first_name"], lead["last_name"]) == ("+13055550123", "Ann", "Lee")
    found = {(row["provider"], row["external_id"], row["is_interested"]) for row in inbox.table("messages")}
    assert found == {
        ("ghl", "m1", False), ("ghl", "m2", False), ("ghl", "m3", False), ("emailbison", "50", True),
        ("emailbison", "51", True),
    }  # fmt: skip
    assert {row["lead_id"] for row in inbox.table("webhook_events")} == {lead["id"]}


def test_10_events_of_one_new_lead_in_any_order_and_grouping_are_one_lead(inbox: Inbox) -> None:
    for seed in range(60):
        chance = random.Random(seed)
        deliveries = ten_events(inbox)
        chance.shuffle(deliveries)
        while deliveries:
            size = chance.randint(1, 10)
            inbox.store(*deliveries[:size])
            deliveries = deliveries[size:]
        check_ten_events(inbox)
        inbox.empty()


def test_10_events_of_one_new_lead_at_the_same_time_are_one_lead(inbox: Inbox) -> None:
    engine = create_engine(inbox.engine.url, pool_size=20, max_overflow=0)
    for seed in range(20):
        deliveries = [*ten_events(inbox), *ten_events(inbox)]
        random.Random(seed).shuffle(deliveries)
        stored = in_parallel([lambda each=each: store_deliveries(engine, [each]) for each in deliveries])  # type: ignore[misc]
        assert sum(isinstance(each, Stored) and each.is_new for each in stored) == 10
        check_ten_events(inbox)
        inbox.empty()
    engine.dispose()


def test_batches_of_several_clients_in_any_order_do_not_deadlock(inbox: Inbox) -> None:
    other = make_client(inbox.engine, "Beta")
    engine = create_engine(inbox.engine.url, pool_size=20, max_overflow=0)
    deliveries = [
        replace(inbox.sms(number, NewLead(email=f"p{number % 7}@example.com")), client_id=client)
        for number in range(40)
        for client in [inbox.client_id if number % 2 else other]
    ]
    batches = [random.Random(seed).sample(deliveries, len(deliveries)) for seed in range(12)]
    stored = in_parallel([lambda batch=batch: store_deliveries(engine, batch) for batch in batches])  # type: ignore[misc]
    engine.dispose()
    assert all(isinstance(each, Stored) for each in stored)
    assert sum(isinstance(each, Stored) and each.is_new for each in stored) == 40
    assert inbox.counts() == (40, 14, 40)
