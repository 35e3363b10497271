"""Which leads are worked on, in what order, and what an interrupted list is worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, text

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.hydration import write_back as writing
from ghl_pipeline.hydration.list_counts import reason_counts
from ghl_pipeline.hydration.list_pages import eligible_page, failed_page, next_page, store_resolutions
from ghl_pipeline.hydration.merge import ContactFields
from ghl_pipeline.hydration.outcomes import Outcome, Reason
from ghl_pipeline.hydration.plan import Plan, Way
from ghl_pipeline.hydration.resolve import LeadKey, Resolution
from ghl_pipeline.hydration.work_list import (
    ELIGIBLE_REASONS,
    RESUME_WITHIN,
    RETRY_FAILURES_WITHIN,
    Scope,
    WorkList,
    current_list,
    finish,
    open_list,
)
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place

COLUMNS = ("ghl_contact_id", "email", "phone", "first_name", "last_name", "company_name")
REASONS = text(f"""
    SELECT {ELIGIBLE_REASONS} FROM unnest(
        CAST(:ghl_contact_id AS text[]), CAST(:email AS text[]), CAST(:phone AS text[]), CAST(:first_name AS text[]),
        CAST(:last_name AS text[]), CAST(:company_name AS text[])
    ) WITH ORDINALITY AS lead (ghl_contact_id, email, phone, first_name, last_name, company_name, n) ORDER BY n
""")

storable = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=4)
BY_LOOKUP = Plan(way=Way.LOOKUP, upto=0, began_at=datetime(2026, 5, 4, tzinfo=UTC))

values = st.none() | st.sampled_from(["", " ", "\t\n", "v", "\xa0", "\u2003", "\x1f", "\x0b", "\u200b"]) | storable


def expected_reasons(row: tuple[str | None, ...]) -> Reason:
    """The rule as a person would say it."""
    link, email, phone, first_name, last_name, company_name = map(is_blank, row)
    flags = {
        Reason.NO_CONTACT_LINK: link and not email,
        Reason.NO_EMAIL: email,
        Reason.NO_PHONE: phone,
        Reason.NO_FIRST_NAME: first_name,
        Reason.NO_LAST_NAME: last_name,
        Reason.NO_COMPANY_NAME: company_name,
    }
    return Reason(sum(reason for reason, holds in flags.items() if holds))


@given(st.lists(st.tuples(*[values] * len(COLUMNS)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_and_python_agree_on_who_is_eligible(engine: Engine, rows: list[tuple[str | None, ...]]) -> None:
    with engine.connect() as connection:
        found = connection.execute(REASONS, dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
        assert [Reason(value) for value in found.scalars()] == [expected_reasons(row) for row in rows]


def test_every_white_space_that_python_knows_is_blank_to_the_database(engine: Engine) -> None:
    spaces = [character for code in range(1, 0xD800) if (character := chr(code)).isspace()]
    rows = [("link", "e-mail", space, "x", "x", "x") for space in spaces]
    with engine.connect() as connection:
        found = connection.execute(REASONS, dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
        assert set(found.scalars()) == {Reason.NO_PHONE}


def opened(agency: Agency, place: Place, scope: Scope = Scope.ALL, **options: Any) -> WorkList:
    with agency.engine.begin() as connection:
        return open_list(connection, place.client_id, scope, **options)


def lead_ids(agency: Agency, work_list: WorkList, after: int = 0) -> list[int]:
    with agency.engine.connect() as connection:
        return [key.lead_id for key in next_page(connection, work_list, BY_LOOKUP, after, 1000)]


def looked_up(agency: Agency, place: Place, lead_id: int, days_ago: int) -> None:
    with agency.engine.begin() as connection:
        connection.execute(
            text("""INSERT INTO lead_lookups (lead_id, client_id, outcome, looked_up_at)
                    VALUES (:lead_id, :client_id, 'not_found', now() - make_interval(days => :days))"""),
            {"lead_id": lead_id, "client_id": place.client_id, "days": days_ago},
        )


def store(agency: Agency, work_list: WorkList, outcomes: list[Outcome]) -> None:
    """Resolutions for the first leads of the list, as a page's lookups leave them."""
    with agency.engine.connect() as connection:
        keys = next_page(connection, work_list, BY_LOOKUP, 0, len(outcomes))
    store_page(agency, work_list, keys, outcomes)


