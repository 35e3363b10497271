"""Leads and contacts with the odd values of real accounts: each ends with its outcome, and none stops another."""

from typing import Any

import pytest

from ghl_pipeline_tests.cli.conftest import AddClient, Cli


def backfilled(cli: Cli) -> dict[str, int]:
    """Runs a backfill; returns the leads by outcome."""
    ended = cli("backfill", "--json")
    assert ended.code == 0, ended.err
    outcomes: dict[str, Any] = ended.document()["totals"]["outcomes"]
    return {name: count for name, count in outcomes.items() if count}


def test_an_email_of_300_characters_is_looked_up_and_found(cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    long = f"{'x' * 288}@example.com"
    client.location.add(email=long, first_name="Ada")
    found = client.add_lead(email=long.upper())
    client.add_lead(email=f"y{long[1:]}")
    assert backfilled(cli) == {"linked_and_hydrated": 1, "not_found": 1}
    assert client.lead(found)["first_name"] == "Ada"


def test_a_name_with_quotes_and_nul_bytes_is_stored_without_the_nul(cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    client.location.add(email="ada@example.com", first_name="A\x00\"b'", last_name="O'Neil; DROP TABLE leads --")
    lead = client.add_lead(email="ada@example.com")
    assert backfilled(cli) == {"linked_and_hydrated": 1}
    row = client.lead(lead)
    assert row["first_name"] == "A\"b'"
    assert row["last_name"] == "O'Neil; DROP TABLE leads --"


@pytest.mark.parametrize(
    ("phone", "stored"),
    [("call me", None), ("12345", None), ("+1 (212) 555-0123", "+12125550123"), ("0044 20 7946 0018", "+442079460018")],
)
def test_a_phone_is_stored_when_it_is_one(phone: str, stored: str | None, cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    client.location.add(email="ada@example.com", phone=phone)
    lead = client.add_lead(email="ada@example.com", first_name="Ada", last_name="L", company_name="C")
    assert backfilled(cli) == {"linked_and_hydrated": 1}
    assert client.lead(lead)["phone"] == stored


@pytest.mark.parametrize("junk", ["test", "123", "{{contact.id}}", "../users", "a" * 300, "undefined"])
def test_a_contact_id_that_is_test_junk_is_never_sent(junk: str, cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    alone = client.add_lead(ghl_contact_id=junk)
    assert backfilled(cli) == {"invalid_contact_id": 1}
    assert client.lead(alone)["ghl_contact_id"] == junk


def test_a_contact_that_is_gone_is_reported_as_deleted(cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    client.add_lead(ghl_contact_id="GoneGoneGoneGoneGone")
    assert backfilled(cli) == {"contact_deleted": 1}


def test_of_duplicates_the_one_with_a_phone_wins_and_equal_ones_are_left_alone(cli: Cli, add_client: AddClient) -> None:
    client = add_client(allow_duplicates=True)
    client.location.add(email="ada@example.com", first_name="Without", date_updated=2_000)
    chosen = client.location.add(email="ada@example.com", first_name="With", phone="+12125550101", date_updated=1_000)
    for name in ("One", "Other"):
        client.location.add(email="bob@example.com", first_name=name, date_added=5, date_updated=5)
    ada, bob = client.add_lead(email="ada@example.com"), client.add_lead(email="bob@example.com")
    assert backfilled(cli) == {"linked_and_hydrated": 1, "ambiguous": 1}
    assert client.lead(ada)["ghl_contact_id"] == chosen.id
    assert client.lead(bob)["ghl_contact_id"] is None


@pytest.mark.parametrize("email", ["", "   ", "not an address", "a@b@c", '"quoted"@example.com', "ada@example.com\n"])
def test_an_odd_address_stops_no_other_lead(email: str, cli: Cli, add_client: AddClient) -> None:
    client = add_client()
    client.location.add(email="bob@example.com", first_name="Bob")
    client.add_lead(email=email, phone="5550100")
    good = client.add_lead(email="bob@example.com")
    outcomes = backfilled(cli)
    assert outcomes["linked_and_hydrated"] == 1
    assert sum(outcomes.values()) in (1, 2)
    assert "failed" not in outcomes
    assert client.lead(good)["first_name"] == "Bob"
