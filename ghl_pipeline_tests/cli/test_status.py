"""`ghl-pipeline status`: how the leads stand, and how the last work ended."""

import io
from datetime import datetime, timedelta
from unittest.mock import Mock

import pytest
from rich.console import Console
from sqlalchemy import Engine, text

from ghl_pipeline.cli import status as status_module
from ghl_pipeline.database.leases import LocationLeases
from ghl_pipeline.orchestration.attempts import record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Cli
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


def test_the_status_before_and_after_a_backfill(cli: Cli, engine: Engine, project: Settings, sandbox: Sandbox) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=2, leads=40)
    before = cli("status", "--json").document()["locations"]
    assert [each["location"] for each in before] == [location.id for location in agency.locations]
    for each in before:
        assert (each["leads"], each["last_state"], each["last_success"], each["error"]) == (40, None, None, None)
    assert "never" in cli("status").out
    broken = agency.locations[1]
    sandbox.faults(broken.id, token_revoked=True)
    cli("backfill")
    fine, failed = cli("status", "--json").document()["locations"]
    assert fine["last_state"] == "succeeded"
    assert datetime.fromisoformat(fine["last_success"]).tzinfo is not None
    assert fine["linked"] > before[0]["linked"]
    assert fine["without_phone"] < before[0]["without_phone"]
    assert (failed["last_state"], failed["last_success"]) == ("failed", None)
    assert "TokenRejected" in failed["error"]
    shown = cli("status")
    assert shown.code == 0
    assert "succeeded" in shown.out
    assert "ghl-pipeline clients set-token" in shown.out + shown.err


def test_who_found_the_location_busy_says_nothing_of_its_last_work(
    cli: Cli, add_client: AddClient, engine: Engine
) -> None:
    client = add_client()
    client.add_lead(email="nobody@example.com")
    # As it is when the refused one came while the other was at work: its attempt has the higher id.
    assert cli("backfill").code == 0
    with LocationLeases(engine) as leases:
        leases.acquire(client.location.id, "run 4711")
        assert cli("backfill").code == 5
    (status,) = cli("status", "--json").document()["locations"]
    assert (status["last_state"], status["error"]) == ("succeeded", None)


def test_a_dry_run_is_no_success(cli: Cli, add_client: AddClient, sandbox: Sandbox) -> None:
    client = add_client()
    client.add_lead(email="nobody@example.com")
    assert cli("backfill", "--dry-run").code == 0
    (status,) = cli("status", "--json").document()["locations"]
    assert (status["last_state"], status["last_success"]) == (None, None)
    cli("backfill")
    (real,) = cli("status", "--json").document()["locations"]
    assert real["last_state"] == "succeeded"
    sandbox.faults(client.location.id, token_revoked=True)
    cli("backfill")
    sandbox.faults()
    cli("backfill", "--dry-run")
    (status,) = cli("status", "--json").document()["locations"]
    assert (status["last_state"], status["last_success"]) == ("failed", real["last_success"])


def test_a_field_of_white_space_counts_as_missing_just_as_it_does_to_a_backfill(
    cli: Cli, add_client: AddClient
) -> None:
    client = add_client()
    blank = {"phone": "\t", "first_name": "\u3000", "last_name": "Lovelace", "ghl_contact_id": "\xa0"}
    client.add_lead(email="ada@example.com", **blank)
    (status,) = cli("status", "--json").document()["locations"]
    assert (status["linked"], status["without_phone"], status["without_name"]) == (0, 1, 1)


def test_what_fails_besides_hydration_is_shown_until_it_succeeds(
    cli: Cli, add_client: AddClient, sandbox: Sandbox
) -> None:
    client = add_client()
    assert cli("backfill").code == 0
    sandbox.faults(client.location.id, missing_scopes=["conversations/message.readonly"])
    assert cli("import-messages").code == 1
    (failed,) = cli("status", "--json").document()["locations"]
    assert (failed["last_state"], list(failed["failing"])) == ("succeeded", ["conversations"])
    assert "ScopeMissing" in failed["failing"]["conversations"]
    assert "conversations/message.readonly" in cli("status").out
    sandbox.faults(client.location.id)
    assert cli("import-messages").code == 0
    assert cli("status", "--json").document()["locations"][0]["failing"] == {}


def test_drafts_and_accounts_that_fail_are_shown_too(cli: Cli, add_client: AddClient, engine: Engine) -> None:
    client = add_client()
    for work in ("drafts", "senders"):
        failure = FailedLocation(client.location.id, "SomeError", f"SomeError: {work} failed", permanent=False)
        record_refusal(engine, failure, None, work)

    (status,) = cli("status", "--json").document()["locations"]

    assert status["failing"] == {work: f"SomeError: {work} failed" for work in ("drafts", "senders")}
    assert "senders failed" in cli("status").out


