"""A message is one row per client, whichever way and however often it is reported."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, insert, select, text

from ghl_pipeline.database.leads import LeadUpsert, NewLead, upsert_leads
from ghl_pipeline.database.messages import NewMessage, StoredMessage, store_messages
from ghl_pipeline.database.tables import clients, leads, messages
from ghl_pipeline.errors import InvalidInput

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def sms(body: str = "Yes please", *, at: float | None = 0, **more: Any) -> NewMessage:
    sent_at = None if at is None else after(at)
    return NewMessage(
        **{"provider": "ghl", "channel": "sms", "direction": "inbound", "body": body, "sent_at": sent_at} | more
    )


@dataclass(frozen=True)
class People:
    """Two clients; Ann and Bob are leads of the first, Eve is of the other."""

    engine: Engine
    client: int
    other_client: int
    ann: int
    bob: int
    eve: int

    def store(self, *batch: NewMessage) -> list[StoredMessage]:
        """Ann's messages, in one transaction."""
        with self.engine.begin() as connection:
            return [
                stored
                for stored in store_messages(connection, [(self.client, self.ann, message) for message in batch])
                if isinstance(stored, StoredMessage)
            ]

    def rows(self) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(messages).order_by(messages.c.id))]


@pytest.fixture
def people(engine: Engine) -> People:
    with engine.begin() as connection:
        new = [{"name": name, "location_id": f"{name:0<20}"} for name in ("Acme", "Beta")]
        one, other = connection.execute(insert(clients).values(new).returning(clients.c.id)).scalars()
        persons = [(one, "ann@example.com"), (one, "bob@example.com"), (other, "ann@example.com")]
        stored = upsert_leads(connection, [(client, NewLead(email=email)) for client, email in persons])
    ann, bob, eve = (each.lead_id for each in stored if isinstance(each, LeadUpsert))
    return People(engine, one, other, ann, bob, eve)


def test_a_message_is_stored_as_it_came(people: People) -> None:
    message = sms(
        " Yes\x00 please \ud83d", external_id="m1", subject="Re\x00:", status="delivered", conversation_id="c1",
        is_automated=True, source="import", channel="SMS",
    )  # fmt: skip
    (stored,) = people.store(message)
    assert (stored.created, stored.healed, stored.updated) == (True, False, False)
    (row,) = people.rows()
    assert row["id"] == stored.message_id
    assert (row["client_id"], row["lead_id"], row["external_id"]) == (people.client, people.ann, "m1")
    assert (row["body"], row["subject"], row["channel"]) == (" Yes please ", "Re:", "sms")
    assert (row["status"], row["conversation_id"], row["source"]) == ("delivered", "c1", "import")
    assert (row["is_automated"], row["is_interested"], row["sent_at"]) == (True, False, NOON)


def test_a_repeat_changes_only_what_may_change(people: People) -> None:
    people.store(sms(external_id="m1"))
    (again,) = people.store(
        sms(
            "edited", at=500, external_id="m1", status="read", conversation_id="c1", is_interested=True, source="import"
        )
    )
    assert (again.created, again.healed, again.updated) == (False, False, True)
    (third,) = people.store(sms(external_id="m1", conversation_id="c2", is_automated=True))
    assert third.updated
    (last,) = people.store(sms(external_id="m1"))
    assert not last.updated
    (row,) = people.rows()
    assert (row["body"], row["sent_at"], row["source"]) == ("Yes please", NOON, "webhook")
    assert (row["status"], row["conversation_id"]) == ("read", "c1")
    assert (row["is_interested"], row["is_automated"]) == (True, True)


