"""A lead that comes in is one row per person, whoever writes it at the same time."""

import itertools
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.leads import LeadUpsert, NewLead, upsert_lead, upsert_leads
from ghl_pipeline.database.tables import clients, leads
from ghl_pipeline.errors import InvalidInput, UnknownClient

CONTACT, OTHER_CONTACT = "ve9EPM428h8vShlRW1KT", "otherContact00000001"


def make_client(engine: Engine, name: str = "Acme") -> int:
    location = f"{name:0<20}"
    with engine.begin() as connection:
        inserted = insert(clients).values(name=name, location_id=location).returning(clients.c.id)
        return int(connection.execute(inserted).scalar_one())


@pytest.fixture
def client_id(engine: Engine) -> int:
    return make_client(engine)


def store(engine: Engine, client_id: int, lead: NewLead) -> LeadUpsert:
    with engine.begin() as connection:
        return upsert_lead(connection, client_id, lead)


def rows(engine: Engine) -> list[dict[str, object]]:
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(leads).order_by(leads.c.id))]


def test_a_lead_is_cleaned_and_stored_once(engine: Engine, client_id: int) -> None:
    lead = NewLead(
        contact_id=f" {CONTACT}", email=" Ann@Example.com\n", first_name='An\x00n "O\'Neil"', last_name=" \x00 ",
        company_name="half \ud83d of a pair", status="interested",
    )  # fmt: skip
    first = store(engine, client_id, lead)
    again = store(engine, client_id, lead)
    assert (first.created, again.created) == (True, False)
    assert first.lead_id == again.lead_id
    (row,) = rows(engine)
    assert row["ghl_contact_id"] == CONTACT
    assert row["email"] == "Ann@Example.com"
    assert row["first_name"] == 'Ann "O\'Neil"'
    assert row["last_name"] is None
    assert row["company_name"] == "half  of a pair"
    assert row["status"] == "interested"


@pytest.mark.parametrize(
    "found_by",
    [{"contact_id": CONTACT}, {"emailbison_lead_id": 7}, {"email": " ANN@example.COM "}],
    ids=["contact", "emailbison", "email"],
)
def test_only_empty_fields_of_the_found_row_are_filled(
    engine: Engine, client_id: int, found_by: dict[str, str | int]
) -> None:
    known = NewLead(
        contact_id=CONTACT, emailbison_lead_id=7, email="ann@example.com", first_name="Ann", status="called"
    )  # fmt: skip
    made = store(engine, client_id, known)
    with engine.begin() as connection:
        connection.execute(update(leads).values(last_name=" \t"))
    more = {"first_name": "Anna", "last_name": "Lee", "phone": "+13055550123", "status": "new"}
    stored = store(engine, client_id, NewLead(**{**more, **found_by}))  # type: ignore[arg-type]
    assert stored == LeadUpsert(made.lead_id, created=False)
    (row,) = rows(engine)
    assert (row["first_name"], row["last_name"], row["phone"]) == ("Ann", "Lee", "+13055550123")
    assert (row["email"], row["status"]) == ("ann@example.com", "called")


def test_a_lead_that_brings_nothing_new_does_not_touch_the_row(engine: Engine, client_id: int) -> None:
    store(engine, client_id, NewLead(email="ann@example.com", first_name="Ann"))
    version = text("SELECT xmin::text FROM leads")
    with engine.connect() as connection:
        before = connection.execute(version).scalar_one()
    store(engine, client_id, NewLead(email="ann@example.com", first_name="Anna"))
    with engine.connect() as connection:
        assert connection.execute(version).scalar_one() == before


def test_of_two_rows_the_contacts_wins_and_the_address_stays_where_it_is(engine: Engine, client_id: int) -> None:
    by_contact = store(engine, client_id, NewLead(contact_id=CONTACT))
    by_email = store(engine, client_id, NewLead(email="ann@example.com"))
    by_number = store(engine, client_id, NewLead(emailbison_lead_id=7))
    everything = NewLead(contact_id=CONTACT, emailbison_lead_id=7, email="ANN@example.com", first_name="Ann")
    assert store(engine, client_id, everything) == LeadUpsert(by_contact.lead_id, created=False)
    found = {row["id"]: row for row in rows(engine)}
    assert len(found) == 3
    winner = found[by_contact.lead_id]
    assert (winner["email"], winner["emailbison_lead_id"], winner["first_name"]) == (None, None, "Ann")
    assert found[by_email.lead_id]["email"] == "ann@example.com"
    assert found[by_number.lead_id]["emailbison_lead_id"] == 7


