"""The statements of an import stay cheap in a table of many leads, planned for their values and for any values."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from ghl_pipeline.conversations import message_store
from ghl_pipeline.conversations.catching_up import MOST_LEADS_ONE_BY_ONE, leads_behind
from ghl_pipeline_tests.conversations.conftest import Place

LEADS = 40_000


@pytest.fixture
def crowded(place: Place) -> Place:
    """A client with many linked leads."""
    with place.engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO leads (client_id, ghl_contact_id)
                SELECT :client_id, 'Contact' || lpad(n::text, 13, '0') FROM generate_series(1, :leads) AS n
            """),
            {"client_id": place.client_id, "leads": LEADS},
        )
    with place.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE leads"))
    return place


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(found for child in plan.get("Plans", []) for found in nodes(child))]


def plans(connection: Connection, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The statement's plan for its values, and the one for any values."""
    own = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
    numbered = statement
    for number, name in enumerate(values, 1):
        numbered = numbered.replace(f"%({name})s", f"${number}")
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE probe AS {numbered}")
    nothing = ", ".join(["NULL"] * len(values))
    generic = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE probe ({nothing})").scalar_one()
    connection.exec_driver_sql("DEALLOCATE probe")
    return [own[0]["Plan"], generic[0]["Plan"]]


def test_a_pages_leads_are_found_by_their_contacts_through_the_index(crowded: Place) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def note(_connection: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        seen.append((statement, values))

    event.listen(crowded.engine, "before_cursor_execute", note)
    wanted = {f"Contact{number:013d}" for number in range(1, 501)}
    try:
        with crowded.engine.connect() as connection:
            found = message_store._leads_of_contacts(connection, crowded.client_id, wanted)
    finally:
        event.remove(crowded.engine, "before_cursor_execute", note)
    assert found.keys() == wanted
    ((statement, values),) = seen
    with crowded.engine.connect() as connection:
        for plan in plans(connection, statement, values):
            of_leads = [node for node in nodes(plan) if node["Node Type"].endswith("Scan") and "Index Name" in node]
            assert {node["Index Name"] for node in of_leads} == {"uq_leads_client_contact"}
            assert all("ghl_contact_id = ANY" in node["Index Cond"] for node in of_leads)


def test_of_many_leads_that_are_behind_only_as_many_are_read_as_are_needed(crowded: Place) -> None:
    behind = leads_behind(crowded.engine, crowded.client_id, datetime.now(UTC) - timedelta(hours=1))
    assert len(behind) == MOST_LEADS_ONE_BY_ONE + 1