def test_a_repeat_that_says_nothing_new_does_not_touch_the_row(people: People) -> None:
    people.store(sms(external_id="m1", status="sent"))
    version = text("SELECT xmin::text FROM messages")
    with people.engine.connect() as connection:
        before = connection.execute(version).scalar_one()
    people.store(sms(external_id="m1"), sms())
    with people.engine.connect() as connection:
        assert connection.execute(version).scalar_one() == before


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_the_import_heals_the_webhooks_row_that_had_no_id(people: People, in_one_batch: bool) -> None:
    by_webhook = sms("Yes please\n", at=20)
    by_import = sms(" Yes please", at=0, external_id="m1", source="import", conversation_id="c1")
    if in_one_batch:
        first, second = people.store(by_webhook, by_import)
    else:
        (first,), (second,) = people.store(by_webhook), people.store(by_import)
    assert (first.created, second.created, second.healed, second.updated) == (True, False, True, True)
    assert first.message_id == second.message_id
    (row,) = people.rows()
    assert (row["external_id"], row["conversation_id"], row["source"]) == ("m1", "c1", "webhook")
    assert row["sent_at"] == NOON  # the provider's own time


def test_a_report_without_id_is_the_message_that_is_there(people: People) -> None:
    (known,) = people.store(sms(external_id="m1"))
    (late,) = people.store(sms(at=60, is_interested=True))
    assert late == StoredMessage(known.message_id, created=False, updated=True)
    assert len(people.rows()) == 1


def test_the_nearest_row_is_healed_and_each_only_once(people: People) -> None:
    first, second = people.store(sms(at=0), sms(at=70))
    healed = people.store(sms(at=50, external_id="m2"), sms(at=10, external_id="m1"), sms(at=11, external_id="m3"))
    assert [each.message_id for each in healed[:2]] == [second.message_id, first.message_id]
    assert healed[2].created
    assert [row["external_id"] for row in people.rows()] == ["m1", "m2", "m3"]


@pytest.mark.parametrize(
    "other",
    [
        {"external_id": "m2"},
        {"at": 61},
        {"body": "yes please"},
        {"direction": "outbound"},
        {"channel": "whatsapp"},
        {"provider": "emailbison"},
    ],
    ids=str,
)
def test_what_differs_is_another_message(people: People, other: dict[str, Any]) -> None:
    people.store(sms(external_id="m1"))
    (second,) = people.store(sms(**other))
    assert second.created


def test_the_same_words_of_another_lead_or_client_are_other_messages(people: People) -> None:
    with people.engine.begin() as connection:
        stored = store_messages(
            connection,
            [
                (people.client, people.ann, sms()),
                (people.client, people.bob, sms()),
                (people.other_client, people.eve, sms()),
                (people.client, people.ann, sms("Hello", external_id="m1")),
                (people.other_client, people.eve, sms("Hello", external_id="m1")),
            ],
        )
    assert all(isinstance(each, StoredMessage) and each.created for each in stored)


def test_an_id_is_one_message_even_when_it_is_told_of_another_lead(people: People) -> None:
    people.store(sms(external_id="m1"))
    with people.engine.begin() as connection:
        (again,) = store_messages(connection, [(people.client, people.bob, sms(external_id="m1"))])
    assert isinstance(again, StoredMessage)
    assert not again.created
    assert [row["lead_id"] for row in people.rows()] == [people.ann]


def test_an_unknown_time_is_now(people: People) -> None:
    impossible = datetime.max.replace(tzinfo=UTC)
    people.store(sms("one", at=None), sms("two", sent_at=impossible), sms("three", sent_at=datetime(2026, 1, 1)))  # noqa: DTZ001
    for row in people.rows():
        assert abs(row["sent_at"] - datetime.now(UTC)) < timedelta(minutes=1)


def test_what_cannot_be_stored_costs_the_others_nothing(people: People) -> None:
    with people.engine.begin() as connection:
        stored = store_messages(
            connection,
            [
                (people.client, people.ann, sms(external_id="x" * 3000)),
                (people.client, people.ann, sms(provider="pigeon")),
                (people.client, people.ann, sms(channel=" ")),
                (people.client, people.eve, sms("to a lead of another client")),
                (people.client, 4711, sms("to a lead that was deleted")),
                (people.client, people.ann, sms("good")),
            ],
        )
    *refused, good = stored
    assert all(isinstance(each, InvalidInput) for each in refused)
    assert isinstance(good, StoredMessage)
    assert [row["body"] for row in people.rows()] == ["good"]
    assert "xxx" not in str(refused)