def test_the_age_of_the_free_times_is_shown_and_what_has_to_be_known_of_fresh_ones(
    cli: Cli, add_client: AddClient, engine: Engine
) -> None:
    client = add_client()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO booking_calendars (client_id, booking_link, state, reason, refreshed_at)
                SELECT id, 'https://example.com/widget/booking/roof', 'fresh', 'time_zone_unread',
                    now() - interval '26 hours 5 minutes'
                FROM clients
            """)
        )
    (status,) = cli("status", "--json").document()["locations"]
    assert status["location"] == client.location.id
    assert datetime.fromisoformat(status["calendar_refreshed_at"]).tzinfo is not None
    shown = cli("status").out
    assert "1 d 2 h ago" in shown
    assert "locations.readonly" in shown
    for age, words in (("3 hours 7 minutes", "3 h 7 min ago"), ("4 minutes", "4 min ago"), (None, "never")):
        with engine.begin() as connection:
            query = text("UPDATE booking_calendars SET refreshed_at = now() - CAST(:age AS interval)")
            connection.execute(query, {"age": age})
        assert words in cli("status").out


# --- the operator's page


def test_the_page_begins_with_the_sums_and_ends_with_what_to_do(
    cli: Cli, engine: Engine, project: Settings, sandbox: Sandbox
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=2, leads=40)
    broken = agency.locations[1].id
    sandbox.faults(broken, token_revoked=True)
    cli("backfill")
    shown = cli("status").out
    assert shown.startswith("2 locations, 80 leads, counted 0 min ago or later\n")
    assert "failed: 1 locations, 1 of them held for a person" in shown
    assert "hydration: TokenRejected 1" in shown
    assert f"error: hydrated_leads partitions_failed: 1 of 2 locations are amiss, first {broken}" in shown
    assert f"ghl-pipeline backfill --location {broken}" in shown
    document = cli("status", "--json").document()
    assert document["failures"] == {"hydration: TokenRejected": 1}
    assert document["days"][-1]["attempts_failed"] == 1
    assert document["days"][-1]["repaired"] > 0
    assert document["days"][-1]["requests"] == document["totals"]["requests_today"] > 0
    assert document["locations"][1]["waiting"]["hydration"].startswith("held: TokenRejected")


def test_the_keys_of_the_document_are_those_that_the_runbook_describes(cli: Cli, add_client: AddClient) -> None:
    """Scripts rely on them: one that goes, or is called otherwise, breaks somebody's monitoring."""
    add_client()
    document = cli("status", "--json").document()
    assert set(document) == {"as_of", "totals", "failures", "days", "checks", "locations"}
    assert set(document["totals"]) == {
        "locations", "leads", "linked", "without_phone", "without_name", "looked_up", "not_found", "locations_failed",
        "locations_held", "locations_waiting", "events_pending", "events_dead", "events_last_day",
        "events_overdue_seconds", "requests_today", "peak_share", "counted_at",
    }  # fmt: skip
    assert set(document["days"][0]) == {
        "day", "repaired", "looked_at", "not_found", "attempts", "attempts_failed", "requests", "peak_share",
    }  # fmt: skip
    assert set(document["checks"][0]) == {
        "asset", "check", "passed", "severity", "locations", "amiss", "description",
    }  # fmt: skip
    assert set(document["locations"][0]) == {
        "location", "client", "active", "leads", "linked", "without_phone", "without_name", "looked_up", "not_found",
        "counted_at", "last_state", "last_success", "error", "failing", "waiting", "expected", "work",
        "events_pending", "events_dead", "oldest_pending_seconds", "overdue_seconds", "events_last_day",
        "requests_today", "requests_per_day", "has_token", "calendar", "calendar_reason", "calendar_stale_since",
        "calendar_since", "calendar_refreshed_at", "free_slots",
    }  # fmt: skip


def test_a_script_learns_from_the_exit_code_whether_anything_is_amiss(
    cli: Cli, add_client: AddClient, sandbox: Sandbox
) -> None:
    client, fine = add_client(), add_client("Fine")
    client.add_lead(email="nobody@example.com")
    assert cli("backfill").code == 0
    assert cli("status", "--check").code == 0
    sandbox.faults(client.location.id, token_revoked=True)
    cli("backfill")
    ended = cli("status", "--check", "--json")
    assert ended.code == 1
    amiss = [(each["asset"], each["check"]) for each in ended.document()["checks"] if not each["passed"]]
    assert amiss == [("hydrated_leads", "partitions_failed")]
    assert cli("status").code == 0
    assert cli("status", client.location.id, "--check").code == 1
    assert cli("status", fine.location.id, "--check").code == 0


