"""`ghl-pipeline senders`, as an operator meets it."""

import json

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from ghl_pipeline.cli.senders import app
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import own_environment as own_environment  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.senders.conftest import Agency, Client


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox, own_environment: object, project: Settings) -> Agency:
    return Agency(engine, sandbox, TokenCipher.from_settings(project))


def senders(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_accounts_are_listed_by_number_with_their_leads(agency: Agency, client: Client) -> None:
    client.workspace.mailboxes.change(2, status="Disconnected")
    client.lead(1)
    synced = json.loads(senders("sync", "--json").stdout)
    assert [(each["location"], each["accounts"], each["can_send"]) for each in synced["locations"]] == [
        (client.location_id, 3, 2)
    ]
    assert synced["failed"] == []

    listed = json.loads(senders("list", "--json").stdout)["accounts"]

    assert [(each["sender_id"], each["can_send"], each["leads"]) for each in listed] == [
        (1, True, 1), (2, False, 0), (3, True, 0),
    ]  # fmt: skip
    shown = senders("list", "--location", client.location_id)
    assert "Disconnected" in shown.stdout
    assert "sam.1" not in shown.stdout
    assert "Sam Sender" not in shown.stdout


def test_a_refusal_is_healed_and_told_again_it_is_not(agency: Agency, client: Client) -> None:
    lead = client.lead(1)
    senders("sync")

    healed = senders("heal", lead, "--refused", 1)
    again = json.loads(senders("heal", lead, "--refused", 1, "--json").stdout)

    assert f"Lead {lead} has account 2 now; it had account 1 (refused)." in healed.stdout
    assert (again["outcome"], again["sender_id"]) == ("well", 2)
    assert "Nothing was changed" in senders("heal", lead).stdout
    assert len(client.healings()) == 1


def test_a_client_without_anything_that_can_send_is_told_what_to_do(agency: Agency, client: Client) -> None:
    lead = client.lead(None)

    assert "senders sync" in senders("heal", lead).stdout


def test_a_location_that_fails_ends_the_command_with_its_reason(agency: Agency, client: Client) -> None:
    other = agency.add_client()
    agency.sandbox.faults(client.workspace.faults_key, token_revoked=True)

    ended = senders("sync", "--json")

    assert ended.exit_code == 1
    document = json.loads(ended.stdout)
    assert [each["location"] for each in document["failed"]] == [client.location_id]
    assert [each["location"] for each in document["locations"]] == [other.location_id]


def test_a_location_that_another_run_is_at_is_left_to_it_and_is_no_failure(
    agency: Agency, client: Client, engine: Engine
) -> None:
    with AdvisoryLocks(engine).hold(f"senders of location {client.location_id}") as held:
        assert held
        ended = senders("sync", "--json")

    document = json.loads(ended.stdout)
    assert (document["busy"], document["failed"], document["locations"]) == ([client.location_id], [], [])
    assert "left alone" in ended.stderr
    assert ended.exit_code == LocationBusy.exit_code


def test_without_a_workspace_there_is_nothing_to_list(agency: Agency) -> None:
    agency.add_client(with_token=False)
    assert "No active client" in senders("sync").stdout


def test_a_location_that_is_asked_for_and_has_no_token_is_told(agency: Agency) -> None:
    client = agency.add_client(with_token=False)
    ended = senders("sync", "--location", client.location_id)
    assert "set-emailbison" in ended.output