def test_two_clients_may_know_the_same_person(engine: Engine, client_id: int) -> None:
    lead = NewLead(contact_id=CONTACT, emailbison_lead_id=7, email="ann@example.com")
    assert store(engine, client_id, lead).created
    assert store(engine, make_client(engine, "Beta"), lead).created


@pytest.mark.parametrize(
    "lead",
    [
        NewLead(first_name="Ann", phone="+13055550123"),
        NewLead(email=" \x00", contact_id=""),
        NewLead(emailbison_lead_id=0),
        NewLead(emailbison_lead_id=2**63),
        NewLead(email="é" * 1001),
    ],
)
def test_a_lead_that_nothing_could_find_again_is_refused(engine: Engine, client_id: int, lead: NewLead) -> None:
    with pytest.raises(InvalidInput) as refused:
        store(engine, client_id, lead)
    assert "é" not in str(refused.value)
    assert "Ann" not in repr(lead)
    assert rows(engine) == []


def test_an_address_of_300_characters_is_stored(engine: Engine, client_id: int) -> None:
    assert store(engine, client_id, NewLead(email="a" * 288 + "@example.com")).created


def test_an_unknown_client_is_named_and_the_transaction_goes_on(engine: Engine, client_id: int) -> None:
    with engine.begin() as connection:
        with pytest.raises(UnknownClient, match="no client with id 4711"):
            upsert_lead(connection, 4711, NewLead(email="ann@example.com"))
        upsert_lead(connection, client_id, NewLead(email="ann@example.com"))
    assert len(rows(engine)) == 1


def in_parallel(*actions: Callable[[], object]) -> list[object]:
    """Run the actions in threads that start together; the first error is raised."""
    barrier = threading.Barrier(len(actions))

    def start(action: Callable[[], object]) -> object:
        barrier.wait(10)
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result(30) for future in [pool.submit(start, action) for action in actions]]


KEYS: tuple[dict[str, str | int], ...] = (
    {"contact_id": CONTACT},
    {"emailbison_lead_id": 7},
    {"email": "Ann@example.com"},
)
# Every pair of leads of one person that have at least one key in common.
KEY_SETS = [
    {name: value for key in chosen for name, value in key.items()}
    for size in (1, 2, 3)
    for chosen in itertools.combinations(KEYS, size)
]
RACES = [(one, two) for one, two in itertools.combinations_with_replacement(KEY_SETS, 2) if one.keys() & two.keys()]


def test_two_writers_of_one_person_end_with_one_row_in_every_combination(engine: Engine, client_id: int) -> None:
    for number, (one, two) in enumerate(RACES * 8):
        keys = one | two
        stored = in_parallel(
            lambda one=one: store(engine, client_id, NewLead(**one, first_name="Ann")),  # type: ignore[misc]
            lambda two=two: store(engine, client_id, NewLead(**two, last_name="Lee")),  # type: ignore[misc]
        )
        (row,) = rows(engine)
        assert {each.lead_id for each in stored if isinstance(each, LeadUpsert)} == {row["id"]}, number
        assert sorted(each.created for each in stored if isinstance(each, LeadUpsert)) == [False, True]
        assert (row["first_name"], row["last_name"]) == ("Ann", "Lee")
        assert row["ghl_contact_id"] == keys.get("contact_id")
        assert row["emailbison_lead_id"] == keys.get("emailbison_lead_id")
        assert row["email"] == keys.get("email")
        with engine.begin() as connection:
            connection.execute(leads.delete())


