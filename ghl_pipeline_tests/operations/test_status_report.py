"""How every location stands, as the database has it; in as many statements for thousands as for one."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.operations.judging import judge
from ghl_pipeline.operations.looking import look_at
from ghl_pipeline.operations.rules import rules
from ghl_pipeline.operations.status_report import LocationStatus, read_status
from ghl_pipeline_tests.operations.agency import Agency


def status(agency: Agency, location: str) -> LocationStatus:
    (found,) = [each for each in read_status(agency.engine) if each.location == location]
    assert read_status(agency.engine, location) == [found] or found.overdue_seconds or found.oldest_pending_seconds
    return found


def test_what_is_expected_is_what_the_client_has(agency: Agency) -> None:
    agency.client("Plain", age="3 days")
    full = agency.client("Full", age="9 days")
    agency.client("NoToken", token=False)
    agency.client("Gone", active=False)
    agency.sql(
        "INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id, token_encrypted) "
        "VALUES (:id, 'https://bison.example.com', 7, 'sealed')",
        id=full,
    )
    agency.sql("INSERT INTO crm_clients (client_id, enabled) VALUES (:id, true)", id=full)
    agency.calendar(full, "fresh", refreshed="1 hour")
    assert set(status(agency, "Plain").expected) == {"hydration", "conversations"}
    assert set(status(agency, "Full").expected) == {
        "hydration", "conversations", "reconcile", "crm", "availability", "senders",
    }  # fmt: skip
    assert (status(agency, "NoToken").has_token, status(agency, "NoToken").expected) == (False, {})
    assert status(agency, "Gone").expected == {}
    assert datetime.now(UTC) - status(agency, "Plain").expected["hydration"] > timedelta(days=2)


def test_held_work_says_what_to_do_and_other_failures_when_they_are_tried_again(agency: Agency) -> None:
    agency.client("Here")
    agency.standing("Here", "hydration", "succeeded", succeeded="1 hour")
    agency.standing("Here", "crm", "failed", error="TokenRejected: set another token.", permanent=True, failures=1)
    agency.standing(
        "Here", "senders", "failed", error="EmailBisonUnavailable: later.", failures=2, rerun_in="5 minutes"
    )
    agency.standing("Here", "conversations", "failed", error="DailyQuotaReached: used up.", rerun_in="3 hours")
    agency.standing("Here", "drafts", "failed", error="GhlServerError: later.", failures=1)
    found = status(agency, "Here")
    assert (found.last_state, found.error) == ("succeeded", None)
    assert set(found.failing) == {"crm", "senders", "conversations", "drafts"}
    assert set(found.held) == {"crm"}
    assert set(found.failed) == {"crm", "senders", "drafts"}
    assert set(found.waiting) == {"crm", "senders", "conversations"}
    assert found.waiting["crm"] == "held: TokenRejected: set another token."
    assert found.waiting["senders"].startswith("again at ")
    assert found.waiting["senders"].endswith(" UTC")
    agency.client("There")
    agency.standing("There", "senders", "failed", error="GhlServerError: later.", failures=1, rerun_in="-1 minute")
    assert status(agency, "There").waiting["senders"].startswith("due since ")


def test_events_that_wait_for_their_next_attempt_are_pending_and_not_overdue(agency: Agency) -> None:
    client = agency.client("Here")
    agency.event(client, "Here", "pending", due="-30 minutes")
    agency.event(client, "Here", "dead", number=2)
    agency.event(client, "Here", "done", number=5)
    waits = status(agency, "Here")
    assert (waits.events_pending, waits.events_dead, waits.events_last_day) == (1, 2, 8)
    assert waits.overdue_seconds is None
    agency.event(client, "Here", "pending", due="20 minutes")
    late = status(agency, "Here")
    assert late.events_pending == 2
    assert late.overdue_seconds == pytest.approx(1200, abs=60)
    agency.sql("UPDATE webhook_events SET claimed_by = 'a run', claimed_until = now() + interval '1 minute'")
    assert status(agency, "Here").overdue_seconds is None


def test_requests_of_yesterday_are_not_of_today(agency: Agency) -> None:
    for location, days in (("Today", 0), ("Yesterday", 1)):
        agency.client(location)
        agency.requests(location, 150, 200, days_ago=days)
    assert (status(agency, "Today").requests_today, status(agency, "Today").quota_share) == (150, 0.75)
    assert (status(agency, "Yesterday").requests_today, status(agency, "Yesterday").requests_per_day) == (0, 200)


def test_two_thousand_locations_take_a_few_statements_and_hide_no_dead_one(agency: Agency) -> None:
    agency.sql("""
        WITH added AS (
            INSERT INTO clients (name, location_id, ghl_token_encrypted)
            SELECT 'Client ' || n, 'Location' || lpad(n::text, 5, '0'), 'sealed' FROM generate_series(1, 2000) AS n
            RETURNING id, location_id
        ), listed AS (
            INSERT INTO leads (client_id, phone) SELECT id, '+13055550187' FROM added, generate_series(1, 5)
        )
        INSERT INTO location_standings (location_id, capability, state, began_at, ended_at, succeeded_at)
        SELECT location_id, capability, 'succeeded', now(), now(), now()
        FROM added, unnest(ARRAY['hydration', 'conversations', 'webhooks']) AS capability
    """)
    agency.sql("""
        UPDATE location_standings SET state = 'failed', succeeded_at = now() - interval '9 days', failures = 40,
            failing_since = now() - interval '9 days', error_class = 'GhlUnreachable',
            error_text = 'GhlUnreachable: nobody answers.', rerun_at = now() + interval '1 hour'
        WHERE location_id = 'Location01234' AND capability = 'hydration'
    """)
    agency.sql("INSERT INTO leads (client_id, phone) SELECT 1, '+13055550187' FROM generate_series(1, 50000)")
    seen: list[object] = []
    sent = agency.statements(lambda: seen.append(look_at(agency.engine, seconds=60)))
    assert len(sent) < 40, f"{len(sent)} statements"
    locations = read_status(agency.engine)
    assert (len(locations), sum(each.leads for each in locations)) == (2000, 60_000)
    amiss = {
        (each.rule.asset, each.rule.name): [found.location for found in each.amiss]
        for each in judge(rules(), locations)
        if not each.passed
    }
    assert amiss == {
        ("hydrated_leads", "partitions_failed"): ["Location01234"],
        ("hydrated_leads", "fresh"): ["Location01234"],
    }


def test_who_may_only_read_sees_the_counts_of_others(agency: Agency, engine: Engine) -> None:
    client = agency.client("Here")
    agency.leads(client, 3)
    look_at(agency.engine, seconds=1)
    agency.leads(client, 4)
    reader = create_engine(engine.url.update_query_dict({"options": "-c default_transaction_read_only=on"}))
    try:
        with pytest.raises(DBAPIError), reader.begin() as connection:
            connection.execute(text("DELETE FROM leads"))
        assert [each.leads for each in look_at(reader, seconds=1).locations] == [3]
    finally:
        reader.dispose()