def test_a_page_of_500_is_three_statements(people: People) -> None:
    sent: list[str] = []
    with people.engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *call: sent.append(call[2]))
        page = [(people.client, people.ann, sms(f"{n}", external_id=f"m{n}")) for n in range(500)]
        store_messages(connection, page)
    assert [words.split()[0] for words in sent] == ["SELECT", "WITH", "SAVEPOINT", "INSERT", "RELEASE"]
    assert [row["body"] for row in people.rows()] == [str(n) for n in range(500)]


def test_the_look_up_uses_both_indexes(people: People) -> None:
    sent: list[tuple[str, Any]] = []
    with people.engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO messages (client_id, lead_id, provider, external_id, channel, direction, source, sent_at)
                SELECT :client, :lead, 'ghl', 'm' || n, 'sms', 'inbound', 'import', now() - n * interval '1 hour'
                FROM generate_series(1, 5000) AS n
            """),
            {"client": people.client, "lead": people.ann},
        )
        connection.execute(text("ANALYZE messages"))
        event.listen(connection, "before_cursor_execute", lambda *call: sent.append((call[2], call[3])))
        store_messages(connection, [(people.client, people.ann, sms(external_id="m7"))])
        statement, parameters = next(each for each in sent if "LATERAL" in each[0])
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
    assert "uq_messages_external" in plan
    assert "ix_messages_lead" in plan
    assert "Seq Scan on messages" not in plan


# --- whatever the order


@dataclass(frozen=True)
class Told:
    """A message that the provider has, and what is reported of it: by id, and by webhooks that say no id."""

    number: int
    body: str
    sent: int
    with_id: int
    delays: tuple[int, ...]  # of reports without id, seconds

    def reports(self) -> list[NewMessage]:
        external_id = f"m{self.number}"
        by_id = [
            sms(self.body, at=self.sent, external_id=external_id),
            sms(f"{self.body} ", at=self.sent, external_id=external_id, source="import", status="read"),
        ]
        return [*by_id[: self.with_id], *(sms(f" {self.body}", at=self.sent + delay) for delay in self.delays)]


def stories() -> st.SearchStrategy[list[Told]]:
    """Messages of one lead, also of the same words within a minute. Each is reported by its id at least once."""
    one = st.builds(
        Told,
        number=st.just(0),
        body=st.sampled_from(["yes", "no"]),
        sent=st.integers(0, 200),
        with_id=st.integers(1, 2),
        # Two reports without id that are more than a minute apart are two rows until an id says otherwise; a report
        # takes less than half of that.
        delays=st.lists(st.integers(0, 29), max_size=3).map(tuple),
    )
    return st.lists(one, min_size=1, max_size=4).map(
        lambda told: [replace(each, number=number) for number, each in enumerate(told)]
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), told=stories())
def test_reports_in_any_order_and_number_end_in_one_row_for_each_message(
    people: People, data: st.DataObject, told: list[Told]
) -> None:
    reports = [report for each in told for report in each.reports()]
    repeated = data.draw(st.lists(st.sampled_from(reports), max_size=4))
    order = data.draw(st.permutations(reports + repeated))
    cuts = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    with people.engine.connect() as connection:
        for batch in cut(order, cuts):
            store_messages(connection, [(people.client, people.ann, message) for message in batch])
        found = connection.execute(select(messages.c.external_id, messages.c.body)).all()
        connection.rollback()
    assert sorted((row.external_id, row.body.strip()) for row in found) == sorted(
        (f"m{each.number}", each.body) for each in told
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.lists(
        st.builds(
            sms,
            st.sampled_from(["yes", "yes ", "no"]),
            at=st.integers(0, 150),
            external_id=st.sampled_from([None, None, "m1", "m2"]),
            status=st.sampled_from([None, "read"]),
            is_interested=st.booleans(),
        ),
        max_size=10,
    )
)
def test_a_batch_ends_as_its_messages_one_by_one_would(people: People, batch: list[NewMessage]) -> None:
    of_ann = [(people.client, people.ann, message) for message in batch]
    with people.engine.connect() as connection:
        before = connection.begin_nested()
        expected = outcome(connection, [stored for row in of_ann for stored in store_messages(connection, [row])])
        before.rollback()
        assert outcome(connection, store_messages(connection, of_ann)) == expected
        connection.rollback()


def cut(order: Sequence[NewMessage], cuts: Sequence[bool]) -> list[list[NewMessage]]:
    batches: list[list[NewMessage]] = [[]]
    for message, ends in zip(order, cuts, strict=True):
        batches[-1].append(message)
        if ends:
            batches.append([])
    return batches


def outcome(connection: Connection, stored: Sequence[StoredMessage | InvalidInput]) -> object:
    numbers: dict[int, int] = {}
    told = [
        (numbers.setdefault(each.message_id, len(numbers)), each.created, each.healed, each.updated)
        for each in stored
        if isinstance(each, StoredMessage)
    ]
    found = [dict(row._mapping) for row in connection.execute(select(messages).order_by(messages.c.id))]
    for row in found:
        del row["created_at"], row["updated_at"]
        row["id"] = numbers[row["id"]]
    return told, found


def test_callers_at_the_same_time_make_no_doubles(people: People) -> None:
    reports = [sms(at=5), sms(at=0, external_id="m1"), sms(at=0, external_id="m1", source="import"), sms(at=20)]
    for number in range(10):
        barrier = threading.Barrier(8)

        def report(place: int, number: int = number, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            message = reports[(place + number) % 4]
            more = {"body": f"{number}", "external_id": message.external_id and f"{message.external_id}-{number}"}
            people.store(replace(message, **more))  # type: ignore[arg-type]

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(report, place) for place in range(8)]:
                future.result(30)
    assert [row["external_id"] for row in people.rows()] == [f"m1-{number}" for number in range(10)]


def test_a_row_that_another_writer_makes_meanwhile_is_used(people: People) -> None:
    """Who writes into the table by hand takes no lock of ours: only the unique index knows of the row."""
    values = {
        "client_id": people.client, "lead_id": people.ann, "provider": "ghl", "external_id": "m1", "body": "by hand",
        "channel": "sms", "direction": "inbound", "source": "import", "sent_at": NOON,
    }  # fmt: skip
    with ThreadPoolExecutor(1) as pool, people.engine.connect() as by_hand:
        by_hand.execute(insert(messages).values(values))
        coming = pool.submit(people.store, sms("new", external_id="m2"), sms(external_id="m1", status="read"))
        wait_until_somebody_waits(people.engine)
        by_hand.commit()
        new, known = coming.result(10)
    assert (new.created, known.created, known.updated) == (True, False, True)
    assert sorted((row["external_id"], row["body"]) for row in people.rows()) == [("m1", "by hand"), ("m2", "new")]


def test_a_lead_that_is_deleted_meanwhile_costs_only_its_own_message(people: People) -> None:
    with ThreadPoolExecutor(1) as pool, people.engine.connect() as dashboard:
        dashboard.execute(leads.delete().where(leads.c.id == people.ann))

        def both() -> list[StoredMessage | InvalidInput]:
            with people.engine.begin() as connection:
                batch = [(people.client, people.ann, sms()), (people.client, people.bob, sms())]
                return store_messages(connection, batch)

        coming = pool.submit(both)
        wait_until_somebody_waits(people.engine)
        dashboard.commit()
        of_ann, of_bob = coming.result(10)
    assert isinstance(of_ann, InvalidInput)
    assert isinstance(of_bob, StoredMessage)
    assert [row["lead_id"] for row in people.rows()] == [people.bob]


def wait_until_somebody_waits(engine: Engine) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with engine.connect() as connection:
        for _ in range(1000):
            if connection.execute(waiting).scalar():
                return
            connection.rollback()
            threading.Event().wait(0.005)
    raise AssertionError("nobody waits")
