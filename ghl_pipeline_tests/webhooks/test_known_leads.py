"""Finding the leads that events are about: by any of three keys, within one client, and through the indexes."""

from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.webhooks.handling.known_leads import find_leads
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture

LEADS = 50_000


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


def test_each_key_finds_its_own_lead_and_the_strongest_names_the_person(agency: Agency, place: Place) -> None:
    by_contact = agency.lead(place, ghl_contact_id="A" * 20)
    by_number = agency.lead(place, emailbison_lead_id=70, email="other@example.com", status="do_not_contact")
    by_email = agency.lead(place, email=" Ada@Example.com", opted_out_at="2026-05-04T12:00:00Z")
    agency.lead(agency.place("Other"), ghl_contact_id="A" * 20, email="ada@example.com", emailbison_lead_id=70)
    persons = [
        NewLead(contact_id="A" * 20, emailbison_lead_id=70, email="ada@example.com"),
        NewLead(emailbison_lead_id=70, email="ADA@example.com"),
        NewLead(email="ada@example.com "),
        NewLead(email="nobody@example.com"),
        NewLead(),
    ]
    with agency.engine.connect() as connection:
        found = find_leads(connection, place.client_id, persons)
    assert [matches.lead.id if matches.lead else None for matches in found] == [
        by_contact, by_number, by_email, None, None,
    ]  # fmt: skip
    assert [matches.ids for matches in found] == [
        {by_contact, by_number, by_email}, {by_number, by_email}, {by_email}, set(), set(),
    ]  # fmt: skip
    first = found[0]
    three = (first.by_contact, first.by_emailbison, first.by_email)
    assert [lead is not None and lead.opted_out for lead in three] == [False, True, True]
    assert "example.com" not in repr(found)


@pytest.mark.parametrize("plan_for", ["force_custom_plan", "force_generic_plan"])
def test_leads_are_found_through_the_indexes_of_their_keys(agency: Agency, place: Place, plan_for: str) -> None:
    agency.sql(
        """
        INSERT INTO leads (client_id, ghl_contact_id, email, emailbison_lead_id)
        SELECT :client_id, CASE WHEN n % 2 = 0 THEN 'Contact' || lpad(n::text, 13, '0') END, 'p' || n || '@example.com',
            CASE WHEN n % 3 = 0 THEN n END
        FROM generate_series(1, :leads) AS n
        """,
        client_id=place.client_id, leads=LEADS,
    )  # fmt: skip
    with agency.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE leads"))
    seen: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        seen.append((statement, values))

    event.listen(agency.engine, "before_cursor_execute", note)
    persons = [
        NewLead(contact_id=f"Contact{n:013}", email=f"P{n}@example.com", emailbison_lead_id=n)
        for n in range(6, 1206, 6)
    ]
    with agency.engine.connect() as connection:
        assert all(matches.lead for matches in find_leads(connection, place.client_id, persons))
    event.remove(agency.engine, "before_cursor_execute", note)
    ((statement, values),) = seen
    for number, name in enumerate(values, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    with agency.engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL plan_cache_mode = {plan_for}")
        connection.exec_driver_sql(f"PREPARE probe AS {statement}")
        literals = ", ".join("'" + str(value).replace("'", "''") + "'" for value in values.values())
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN EXECUTE probe ({literals})").scalars())
    assert "Seq Scan on leads" not in plan, plan
    assert "Hash Join" not in plan, plan
    for index in ("uq_leads_client_contact", "uq_leads_client_email", "emailbison"):
        assert index in plan, plan