def test_transactions_with_many_leads_in_any_order_do_not_deadlock(engine: Engine, client_id: int) -> None:
    people = [NewLead(contact_id=f"contact{n:015}", email=f"p{n}@example.com") for n in range(8)]

    def write(seed: int) -> None:
        shuffled = random.Random(seed).sample(people, len(people))
        with engine.begin() as connection:
            for person in shuffled:
                upsert_lead(connection, client_id, person)

    for round_number in range(10):
        in_parallel(*(lambda seed=seed: write(seed) for seed in range(round_number * 4, round_number * 4 + 4)))
    assert len(rows(engine)) == len(people)


def wait_until_somebody_waits(engine: Engine) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with engine.connect() as connection:
        for _ in range(1000):
            if connection.execute(waiting).scalar():
                return
            connection.rollback()
            threading.Event().wait(0.005)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("dashboard_commits", [True, False])
def test_a_dashboard_row_in_flight_is_waited_for_and_then_used_or_not(
    engine: Engine, client_id: int, dashboard_commits: bool
) -> None:
    """The dashboard takes no lock of ours: only the unique index knows of its row."""
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        dashboard.execute(insert(leads).values(client_id=client_id, email="ann@EXAMPLE.com"))
        coming = pool.submit(store, engine, client_id, NewLead(contact_id=CONTACT, email="Ann@example.com"))
        wait_until_somebody_waits(engine)
        assert not coming.done()
        if dashboard_commits:
            dashboard.commit()
        else:
            dashboard.rollback()
        assert coming.result(10).created is not dashboard_commits
    (row,) = rows(engine)
    assert row["ghl_contact_id"] == CONTACT
    assert row["email"] == ("ann@EXAMPLE.com" if dashboard_commits else "Ann@example.com")


def test_a_key_that_another_row_gets_meanwhile_stays_with_that_row(engine: Engine, client_id: int) -> None:
    mine = store(engine, client_id, NewLead(email="ann@example.com"))
    other = store(engine, client_id, NewLead(email="bob@example.com"))
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        dashboard.execute(update(leads).where(leads.c.id == other.lead_id).values(emailbison_lead_id=7))
        coming = pool.submit(store, engine, client_id, NewLead(emailbison_lead_id=7, email="ann@example.com"))
        wait_until_somebody_waits(engine)
        dashboard.commit()
        # The number now finds the other row, and the number counts for more than the address.
        assert coming.result(10) == LeadUpsert(other.lead_id, created=False)
    assert {row["id"]: row["emailbison_lead_id"] for row in rows(engine)} == {mine.lead_id: None, other.lead_id: 7}


def test_a_value_that_a_person_typed_meanwhile_wins(engine: Engine, client_id: int) -> None:
    made = store(engine, client_id, NewLead(email="ann@example.com"))
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        dashboard.execute(update(leads).values(first_name="Typed"))
        late = NewLead(email="ann@example.com", first_name="Late", last_name="Lee")
        coming = pool.submit(store, engine, client_id, late)
        wait_until_somebody_waits(engine)
        dashboard.commit()
        assert coming.result(10) == LeadUpsert(made.lead_id, created=False)
    (row,) = rows(engine)
    assert (row["first_name"], row["last_name"]) == ("Typed", "Lee")


def test_an_address_corrected_meanwhile_is_another_person(engine: Engine, client_id: int) -> None:
    made = store(engine, client_id, NewLead(email="ann@example.com"))
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        dashboard.execute(update(leads).values(email="bob@example.com"))
        coming = pool.submit(store, engine, client_id, NewLead(email="ann@example.com", first_name="Ann"))
        wait_until_somebody_waits(engine)
        dashboard.commit()
        stored = coming.result(10)
    assert stored.created
    assert {row["id"]: row["first_name"] for row in rows(engine)} == {made.lead_id: None, stored.lead_id: "Ann"}


