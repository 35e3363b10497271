"""Every statement of a list's work is cheap however large the tables are: what PostgreSQL plans, looked at.

Two things make plans bad that are good in a small test. psycopg prepares a statement after five executions, and the
server may then plan it once for all values; and a list is filled in the minute in which it is worked on, before any
statistics of it are made. So each statement is planned for its values and for any values, with statistics and without.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, event, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration import list_counts, list_pages, pulled, work_list, write_back
from ghl_pipeline.hydration.merge import ContactFields
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.plan import Plan, Way
from ghl_pipeline.hydration.resolve import LeadKey, Resolution
from ghl_pipeline.hydration.work_list import ASKED, ELIGIBLE_REASONS, Scope, WorkList
from ghl_pipeline_tests.fixtures.names import own_name

CLIENTS, LEADS, PAGE = 5, 20_000, 500
HALF = LEADS // 2
BIG = {"leads", "work_items", "lead_lookups", "resolved_contacts", "pulled_contacts"}
Statement = tuple[str, dict[str, Any]]
Node = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """100,000 leads of five clients, each on a list of which half is resolved and half has its pulled contact."""

    engine: Engine
    mine: WorkList
    client_without_list: int

    def statements(self, act: Callable[[Connection], object]) -> list[Statement]:
        """The statements that `act` executes; it is undone."""
        seen: list[Statement] = []

        def note(_connection: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
            seen.append((statement, values))

        event.listen(self.engine, "before_cursor_execute", note)
        try:
            with self.engine.connect() as connection:
                act(connection)
                connection.rollback()
        finally:
            event.remove(self.engine, "before_cursor_execute", note)
        return seen

    def plans(self, statement: Statement) -> list[Node]:
        """The statement's plan for its values, and the one for any values."""
        sql, values = statement
        with self.engine.connect() as connection:
            own = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}", values).scalar_one()
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
            numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", sql)
            types = ", ".join(sent_type(values[name]) for name in names)
            connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            connection.exec_driver_sql(f"PREPARE probe ({types}) AS {numbered}")
            nothing = ", ".join(["NULL"] * len(names))
            generic = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE probe ({nothing})").scalar_one()
            connection.exec_driver_sql("DEALLOCATE probe")
        return [own[0]["Plan"], generic[0]["Plan"]]