def test_of_many_locations_the_worst_are_shown_and_all_on_request(
    cli: Cli, add_client: AddClient, engine: Engine
) -> None:
    client = add_client()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO clients (name, location_id, ghl_token_encrypted)
                SELECT 'Client ' || n, 'Quiet' || n, 'sealed' FROM generate_series(1, 30) AS n
            """)
        )
    failure = FailedLocation(client.location.id, "SomeError", "SomeError: it failed", permanent=True)
    record_refusal(engine, failure, None)
    shown = cli("status")
    assert "The 20 worst of 31 locations (--all shows all)" in shown.out
    assert client.location.id in shown.out
    assert sum(f"Quiet{n} " in shown.out for n in range(1, 31)) == 19
    one = cli("status", "--worst", "1").out
    assert (client.location.id in one, "Quiet" in one) == (True, False)
    whole = cli("status", "--all").out
    assert sum(f"Quiet{n} " in whole for n in range(1, 31)) == 30
    assert len(cli("status", "--json").document()["locations"]) == 31


def test_what_waits_fits_the_table_and_errors_of_many_locations_do_not_hide_the_page(
    cli: Cli, add_client: AddClient, engine: Engine
) -> None:
    for number in range(15):
        client = add_client(f"Client {number}")
        for work in ("hydration", "conversations", "availability"):
            text_ = f"TokenRejected: location {client.location.id}, trace {work}"
            record_refusal(
                engine, FailedLocation(client.location.id, "TokenRejected", text_, permanent=True), None, work
            )
    shown = cli("status").out
    assert shown.count("held: hydration +2") == 15
    assert sum(line.startswith("TokenRejected: ") for line in shown.splitlines()) == 10
    assert "And 35 more errors. Those of a location: ghl-pipeline status LOCATION" in shown


def test_one_location_has_a_page_of_its_own(cli: Cli, add_client: AddClient, sandbox: Sandbox) -> None:
    client, other = add_client("Acme"), add_client("Other")
    client.add_lead(email="nobody@example.com")
    cli("backfill")
    sandbox.faults(client.location.id, missing_scopes=["conversations/message.readonly"])
    cli("import-messages", "--location", client.location.id)
    for which in (client.location.id, "acme"):
        shown = cli("status", which)
        assert shown.code == 0
        assert other.location.id not in shown.out
        assert [word in shown.out for word in ("hydration", "conversations", "succeeded", "held")] == [True] * 4
        assert "conversations: ScopeMissing" in shown.out
        assert "of 200,000 requests of this UTC day are used" in shown.out
    (told,) = cli("status", "Acme", "--json").document()["locations"]
    assert (told["looked_up"], told["not_found"]) == (1, 1)
    assert {name: each["state"] for name, each in told["work"].items()} == {
        "hydration": "succeeded", "conversations": "failed",
    }  # fmt: skip
    assert cli("status", "Nobody").code == 2


def test_the_live_page_is_shown_again_until_ctrl_c_and_ends_well(
    cli: Cli, add_client: AddClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = add_client()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            client.add_lead(email="late@example.com")
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("ghl_pipeline.cli.status.time.sleep", pause)
    monkeypatch.setattr(status_module, "COUNT_AGAIN_AFTER_LIVE", timedelta(0))
    ended = cli("status", "--watch", "--interval", "7")
    assert (ended.code, pauses) == (0, [7.0, 7.0])
    assert "1 locations, 0 leads" in ended.out
    assert "1 locations, 1 leads" in ended.out


def test_the_live_page_takes_the_place_of_the_one_before_in_a_terminal(
    cli: Cli, add_client: AddClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = add_client()
    screen = Console(file=io.StringIO(), force_terminal=True, width=150, height=50)
    monkeypatch.setattr(status_module, "out", screen)
    monkeypatch.setattr("ghl_pipeline.cli.status.time.sleep", Mock(side_effect=[None, None, KeyboardInterrupt]))
    assert cli("status", "--watch").code == 0
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert written.count(client.location.id) >= 3
    assert "\x1b[?1049h" in written, "it did not open a screen of its own"
    assert "\x1b[?1049l" in written, "it did not give the terminal back"


def test_what_is_amiss_is_seen_on_a_live_page_that_ends_where_the_terminal_ends(
    cli: Cli, add_client: AddClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        add_client(f"Client {number}")
    last = add_client("Last")
    failure = FailedLocation(last.location.id, "SomeError", "SomeError: it failed", permanent=True)
    record_refusal(engine, failure, None)
    screen = Console(file=io.StringIO(), force_terminal=True, width=150, height=20)
    monkeypatch.setattr(status_module, "out", screen)
    monkeypatch.setattr("ghl_pipeline.cli.status.time.sleep", Mock(side_effect=KeyboardInterrupt))
    assert cli("status", "--watch").code == 0
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "hydrated_leads partitions_failed: 1 of 1 locations are amiss" in written


def test_a_live_page_is_not_for_scripts(cli: Cli, add_client: AddClient) -> None:
    for option in ("--json", "--check"):
        ended = cli("status", "--watch", option)
        assert (ended.code, ended.out) == (2, "")
        assert "--watch" in ended.err
