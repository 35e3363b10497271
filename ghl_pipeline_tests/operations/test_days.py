"""What was done on each day: summed up once, and right however often somebody looks."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.hydration import outcomes
from ghl_pipeline.operations import days
from ghl_pipeline.operations.days import Day, read_days, update_days
from ghl_pipeline_tests.operations.agency import Agency


def report(linked: int = 0, hydrated: int = 0, not_found: int = 0, *, dry_run: bool = False) -> str:
    """As hydration leaves it on record."""
    counts = {"linked_and_hydrated": linked, "hydrated": hydrated, "unchanged": 0, "not_found": not_found}
    return json.dumps({"eligible": sum(counts.values()), "outcomes": counts, "dry_run": dry_run})


def look(engine: Engine, number: int = 30) -> list[Day]:
    with engine.begin() as connection:
        update_days(connection)
        return list(read_days(connection, number))


def test_the_outcomes_that_count_as_repaired_are_those_of_hydration() -> None:
    assert set(days.REPAIRED) == {outcome.value for outcome in outcomes.REPAIRED}


def test_attempts_are_summed_up_by_the_day_on_which_they_began(agency: Agency) -> None:
    agency.client("First")
    agency.client("Second")
    agency.attempt("First", days_ago=2, report=report(3, 2, 5))
    agency.attempt("First", days_ago=1, state="failed", error="GhlServerError", report="{}")
    agency.attempt("First", report=report(1))
    agency.attempt("Second", report=report(0, 4, 1))
    agency.attempt("Second", report=report(9, dry_run=True))
    agency.attempt("Second", state="failed", error="LocationBusy", report="{}")
    today = datetime.now(UTC).date()
    assert look(agency.engine, 4) == [
        Day(today - timedelta(days=3)),
        Day(today - timedelta(days=2), repaired=5, looked_at=10, not_found=5, attempts=1),
        Day(today - timedelta(days=1), attempts=1, attempts_failed=1),
        Day(today, repaired=5, looked_at=6, not_found=1, attempts=2),
    ]


def test_looking_again_counts_nothing_twice_and_sees_what_ended_since(agency: Agency) -> None:
    agency.client("First")
    agency.attempt("First", days_ago=1, report=report(1))
    agency.attempt("First", state="running", report="{}")
    assert [day.repaired for day in look(agency.engine, 2)] == [1, 0]
    agency.sql(
        "UPDATE location_attempts SET state = 'succeeded', report = CAST(:report AS jsonb) WHERE state = 'running'",
        report=report(7),
    )
    for _ in range(3):
        assert [(day.repaired, day.attempts) for day in look(agency.engine, 2)] == [(1, 1), (7, 1)]


def test_what_is_summed_up_outlives_the_attempts_and_their_client(agency: Agency) -> None:
    agency.client("First")
    agency.attempt("First", days_ago=1, report=report(4))
    agency.attempt("First", report=report(2))
    look(agency.engine)
    agency.sql("DELETE FROM location_attempts")
    assert [day.repaired for day in look(agency.engine, 2)] == [4, 2]
    agency.sql("DELETE FROM clients")
    assert [day.repaired for day in look(agency.engine, 2)] == [4, 2]


def test_a_look_reads_the_days_that_may_still_change_and_no_older_ones(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    agency.client("First")
    for ago in range(9, -1, -1):
        agency.attempt("First", days_ago=ago, report=report(1))
    look(agency.engine)
    agency.sql("UPDATE location_attempts SET report = CAST(:report AS jsonb)", report=report(5))
    assert [day.repaired for day in look(agency.engine, 10)] == [1] * 8 + [5, 5]


def test_requests_of_the_day_are_the_throttles_and_only_grow(agency: Agency) -> None:
    agency.requests("First", 60, 100)
    agency.requests("Second", 20, 200)
    agency.requests("Yesterday", 99, 100, days_ago=1)
    (today,) = look(agency.engine, 1)
    assert (today.requests, today.peak_share) == (80, 0.6)
    agency.sql("DELETE FROM location_throttle WHERE location_id = 'First'")
    agency.sql("UPDATE location_throttle SET used_today = 70 WHERE location_id = 'Second'")
    (today,) = look(agency.engine, 1)
    assert (today.requests, today.peak_share) == (80, 0.6)


def test_a_dry_run_that_failed_is_no_attempt_and_one_of_a_few_leads_counts_for_what_it_wrote(agency: Agency) -> None:
    agency.client("First")
    agency.attempt("First", state="failed", error="TokenRejected", report='{"trial": true}')
    agency.attempt("First", report=json.dumps(json.loads(report(3)) | {"trial": True}))
    (today,) = look(agency.engine, 1)
    assert (today.attempts, today.attempts_failed, today.repaired) == (1, 0, 3)


def test_a_look_reads_no_attempts_of_other_work(agency: Agency) -> None:
    """Imports of messages alone are 960,000 a day at 10,000 locations."""
    agency.sql("INSERT INTO clients (name, location_id) SELECT 'C' || n, 'L' || n FROM generate_series(1, 50) AS n")
    agency.attempt("L1", report=report(1))
    agency.sql("""
        INSERT INTO location_attempts (location_id, capability, state)
        SELECT 'L' || (n % 50 + 1), CASE WHEN n % 7 = 0 THEN 'hydration' ELSE 'conversations' END, 'succeeded'
        FROM generate_series(1, 20000) AS n
    """)
    look(agency.engine)
    with agency.engine.connect() as connection:
        connection.execute(text("ANALYZE location_attempts"))
        explain = text(f"EXPLAIN {days._SUM_ATTEMPTS.text}")
        plan = "\n".join(connection.execute(explain, {"repaired": list(days.REPAIRED), "busy": "x"}).scalars())
    assert "ix_location_attempts_latest" in plan
    assert "pk_location_attempts" not in plan
    assert "Seq Scan on location_attempts" not in plan