def store_page(agency: Agency, work_list: WorkList, keys: list[LeadKey], outcomes: list[Outcome]) -> None:
    page = [Resolution(key, outcome) for key, outcome in zip(keys, outcomes, strict=True)]
    with agency.engine.begin() as connection:
        store_resolutions(connection, work_list, page, keys[-1].position)


def age(agency: Agency, work_list: WorkList, by: timedelta) -> None:
    with agency.engine.begin() as connection:
        statement = text("UPDATE work_lists SET built_at = built_at - CAST(:by AS interval) WHERE id = :id")
        connection.execute(statement, {"by": by, "id": work_list.id})


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


def test_a_list_holds_the_leads_that_miss_something_and_why(agency: Agency, place: Place) -> None:
    link = "contact0000000000001"
    agency.lead(place, **COMPLETE, ghl_contact_id=link)
    complete_but_unlinked = agency.lead(place, **{**COMPLETE, "email": "b@example.com"})
    no_phone = agency.lead(place, **{**COMPLETE, "email": "c@example.com", "phone": " "}, ghl_contact_id=f"{link}c")
    agency.lead(place, **{**COMPLETE, "email": "Å", "phone": "v"}, ghl_contact_id=f"{link}d")
    nothing = agency.lead(place)
    work_list = opened(agency, place)
    assert (work_list.listed, work_list.looked_up, work_list.was_resumed) == (3, 0, False)
    assert lead_ids(agency, work_list) == [complete_but_unlinked, no_phone, nothing]
    with agency.engine.connect() as connection:
        assert reason_counts(connection, work_list) == {
            Reason.NO_CONTACT_LINK: 1, Reason.NO_EMAIL: 1, Reason.NO_PHONE: 2, Reason.NO_FIRST_NAME: 1,
            Reason.NO_LAST_NAME: 1, Reason.NO_COMPANY_NAME: 1,
        }  # fmt: skip
        # Sync All goes by id and must see the same leads.
        assert [key.lead_id for key in eligible_page(connection, place.client_id, 0, 10)] == lead_ids(agency, work_list)


def test_who_was_never_looked_up_comes_first_then_who_waits_longest(agency: Agency, place: Place) -> None:
    recent, old, new, newest = (agency.lead(place, email=f"{n}@example.com") for n in range(4))
    looked_up(agency, place, recent, 1)
    looked_up(agency, place, old, 9)
    assert lead_ids(agency, opened(agency, place)) == [new, newest, old, recent]


def test_only_so_many_leads_are_listed_the_new_ones_first(agency: Agency, place: Place) -> None:
    old, new, _ = (agency.lead(place, email=f"{n}@example.com") for n in range(3))
    looked_up(agency, place, old, 9)
    work_list = opened(agency, place, max_leads=1)
    assert lead_ids(agency, work_list) == [new]
    assert opened(agency, place, max_leads=1).listed == 1
    assert opened(agency, place, max_leads=2).listed == 2


def test_a_run_for_new_leads_lists_only_those(agency: Agency, place: Place) -> None:
    old, new = (agency.lead(place, email=f"{n}@example.com") for n in range(2))
    looked_up(agency, place, old, 9)
    assert lead_ids(agency, opened(agency, place, Scope.NEVER_LOOKED_UP)) == [new]


def test_a_list_taken_up_again_keeps_its_order_and_appends_who_is_new(agency: Agency, place: Place) -> None:
    first, second = (agency.lead(place, email=f"{n}@example.com") for n in range(2))
    work_list = opened(agency, place)
    store(agency, work_list, [Outcome.NOT_FOUND])
    third = agency.lead(place, email="third@example.com")
    again = opened(agency, place)
    assert (again.id, again.was_resumed, again.looked_up, again.listed) == (work_list.id, True, 1, 3)
    positions = {row["lead_id"]: row["position"] for row in agency.table("work_items")}
    assert positions == {first: 1, second: 2, third: 3}
    # The first has its answer stored.
    assert lead_ids(agency, again) == [second, third]
    assert opened(agency, place).listed == 3


def test_a_fresh_start_drops_the_interrupted_list(agency: Agency, place: Place) -> None:
    agency.lead(place, email="ada@example.com")
    work_list = opened(agency, place)
    store(agency, work_list, [Outcome.NOT_FOUND])
    fresh = opened(agency, place, fresh=True)
    assert fresh.id != work_list.id
    assert (fresh.was_resumed, fresh.looked_up) == (False, 0)
    assert agency.count("work_lists") == 1
    assert agency.count("resolved_contacts") == 0


