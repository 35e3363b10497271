"""`sync-lead` and `sync-all`: leads repaired at once, and always a word about whether they were updated."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import AddClient, Agency, Cli
from ghl_pipeline_tests.fixtures.project import add_sample_agency, lead_rows
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@pytest.fixture
def client(add_client: AddClient) -> Agency:
    """A client whose location knows Ada."""
    agency = add_client()
    agency.location.add(email="ada@example.com", first_name="Ada", phone="+12125550101")
    return agency


def test_one_lead_is_repaired_and_the_answer_names_fields_not_values(cli: Cli, client: Agency) -> None:
    lead, other = client.add_lead(email="ada@example.com"), client.add_lead(email="bob@example.com")
    untouched = client.lead(other)
    ended = cli("sync-lead", lead)
    assert ended.code == 0
    assert f"Lead {lead}: linked_and_hydrated, lead updated (contact_link, phone, first_name)" in ended.out
    assert client.lead(lead)["phone"] == "+12125550101"
    assert client.lead(other) == untouched
    assert "Ada" not in ended.out


def test_lead_updated_is_told_even_when_nothing_happened(cli: Cli, client: Agency) -> None:
    nobody = client.add_lead(email="nobody@example.com")
    told = cli("sync-lead", nobody, "--json").document()
    assert (told["lead_updated"], told["outcome"], told["fields"]) == (False, "not_found", [])
    assert "lead not changed" in cli("sync-lead", nobody).out
    ada = client.add_lead(email="ada@example.com")
    assert cli("sync-lead", ada, "--json").document()["lead_updated"] is True
    assert cli("sync-lead", ada, "--json").document()["lead_updated"] is False


@pytest.mark.parametrize("lead", ["4711", "0", "99999999999999999999999"])
def test_a_lead_that_does_not_exist_is_told_so(lead: str, cli: Cli, project: Settings) -> None:
    refused = cli("sync-lead", lead)
    assert (refused.code, refused.out) == (2, "")
    assert f"there is no lead {lead}" in refused.err


def test_a_lead_whose_client_cannot_be_worked_for_is_refused_with_what_to_do(cli: Cli, client: Agency) -> None:
    lead = client.add_lead(email="ada@example.com")
    client.set(active=False)
    refused = cli("sync-lead", lead)
    assert refused.code == 2
    assert f"ghl-pipeline clients reactivate {client.location.id}" in refused.err
    client.set(active=True, ghl_token_encrypted=None)
    refused = cli("sync-lead", lead)
    assert refused.code == 3
    assert f"ghl-pipeline clients set-token {client.location.id}" in refused.err


def test_a_lookup_that_fails_changes_nothing_and_ends_with_1(cli: Cli, client: Agency, sandbox: Sandbox) -> None:
    lead = client.add_lead(email="ada@example.com")
    sandbox.faults(client.location.id, token_revoked=True)
    before = client.lead(lead)
    ended = cli("sync-lead", lead, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "TokenRejected" in ended.err
    assert client.lead(lead) == before


def test_sync_all_repairs_what_a_backfill_would_and_says_whether_leads_were_updated(
    cli: Cli, engine: Engine, project: Settings, sandbox: Sandbox
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=2, leads=40)
    ended = cli("sync-all", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = ended.document()
    for location, report in zip(agency.locations, told["locations"], strict=True):
        assert {name: n for name, n in report["outcomes"].items() if n} == location.outcomes
    repaired = sum(loc.outcomes["linked_and_hydrated"] + loc.outcomes["hydrated"] for loc in agency.locations)
    assert (told["leads_updated"], told["lead_updated"]) == (repaired, True)
    after = lead_rows(engine)
    again = cli("sync-all", "--json").document()
    assert (again["leads_updated"], again["lead_updated"]) == (0, False)
    assert lead_rows(engine) == after
    assert "leads updated" in cli("sync-all").out


def test_sync_all_names_a_location_that_failed_and_still_prints_one_document(
    cli: Cli, add_client: AddClient, client: Agency, sandbox: Sandbox
) -> None:
    other = add_client("Other")
    for each in (client, other):
        each.add_lead(email="ada@example.com")
    sandbox.faults(other.location.id, token_revoked=True)
    ended = cli("sync-all", "--json")
    assert ended.code == 1
    told = ended.document()
    assert [report["location"] for report in told["locations"]] == [client.location.id]
    assert [failure["location"] for failure in told["failed"]] == [other.location.id]
    assert ended.err == f"{told['failed'][0]['text']}\n"


def test_an_unknown_location_is_refused(cli: Cli, client: Agency) -> None:
    refused = cli("sync-all", "--location", "NoSuchLocation000001")
    assert (refused.code, refused.out) == (2, "")
    assert "ghl-pipeline clients list" in refused.err
