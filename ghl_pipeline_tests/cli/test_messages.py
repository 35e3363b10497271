"""`import-messages`, and what `sync-lead` and `sync-all` say of messages apart from leads."""

import subprocess
import time

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline_tests.cli.conftest import PROGRAM, AddClient, Agency, Cli
from ghl_pipeline_tests.conversations.conftest import ago
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

SCOPE = "conversations/message.readonly"


@pytest.fixture
def client(add_client: AddClient) -> Agency:
    """A client whose location knows Ada, who wrote twice, and a stranger who wrote once."""
    agency = add_client()
    ada = agency.location.add(email="ada@example.com", first_name="Ada", phone="+12125550101")
    agency.location.add_message(ada.id, "quorvath", at=ago(hours=3))
    agency.location.add_message(ada.id, "quorvath again", "outbound", at=ago(hours=2))
    agency.location.add_message("Stranger000000000001", "quorvath", at=ago(hours=1))
    return agency


def ada_of(client: Agency) -> str:
    return next(iter(client.location.contacts.by_id))


def test_messages_of_leads_are_imported_and_counted_once(cli: Cli, client: Agency) -> None:
    client.add_lead(ghl_contact_id=ada_of(client))
    client.add_lead(ghl_contact_id="test_contact_1")
    told = cli("import-messages", "--json").document()
    assert (told["messages_imported"], told["requests"], told["failed"], told["busy"]) == (2, 1, [], [])
    (location,) = told["locations"]
    assert location["outcomes"]["skipped_no_lead"] == 1
    assert location["messages_seen"] == sum(location["outcomes"].values()) == 3
    assert location["leads_with_junk_contact_id"] == 1
    assert cli("import-messages", "--json").document()["messages_imported"] == 0
    shown = cli("import-messages", "--location", client.location.id)
    assert (shown.code, shown.err) == (0, "")
    assert "1 leads have a contact id that can be none" in shown.out
    assert "quorvath" not in shown.out


def test_messages_of_a_lead_that_was_linked_later_come_with_the_next_import(cli: Cli, client: Agency) -> None:
    client.add_lead(ghl_contact_id="Stranger000000000001")
    assert cli("import-messages", "--json").document()["messages_imported"] == 1
    client.add_lead(ghl_contact_id=ada_of(client))
    assert cli("import-messages", "--json").document()["messages_imported"] == 2


def test_messages_that_were_lost_here_are_brought_again_from_the_start(cli: Cli, client: Agency) -> None:
    client.add_lead(ghl_contact_id=ada_of(client))
    cli("import-messages")
    with client.engine.begin() as connection:
        connection.execute(text("DELETE FROM messages"))
        connection.execute(text("UPDATE message_imports SET imported_until = now()"))
        connection.execute(text("UPDATE location_attempts SET started_at = now() + interval '1 day'"))
    assert cli("import-messages", "--json").document()["messages_imported"] == 0
    assert cli("import-messages", "--from-start", "--json").document()["messages_imported"] == 2


def test_a_token_without_the_scope_is_named_and_stops_no_other(
    cli: Cli, add_client: AddClient, client: Agency, sandbox: Sandbox
) -> None:
    other = add_client("Other")
    sandbox.faults(other.location.id, missing_scopes=(SCOPE,))
    ended = cli("import-messages", "--json")
    assert ended.code == 1
    told = ended.document()
    assert [each["location"] for each in told["locations"]] == [client.location.id]
    assert [each["location"] for each in told["failed"]] == [other.location.id]
    assert SCOPE in ended.err


def test_an_unknown_location_is_refused(cli: Cli, client: Agency) -> None:
    refused = cli("import-messages", "--location", "NoSuchLocation000001")
    assert (refused.code, refused.out) == (2, "")