def test_a_finished_list_is_not_taken_up(agency: Agency, place: Place) -> None:
    agency.lead(place, email="ada@example.com")
    work_list = opened(agency, place)
    with agency.engine.begin() as connection:
        finish(connection, work_list)
        assert current_list(connection, place.client_id) is None
    assert opened(agency, place).id != work_list.id


def test_an_interrupted_list_of_new_leads_is_widened_when_all_are_asked_for(agency: Agency, place: Place) -> None:
    old, new = (agency.lead(place, email=f"{n}@example.com") for n in range(2))
    looked_up(agency, place, old, 9)
    narrow = opened(agency, place, Scope.NEVER_LOOKED_UP)
    wide = opened(agency, place, Scope.ALL)
    assert (wide.id, wide.scope) == (narrow.id, Scope.ALL)
    assert lead_ids(agency, wide) == [new, old]
    still_wide = opened(agency, place, Scope.NEVER_LOOKED_UP)
    assert (still_wide.scope, still_wide.listed) == (Scope.ALL, 2)


@pytest.mark.parametrize(
    ("outcomes", "within"),
    [
        pytest.param([Outcome.NOT_FOUND], RESUME_WITHIN, id="not looked up to the end"),
        pytest.param([Outcome.FAILED, Outcome.NOT_FOUND], RESUME_WITHIN, id="not written to the end"),
        pytest.param([Outcome.FAILED, Outcome.FAILED], RETRY_FAILURES_WITHIN, id="only failures are left"),
    ],
)
def test_an_old_list_is_done_anew(agency: Agency, place: Place, outcomes: list[Outcome], within: timedelta) -> None:
    agency.leads(place, [{"email": f"{n}@example.com"} for n in range(2)])
    work_list = opened(agency, place)
    store(agency, work_list, outcomes)
    age(agency, work_list, within - timedelta(minutes=1))
    assert opened(agency, place).id == work_list.id
    age(agency, work_list, timedelta(minutes=2))
    assert opened(agency, place).id != work_list.id


def test_only_failed_lookups_are_asked_again(agency: Agency, place: Place) -> None:
    first, _, third = (agency.lead(place, email=f"{n}@example.com") for n in range(3))
    work_list = opened(agency, place)
    store(agency, work_list, [Outcome.FAILED, Outcome.NOT_FOUND, Outcome.FAILED])
    with agency.engine.connect() as connection:
        assert [key.lead_id for key in failed_page(connection, work_list, 0, 10)] == [first, third]
        assert [key.lead_id for key in failed_page(connection, work_list, 1, 10)] == [third]
        assert [key.lead_id for key in failed_page(connection, work_list, 0, 1)] == [first]