def test_the_look_up_uses_the_three_unique_indexes(engine: Engine, client_id: int) -> None:
    sent: list[tuple[str, Any]] = []
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO leads (client_id, email) SELECT :client, n || '@x.example' FROM generate_series(1, 5000) n"
            ),
            {"client": client_id},
        )
        connection.execute(text("ANALYZE leads"))
        event.listen(connection, "before_cursor_execute", lambda *call: sent.append((call[2], call[3])))
        upsert_lead(connection, client_id, NewLead(contact_id=CONTACT, emailbison_lead_id=7, email="3@x.example"))
        statement, parameters = next(each for each in sent if "ORDER BY" in each[0])
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
    for index in ("uq_leads_client_contact", "uq_leads_client_emailbison_lead", "uq_leads_client_email"):
        assert index in plan
    assert "Seq Scan" not in plan


def test_other_database_errors_are_not_swallowed(engine: Engine, client_id: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE leads ADD CHECK (first_name <> 'Ann')"))
    with pytest.raises(DBAPIError) as raised:
        store(engine, client_id, NewLead(email="ann@example.com", first_name="Ann"))
    assert "ann@example.com" not in str(raised.value)


def test_empty_texts_are_no_keys_and_spaces_are_no_difference(engine: Engine, client_id: int) -> None:
    with engine.begin() as connection:
        for _ in range(2):
            connection.execute(insert(leads).values(client_id=client_id, email="", ghl_contact_id=""))
        stored = connection.execute(
            insert(leads).values(client_id=client_id, email="  Ada@Example.com ").returning(leads.c.id)
        ).scalar_one()
        assert upsert_lead(connection, client_id, NewLead(email="ada@example.com")).lead_id == stored


# --- a batch


def store_all(engine: Engine, *batch: tuple[int, NewLead]) -> list[LeadUpsert | InvalidInput]:
    with engine.begin() as connection:
        return upsert_leads(connection, batch)


def one_by_one(connection: Connection, batch: Sequence[tuple[int, NewLead]]) -> list[LeadUpsert | InvalidInput]:
    stored: list[LeadUpsert | InvalidInput] = []
    for client, lead in batch:
        try:
            stored.append(upsert_lead(connection, client, lead))
        except InvalidInput as refused:
            stored.append(refused)
    return stored


def told(connection: Connection, stored: Sequence[LeadUpsert | InvalidInput]) -> list[object]:
    """What a caller can see of a batch, with the rows numbered as they come up, then all rows there are."""
    numbers: dict[int, int] = {}
    story: list[object] = []
    for each in stored:
        if isinstance(each, LeadUpsert):
            story.append((numbers.setdefault(each.lead_id, len(numbers)), each.created))
        else:
            story.append(str(each))
    found = [dict(row._mapping) for row in connection.execute(select(leads).order_by(leads.c.id))]
    for row in found:
        del row["created_at"], row["updated_at"]
        row["id"] = numbers.get(row["id"], "untouched")
    return [*story, *sorted(found, key=str)]


TEXTS = st.sampled_from(["", " ", "Ann", "Lee\x00", "  Ada  "])
PERSONS = st.builds(
    NewLead,
    contact_id=st.sampled_from([None, "", CONTACT, OTHER_CONTACT, f" {CONTACT}"]),
    emailbison_lead_id=st.sampled_from([None, 0, 7, 8]),
    email=st.sampled_from([None, " ", "ann@example.com", " ANN@Example.com", "bob@example.com", "ÄDA@example.com"]),
    phone=st.sampled_from([None, "+13055550123"]),
    first_name=TEXTS,
    last_name=TEXTS,
    status=st.sampled_from([None, "interested"]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    known=st.lists(st.tuples(st.booleans(), PERSONS), max_size=4),
    blanks=st.booleans(),
    batch=st.lists(st.tuples(st.booleans(), PERSONS), min_size=1, max_size=8),
)
def test_a_batch_ends_as_its_leads_one_by_one_would(
    two_clients: tuple[Engine, int, int],
    known: list[tuple[bool, NewLead]],
    blanks: bool,
    batch: list[tuple[bool, NewLead]],
) -> None:
    engine, one, other = two_clients
    of_clients = [(one if is_first else other, lead) for is_first, lead in batch]
    with engine.connect() as connection:
        one_by_one(connection, [(one if is_first else other, lead) for is_first, lead in known])
        if blanks:  # as forms save them
            connection.execute(text("UPDATE leads SET email = ' ' || email, first_name = ' Ann ', last_name = E' \\t'"))
        before = connection.begin_nested()
        expected = told(connection, one_by_one(connection, of_clients))
        before.rollback()
        assert told(connection, upsert_leads(connection, of_clients)) == expected
        connection.rollback()


@pytest.fixture
def two_clients(engine: Engine) -> tuple[Engine, int, int]:
    return engine, make_client(engine, "Acme"), make_client(engine, "Beta")


def test_new_and_known_persons_take_three_statements_together(engine: Engine, client_id: int) -> None:
    people = [(client_id, NewLead(contact_id=f"contact{n:015}", email=f"P{n}@example.com")) for n in range(50)]
    store_all(engine, *people[:25])
    sent: list[str] = []
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *call: sent.append(call[2]))
        stored = upsert_leads(connection, people)
    assert [each.created for each in stored if isinstance(each, LeadUpsert)] == [False] * 25 + [True] * 25
    assert [words.split()[0] for words in sent] == ["SELECT", "WITH", "SAVEPOINT", "INSERT", "RELEASE"]


def test_entries_of_one_person_that_only_others_connect_end_in_one_row(engine: Engine, client_id: int) -> None:
    stored = store_all(
        engine,
        (client_id, NewLead(contact_id=CONTACT, email="Ann@example.com", status="interested")),
        (client_id, NewLead(email="bob@example.com")),
        (client_id, NewLead(emailbison_lead_id=7, email="ANN@EXAMPLE.com", first_name="Ann", status="late")),
        (client_id, NewLead(emailbison_lead_id=7, last_name="Lee")),
    )
    ann, bob, *more = stored
    assert [ann, bob, *more] == [
        LeadUpsert(ann.lead_id, created=True),  # type: ignore[union-attr]
        LeadUpsert(bob.lead_id, created=True),  # type: ignore[union-attr]
        LeadUpsert(ann.lead_id, created=False),  # type: ignore[union-attr]
        LeadUpsert(ann.lead_id, created=False),  # type: ignore[union-attr]
    ]
    row = rows(engine)[0]
    assert (row["ghl_contact_id"], row["emailbison_lead_id"], row["email"]) == (CONTACT, 7, "Ann@example.com")
    assert (row["first_name"], row["last_name"], row["status"]) == ("Ann", "Lee", "interested")


def test_a_lead_of_a_batch_that_cannot_be_stored_costs_the_others_nothing(engine: Engine, client_id: int) -> None:
    good, refused = store_all(
        engine, (client_id, NewLead(email="ann@example.com")), (client_id, NewLead(first_name="Nobody"))
    )
    assert isinstance(good, LeadUpsert)
    assert isinstance(refused, InvalidInput)
    assert len(rows(engine)) == 1


def test_an_unknown_client_in_a_batch_is_named(engine: Engine, client_id: int) -> None:
    with pytest.raises(UnknownClient, match="no client with id 4711"):
        store_all(engine, (client_id, NewLead(email="ann@example.com")), (4711, NewLead(email="ann@example.com")))
    assert rows(engine) == []


def test_a_batch_meets_a_dashboard_row_in_flight(engine: Engine, client_id: int) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        dashboard.execute(insert(leads).values(client_id=client_id, email="ann@EXAMPLE.com"))
        batch = [
            (client_id, NewLead(contact_id=CONTACT, email="Ann@example.com")),
            (client_id, NewLead(email="b@example.com")),
        ]
        coming = pool.submit(store_all, engine, *batch)
        wait_until_somebody_waits(engine)
        dashboard.commit()
        ann, other = coming.result(10)
    assert isinstance(ann, LeadUpsert)
    assert isinstance(other, LeadUpsert)
    assert (ann.created, other.created) == (False, True)
    found = {row["id"]: row for row in rows(engine)}
    assert (found[ann.lead_id]["email"], found[ann.lead_id]["ghl_contact_id"]) == ("ann@EXAMPLE.com", CONTACT)


def test_a_batch_heeds_what_a_person_wrote_meanwhile(engine: Engine, client_id: int) -> None:
    emails = ("ann@example.com", "bob@example.com")
    ann, bob = (store(engine, client_id, NewLead(email=email)).lead_id for email in emails)
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        dashboard.execute(update(leads).where(leads.c.id == ann).values(email="new@example.com"))
        dashboard.execute(update(leads).where(leads.c.id == bob).values(first_name="Typed"))
        batch = [(client_id, NewLead(email=email, first_name="Late", last_name="Lee")) for email in emails]
        coming = pool.submit(store_all, engine, *batch)
        wait_until_somebody_waits(engine)
        dashboard.commit()
        new_ann, same_bob = coming.result(10)
    found = {row["id"]: row for row in rows(engine)}
    assert isinstance(new_ann, LeadUpsert)
    assert new_ann.created
    assert (found[ann]["email"], found[ann]["first_name"]) == ("new@example.com", None)
    assert same_bob == LeadUpsert(bob, created=False)
    assert (found[bob]["first_name"], found[bob]["last_name"]) == ("Typed", "Lee")


def test_a_key_that_another_row_gets_amid_a_batch_stays_with_that_row(engine: Engine, client_id: int) -> None:
    ann = store(engine, client_id, NewLead(email="ann@example.com")).lead_id
    bob = store(engine, client_id, NewLead(email="bob@example.com")).lead_id
    with ThreadPoolExecutor(1) as pool, engine.connect() as dashboard:
        other = dashboard.execute(insert(leads).values(client_id=client_id, emailbison_lead_id=7).returning(leads.c.id))
        other_id = other.scalar_one()
        batch = [
            (client_id, NewLead(email="bob@example.com", first_name="Bob")),
            (client_id, NewLead(email="ann@example.com", emailbison_lead_id=7, first_name="Ann")),
        ]
        coming = pool.submit(store_all, engine, *batch)
        wait_until_somebody_waits(engine)
        dashboard.commit()
        assert coming.result(10) == [LeadUpsert(bob, created=False), LeadUpsert(other_id, created=False)]
    assert {row["id"]: row["first_name"] for row in rows(engine)} == {ann: None, bob: "Bob", other_id: "Ann"}


def test_batches_that_fill_in_any_order_do_not_deadlock_with_a_writer_in_id_order(
    engine: Engine, client_id: int
) -> None:
    """The write-back locks its page in the order of ids and takes no lock of ours."""
    people = [NewLead(email=f"p{n}@example.com") for n in range(6)]
    ids = sorted(
        each.lead_id
        for each in store_all(engine, *((client_id, person) for person in people))
        if isinstance(each, LeadUpsert)
    )
    both_wait = threading.Barrier(2)

    def write_back() -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT FROM leads WHERE id = :id FOR NO KEY UPDATE"), {"id": ids[0]})
            both_wait.wait(10)
            threading.Event().wait(0.2)  # the batch has locked what it locks first
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            connection.execute(text("SELECT FROM leads WHERE id = :id FOR NO KEY UPDATE"), {"id": ids[-1]})

    def fill() -> None:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
            both_wait.wait(10)
            late = [(client_id, NewLead(email=f"p{n}@example.com", first_name="Ann")) for n in reversed(range(6))]
            upsert_leads(connection, late)

    in_parallel(write_back, fill)
    assert {row["first_name"] for row in rows(engine)} == {"Ann"}


def test_the_look_up_of_a_batch_uses_the_three_unique_indexes(engine: Engine, client_id: int) -> None:
    sent: list[tuple[str, Any]] = []
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO leads (client_id, email) SELECT :client, n || '@x.example' FROM generate_series(1, 5000) n"
            ),
            {"client": client_id},
        )
        connection.execute(text("ANALYZE leads"))
        event.listen(connection, "before_cursor_execute", lambda *call: sent.append((call[2], call[3])))
        upsert_leads(connection, [(client_id, NewLead(contact_id=CONTACT, emailbison_lead_id=7, email="3@x.example"))])
        statement, parameters = next(each for each in sent if "LATERAL" in each[0])
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
    for index in ("uq_leads_client_contact", "uq_leads_client_emailbison_lead", "uq_leads_client_email"):
        assert index in plan
    assert "Seq Scan" not in plan