def test_a_lead_is_linked_and_its_messages_imported_at_once(cli: Cli, client: Agency) -> None:
    lead = client.add_lead(email="ada@example.com")
    shown = cli("sync-lead", lead)
    assert shown.code == 0
    assert "lead updated (contact_link, phone, first_name), 2 messages imported" in shown.out
    told = cli("sync-lead", lead, "--json").document()
    assert (told["lead_updated"], told["messages_imported"], told["messages_failed"]) == (False, 0, [])


def test_a_lead_without_a_contact_has_no_messages_and_costs_no_request_for_them(
    cli: Cli, client: Agency, sandbox: Sandbox
) -> None:
    lead = client.add_lead(email="nobody@example.com")
    assert cli("sync-lead", lead, "--json").document()["messages_imported"] == 0
    assert "GET /conversations/messages/export" not in sandbox.stats(client.location.id)["by_route"]


def test_a_lead_is_updated_even_when_its_messages_cannot_be_had(cli: Cli, client: Agency, sandbox: Sandbox) -> None:
    sandbox.faults(client.location.id, missing_scopes=(SCOPE,))
    lead = client.add_lead(email="ada@example.com")
    ended = cli("sync-lead", lead, "--json")
    assert ended.code == 1
    told = ended.document()
    assert (told["lead_updated"], told["messages_imported"]) == (True, None)
    assert [each["error"] for each in told["messages_failed"]] == ["ScopeMissing"]
    assert client.lead(lead)["phone"] == "+12125550101"
    assert SCOPE in ended.err
    assert "messages not imported" in cli("sync-lead", lead).out


def test_sync_all_says_apart_what_became_of_leads_and_of_messages(cli: Cli, client: Agency, sandbox: Sandbox) -> None:
    client.add_lead(email="ada@example.com")
    told = cli("sync-all", "--json").document()
    assert (told["leads_updated"], told["messages_imported"]) == (1, 2)
    assert told["locations"][0]["messages_imported"] == 2
    again = cli("sync-all", "--json").document()
    assert (again["lead_updated"], again["messages_imported"]) == (False, 0)
    assert "messages imported" in cli("sync-all").out
    sandbox.faults(client.location.id, missing_scopes=(SCOPE,))
    ended = cli("sync-all", "--json")
    assert ended.code == 1
    assert ended.document()["failed"] == []
    assert [each["error"] for each in ended.document()["messages_failed"]] == ["ScopeMissing"]


@pytest.mark.slow
def test_an_import_killed_with_9_goes_on_where_it_was(
    cli: Cli, client: Agency, sandbox: Sandbox, engine: Engine
) -> None:
    client.add_lead(ghl_contact_id=ada_of(client))
    with engine.begin() as connection:  # a lead of yesterday: one that is new is caught up by requests of its own
        connection.execute(text("ALTER TABLE leads DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE leads SET updated_at = now() - interval '1 day'"))
        connection.execute(text("ALTER TABLE leads ENABLE TRIGGER USER"))
    for number in range(3000):
        client.location.add_message(ada_of(client), f"text {number}", at=ago(hours=48) + 50_000 * number)
    sandbox.faults(latency_seconds=0.5)
    process = subprocess.Popen([PROGRAM, "import-messages"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stored = 0
    give_up_at = time.monotonic() + 60
    while stored < 1000 and time.monotonic() < give_up_at:
        time.sleep(0.05)
        with engine.connect() as connection:
            stored = connection.execute(text("SELECT count(*) FROM messages")).scalar_one()
    process.kill()
    process.wait()
    assert 1000 <= stored < 3002
    sandbox.faults()
    sandbox.world.reset_statistics()
    told = cli("import-messages", "--json").document()
    with engine.connect() as connection:
        kept, ids = connection.execute(text("SELECT count(*), count(DISTINCT external_id) FROM messages")).one()
    assert (kept, ids) == (3002, 3002)
    # Between the last look and the kill one more page may have come.
    assert told["messages_imported"] in {3002 - stored, 3002 - stored - 500}
    assert told["requests"] <= (3002 - stored) // 500 + 2