def test_a_lead_deleted_while_it_waits_has_nothing_to_be_asked_by(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    work_list = opened(agency, place)
    with agency.engine.begin() as connection:
        connection.execute(text("DELETE FROM leads"))
        assert next_page(connection, work_list, BY_LOOKUP, 0, 10) == [LeadKey(1, lead_id, None, None, needs_names=True)]


def test_a_page_stored_twice_is_stored_once(agency: Agency, place: Place) -> None:
    agency.leads(place, [{"email": f"{n}@example.com"} for n in range(3)])
    work_list = opened(agency, place)
    with agency.engine.connect() as connection:
        keys = next_page(connection, work_list, BY_LOOKUP, 0, 2)
    store_page(agency, work_list, keys, [Outcome.FAILED, Outcome.NOT_FOUND])
    store_page(agency, work_list, keys, [Outcome.AMBIGUOUS, Outcome.NOT_FOUND])
    assert [row["outcome"] for row in agency.table("resolved_contacts")] == ["ambiguous", "not_found"]
    with agency.engine.connect() as connection:
        found = current_list(connection, place.client_id)
    assert found is not None
    assert found.looked_up == 2


def test_lists_of_two_clients_do_not_meet(agency: Agency, place: Place) -> None:
    other = agency.place("Other")
    mine, theirs = agency.lead(place, email="ada@example.com"), agency.lead(other, email="ada@example.com")
    my_list, their_list = opened(agency, place), opened(agency, other, fresh=True)
    assert lead_ids(agency, my_list) == [mine]
    assert lead_ids(agency, their_list) == [theirs]


# --- plans: every statement that runs once per page is cheap however large the tables are

PER_CLIENT, CLIENTS, PAGE = 20_000, 3, 20
BIG_TABLES = {"leads", "work_items", "resolved_contacts", "lead_lookups"}


@pytest.fixture
def big_list(agency: Agency) -> WorkList:
    """A list of 20,000 leads, half looked up, one in ten without an address, among other clients' leads and lists."""
    lists = []
    for n in range(CLIENTS):
        place = agency.place(f"Client {n}")
        fill = """
            INSERT INTO leads (client_id, email, ghl_contact_id)
            SELECT :client_id, CASE WHEN n % 10 > 0 THEN 'p' || n || '@example.com' END,
                   CASE WHEN n % 2 = 0 THEN 'contact' || n + 1000000000 END
            FROM generate_series(1, :n) AS n
        """
        resolve = """
            INSERT INTO resolved_contacts (work_list_id, position, lead_id, outcome, asked_contact_id, asked_email,
                                           contact_id, email)
            SELECT :id, item.position, item.lead_id,
                   CASE WHEN item.position % 50 = 0 THEN 'failed' ELSE 'unchanged' END,
                   lead.ghl_contact_id, lead.email, 'contact' || item.position + 2000000000,
                   coalesce(lead.email, 'new' || item.position || '@example.com')
            FROM work_items AS item JOIN leads AS lead ON lead.id = item.lead_id
            WHERE item.work_list_id = :id AND item.position <= :n / 2
        """
        with agency.engine.begin() as connection:
            connection.execute(text(fill), {"client_id": place.client_id, "n": PER_CLIENT})
        lists.append(opened(agency, place))
        with agency.engine.begin() as connection:
            connection.execute(text(resolve), {"id": lists[-1].id, "n": PER_CLIENT})
    with agency.engine.begin() as connection:
        connection.execute(text("ANALYZE"))
    return lists[1]


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that runs meanwhile, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def scans(engine: Engine, statement: str, parameters: Any) -> set[tuple[str, str]]:
    """(relation, index or the kind of scan) of each table access in the statement's plan."""
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
    nodes, found = [plan[0]["Plan"]], set()
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Scan" in node["Node Type"] and ("Relation Name" in node or "Index Name" in node):
            found.add((node.get("Relation Name", ""), node.get("Index Name", node["Node Type"])))
    return found


def test_pages_are_read_by_index(agency: Agency, big_list: WorkList) -> None:
    with statements_of(agency.engine) as seen, agency.engine.connect() as connection:
        assert len(next_page(connection, big_list, BY_LOOKUP, 2000, PAGE)) == PAGE
        assert len(failed_page(connection, big_list, 1000, PAGE)) == PAGE
        assert len(eligible_page(connection, big_list.client_id, 0, PAGE)) == PAGE
    next_scans, failed_scans, eligible_scans = (scans(agency.engine, *statement) for statement in seen)
    assert next_scans == {
        ("work_items", "pk_work_items"), ("leads", "pk_leads"), ("resolved_contacts", "pk_resolved_contacts"),
    }  # fmt: skip
    assert not {scan for scan in failed_scans | eligible_scans if scan[1] == "Seq Scan"}
    assert ("resolved_contacts", "pk_resolved_contacts") in failed_scans
    assert {index for relation, index in eligible_scans if relation == "leads"} <= {"ix_leads_client_id_id", "pk_leads"}


def test_pages_are_written_by_index(agency: Agency, big_list: WorkList) -> None:
    with statements_of(agency.engine) as seen:
        assert writing.write_back_page(agency.engine, big_list, "US", PAGE) == PAGE
    accesses = {scan for statement in seen for scan in scans(agency.engine, *statement)}
    assert {relation for relation, index in accesses if index == "Seq Scan"} & BIG_TABLES == set()
    used = {index for _, index in accesses}
    assert {"pk_leads", "uq_leads_client_contact", "uq_leads_client_email", "pk_resolved_contacts"} <= used
    assert "pk_work_items" in used


def test_a_contacts_fields_survive_the_way_through_the_table(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    work_list = opened(agency, place)
    fields = ContactFields("c" * 20, "Ada@example.com", "305 555 0123", 'Ada "A"', "O'Byron", "{a,b}\\NULL")
    key = LeadKey(1, lead_id, None, "ada@example.com")
    with agency.engine.begin() as connection:
        store_resolutions(connection, work_list, [Resolution(key, Outcome.UNCHANGED, fields, "ada@example.com")], 1)
    assert writing.write_back_page(agency.engine, work_list, "US", 10) == 1
    row = agency.row(lead_id)
    assert [row[name] for name in COLUMNS] == [
        "c" * 20, "ada@example.com", "+13055550123", 'Ada "A"', "O'Byron", "{a,b}\\NULL",
    ]  # fmt: skip
