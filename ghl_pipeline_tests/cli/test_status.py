"""`ghl-pipeline status`: how the leads stand, and how the last work ended."""

from datetime import datetime

from sqlalchemy import Engine, text

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