def sent_type(value: object) -> str:
    """The type as which psycopg sends a value; texts and lists are left to the server to decide."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "smallint" if abs(value) < 2**15 else "integer" if abs(value) < 2**31 else "bigint"
        case datetime():
            return "timestamptz"
        case timedelta():
            return "interval"
        case _:
            return "unknown"


def nodes(plan: Node) -> Iterator[Node]:
    """The plan's nodes, top down."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def whole_tables(plan: Node) -> set[str]:
    """Big tables that are read from one end to the other."""
    return {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"} & BIG


def whole_clients(plan: Node) -> set[str]:
    """Indexes of leads and list items that are read for all leads of a client, or all items of a list."""
    return {
        node["Index Name"]
        for node in nodes(plan)
        if re.search("leads_client|work_items", node.get("Index Name", ""))
        and re.fullmatch(r"\((client_id|work_list_id) = [^)]*\)", node.get("Index Cond", ""))
    }


def repeated_reads(plan: Node) -> set[str]:
    """Big tables that are read whole for each row of something that has many."""
    found: set[str] = set()
    for node in nodes(plan):
        children = node.get("Plans", [])
        outer = [child["Plan Rows"] for child in children if child.get("Parent Relationship") == "Outer"]
        if node["Node Type"] != "Nested Loop" or max(outer, default=0) < PAGE:
            continue
        for child in children:
            found |= whole_tables(child) if child.get("Parent Relationship") != "Outer" else set()
    for node in nodes(plan):
        if node["Plan Rows"] >= PAGE:
            for child in node.get("Plans", []):
                found |= whole_tables(child) if child.get("Parent Relationship") == "SubPlan" else set()
    return found


@contextmanager
def _database(administration: Connection, server: URL, template: str) -> Iterator[Engine]:
    name = f"{template.removesuffix('template')}{own_name()}"
    administration.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
    engine = create_engine(server.set(database=name))
    yield engine
    engine.dispose()
    administration.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def _fill(connection: Connection) -> None:
    numbers = {"clients": CLIENTS + 1, "leads": LEADS}
    for table in sorted(BIG - {"leads"}):  # autovacuum's statistics would come at any moment
        connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
    connection.execute(
        text("""
            INSERT INTO clients (name, location_id)
            SELECT 'Client ' || n, 'location' || lpad(n::text, 12, '0') FROM generate_series(1, :clients) AS n
        """),
        numbers,
    )
    connection.execute(
        text("""
            INSERT INTO leads (client_id, email, ghl_contact_id)
            SELECT client.id, 'p' || n || '@example.com',
                   CASE WHEN n % 2 = 0 THEN 'contact' || lpad(n::text, 13, '0') END
            FROM clients AS client, generate_series(1, :leads) AS n WHERE client.id <= :clients - 1
        """),
        numbers,
    )
    connection.execute(
        text(f"""
            INSERT INTO lead_lookups (lead_id, client_id, outcome, asked, missing)
            SELECT lead.id, lead.client_id,
                   CASE WHEN lead.ghl_contact_id IS NULL THEN 'not_found' ELSE 'unchanged' END,
                   {ASKED}, {ELIGIBLE_REASONS}
            FROM leads AS lead
        """)
    )
    connection.execute(
        text("""
            INSERT INTO leads (client_id, email) SELECT :clients, 'new' || n || '@example.com'
            FROM generate_series(1, :leads / 4) AS n
        """),
        numbers,
    )


def _fill_list(connection: Connection, filled: WorkList) -> None:
    values = {"id": filled.id, "half": HALF}
    connection.execute(
        text("""
            INSERT INTO resolved_contacts (work_list_id, position, lead_id, outcome, asked_contact_id, asked_email,
                                           contact_id, email)
            SELECT item.work_list_id, item.position, item.lead_id,
                   CASE WHEN item.position % 50 = 0 THEN 'failed' ELSE 'unchanged' END,
                   lead.ghl_contact_id, lead.email, lead.ghl_contact_id, lead.email
            FROM work_items AS item JOIN leads AS lead ON lead.id = item.lead_id
            WHERE item.work_list_id = :id AND item.position <= :half
        """),
        values,
    )
    connection.execute(
        text("""
            INSERT INTO pulled_contacts (work_list_id, position, contact_id, email, additional_emails, names_are_whole)
            SELECT work_list_id, position, 'contact' || lead_id, 'p@example.com', '{}', true
            FROM work_items WHERE work_list_id = :id AND position > :half
        """),
        values,
    )


@pytest.fixture(scope="module", params=["with statistics", "without statistics"])
def tables(
    request: pytest.FixtureRequest, administration: Connection, database_server: URL, template_database: str
) -> Iterator[Tables]:
    """The tables as they are while five lists are in work, with what PostgreSQL knows of them then."""
    with _database(administration, database_server, template_database) as engine:
        with engine.begin() as connection:
            _fill(connection)
        with engine.begin() as connection:  # what a client's leads are like is known for long
            connection.execute(text("ANALYZE leads"))
            connection.execute(text("ANALYZE lead_lookups"))
        lists = []
        for client_id in range(1, CLIENTS + 1):
            with engine.begin() as connection:
                lists.append(work_list.open_list(connection, client_id, Scope.ALL, look_up_every=timedelta(days=30)))
                _fill_list(connection, lists[-1])
        if request.param == "with statistics":
            with engine.begin() as connection:
                connection.execute(text("ANALYZE"))
        assert {filled.listed for filled in lists} == {LEADS}
        yield Tables(engine, lists[2], CLIENTS + 1)


def plan_of(way: Way) -> Plan:
    now = datetime.now(UTC)
    return Plan(way=way, upto=LEADS, began_at=now, since=now - timedelta(days=1), current=LEADS, pulled=False)


def page_of_contacts() -> list[Contact]:
    return [
        Contact(f"contact{2 * n:013d}", f"p{2 * n}@example.com", (f"also{n}@example.com",), "+13055550123", "Ada")
        for n in range(HALF // 2, HALF // 2 + PAGE)
    ]


def page_of_resolutions() -> list[Resolution]:
    found = ContactFields("c" * 20, "ada@example.com")
    return [
        Resolution(LeadKey(position, position, None, "ada@example.com"), Outcome.UNCHANGED, found, "ada@example.com")
        for position in range(HALF + 1, HALF + PAGE + 1)
    ]


Act = Callable[[Connection, WorkList], object]


def next_page_by(way: Way) -> Act:
    return lambda connection, mine: list_pages.next_page(connection, mine, plan_of(way), HALF + 1000, PAGE)


def page_kept_of(way: Way) -> Act:
    return lambda connection, mine: pulled.keep_page(connection, mine, plan_of(way), page_of_contacts())


PER_PAGE: dict[str, Act] = {
    **{f"the next page of leads, by {way}": next_page_by(way) for way in Way},
    "the next page of failures": lambda connection, mine: list_pages.failed_page(connection, mine, 5000, 20),
    "the next page of eligible leads without a list": lambda connection, mine: list_pages.eligible_page(
        connection, mine.client_id, 0, PAGE
    ),
    **{f"a page of contacts kept, of a {way}": page_kept_of(way) for way in (Way.SCAN, Way.DELTA)},
    "the contacts of a page": lambda connection, mine: pulled.contacts_of_page(
        connection, mine, list(range(HALF + 1, HALF + PAGE))
    ),
    "a page of answers stored": lambda connection, mine: list_pages.store_resolutions(
        connection, mine, page_of_resolutions(), HALF + PAGE
    ),
}


@pytest.mark.parametrize("act", PER_PAGE.values(), ids=PER_PAGE)
def test_what_is_done_for_each_page_reads_by_index(tables: Tables, act: Act) -> None:
    statements = tables.statements(lambda connection: act(connection, tables.mine))
    assert statements
    for statement in statements:
        for plan in tables.plans(statement):
            assert (whole_tables(plan), whole_clients(plan)) == (set(), set())


def test_a_page_is_written_by_index(tables: Tables) -> None:
    statements: list[Statement] = []

    def note(_connection: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        statements.append((statement, values))

    event.listen(tables.engine, "before_cursor_execute", note)
    try:
        assert write_back.write_back_page(tables.engine, tables.mine, "US", PAGE) == PAGE
    finally:
        event.remove(tables.engine, "before_cursor_execute", note)
    assert len(statements) >= 6
    for statement in statements:
        for plan in tables.plans(statement):
            assert (whole_tables(plan), whole_clients(plan)) == (set(), set())


PER_LIST: dict[str, Callable[[Connection, Tables], object]] = {
    "a new list": lambda connection, tables: work_list.open_list(
        connection, tables.client_without_list, Scope.ALL, look_up_every=timedelta(days=30)
    ),
    "a list taken up again": lambda connection, tables: work_list.open_list(
        connection, tables.mine.client_id, Scope.ALL, look_up_every=timedelta(days=30)
    ),
    "what to plan": lambda connection, tables: list_counts.count_to_plan(connection, tables.mine, LEADS),
    "the unchanged settled": lambda connection, tables: pulled.settle_unchanged(
        connection, tables.mine, plan_of(Way.DELTA)
    ),
    "counts by reason": lambda connection, tables: list_counts.reason_counts(connection, tables.mine),
    "counts by lookup": lambda connection, tables: list_counts.lookup_counts(connection, tables.mine),
    "counts by outcome": lambda connection, tables: list_counts.final_counts(connection, tables.mine),
    "failures put on record": lambda connection, tables: write_back.record_failures(connection, tables.mine),
    "a pass completed": lambda connection, tables: work_list.complete_pass(connection, tables.mine),
}


@pytest.mark.parametrize("act", PER_LIST.values(), ids=PER_LIST)
def test_what_is_done_for_each_list_reads_no_table_again_and_again(
    tables: Tables, act: Callable[[Connection, Tables], object]
) -> None:
    statements = tables.statements(lambda connection: act(connection, tables))
    assert statements
    for statement in statements:
        for plan in tables.plans(statement):
            assert repeated_reads(plan) == set()
