"""Counts of leads: what is due is counted, the most urgent first, as long as the time lasts."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.operations import lead_counts
from ghl_pipeline.operations.lead_counts import refresh_counts
from ghl_pipeline_tests.operations.agency import Agency

PLENTY = 60.0
LONG = timedelta(hours=6)


def counts(engine: Engine) -> dict[str, tuple[int, ...]]:
    query = text("""
        SELECT location_id, leads, linked, without_phone, without_name, looked_up, not_found FROM location_figures
    """)
    with engine.connect() as connection:
        return {row[0]: tuple(row[1:]) for row in connection.execute(query)}


def test_leads_are_counted_by_what_they_lack_and_lookups_by_what_they_found(agency: Agency) -> None:
    first, second = agency.client("First"), agency.client("Second")
    agency.leads(first, 3, phone=True, outcome="hydrated")
    agency.leads(first, 2, outcome="not_found")
    agency.sql("INSERT INTO leads (client_id, ghl_contact_id, phone) VALUES (:id, 'c1', E'\t')", id=second)
    agency.client("Third")
    assert refresh_counts(agency.engine, seconds=PLENTY) == 3
    assert counts(agency.engine) == {
        "First": (5, 0, 2, 0, 5, 2),
        "Second": (1, 1, 1, 1, 0, 0),
        "Third": (0, 0, 0, 0, 0, 0),
    }


def test_what_was_counted_lately_is_counted_again_only_where_leads_were_worked_on_since(agency: Agency) -> None:
    first, second = agency.client("First"), agency.client("Second")
    refresh_counts(agency.engine, seconds=PLENTY, older_than=LONG)
    agency.leads(first, 1)
    agency.leads(second, 1)
    assert refresh_counts(agency.engine, seconds=PLENTY, older_than=LONG) == 0
    agency.standing("First", "hydration", "succeeded")
    agency.standing("Second", "availability", "succeeded")
    assert refresh_counts(agency.engine, seconds=PLENTY, older_than=LONG) == 1
    assert {location: figures[0] for location, figures in counts(agency.engine).items()} == {"First": 1, "Second": 0}
    assert refresh_counts(agency.engine, seconds=PLENTY) == 2


def test_without_time_the_most_urgent_is_counted_and_the_others_wait(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_counts, "LEADS_AT_ONCE", 1)
    for name, counted in (("Old", "2 hours"), ("Older", "3 hours"), ("Worked", "1 hour")):
        agency.client(name)
        refresh_counts(agency.engine, seconds=PLENTY, older_than=LONG)
        agency.sql(
            "UPDATE location_figures SET counted_at = now() - CAST(:age AS interval) WHERE location_id = :name",
            name=name, age=counted,
        )  # fmt: skip
    agency.standing("Worked", "crm", "failed", ended="10 minutes")
    agency.client("New")
    order = []
    for _ in range(4):
        before = _times(agency)
        assert refresh_counts(agency.engine, seconds=0) == 1
        after = _times(agency)
        order += [name for name in after if after[name] != before.get(name)]
    assert order == ["Worked", "New", "Older", "Old"]


def _times(agency: Agency) -> dict[str, str]:
    with agency.engine.connect() as connection:
        rows = connection.execute(text("SELECT location_id, counted_at::text FROM location_figures"))
        return {row[0]: row[1] for row in rows}


def test_only_one_location_is_counted_when_only_it_is_looked_at(agency: Agency) -> None:
    agency.client("First")
    agency.client("Second")
    assert refresh_counts(agency.engine, seconds=PLENTY, location_id="Second") == 1
    assert list(counts(agency.engine)) == ["Second"]


def test_small_locations_share_a_statement_and_a_large_one_has_its_own(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        agency.client(f"Location{number}")
    refresh_counts(agency.engine, seconds=PLENTY)
    agency.sql("UPDATE location_figures SET leads = 5000 WHERE location_id = 'Location7'")
    monkeypatch.setattr(lead_counts, "LEADS_AT_ONCE", 5000)
    sent = agency.statements(lambda: refresh_counts(agency.engine, seconds=PLENTY))
    assert sum("INSERT INTO location_figures" in statement for statement in sent) == 3
