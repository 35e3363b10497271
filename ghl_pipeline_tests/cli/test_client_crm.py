"""Switching the sync of vendors and leads on and off for a client, through the command line."""

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline_tests.cli.conftest import AddClient, Agency, Cli


@pytest.fixture
def agency(add_client: AddClient) -> Agency:
    return add_client("Acme")


def in_step(cli: Cli) -> list[bool]:
    return [client["crm"] for client in cli("clients", "list", "--json").document()["clients"]]


def test_a_client_is_switched_on_and_off_again_and_listed_so(cli: Cli, agency: Agency) -> None:
    assert in_step(cli) == [False]
    on = cli("clients", "set-crm", "Acme", "--on")
    assert on.code == 0
    assert f"ghl-pipeline crm-sync --location {agency.location.id} --dry-run" in on.out
    assert in_step(cli) == [True]
    assert "in step" in cli("clients", "list").out
    off = cli("clients", "set-crm", agency.location.id, "--off")
    assert (off.code, "left alone" in off.out) == (0, True)
    assert in_step(cli) == [False]


def test_what_is_not_given_stays_as_it_is(cli: Cli, agency: Agency) -> None:
    first = cli("clients", "set-crm", "Acme", "--no-discover", "--field", "Service-Zip-Codes=contact.zips", "--json")
    assert first.document() == {
        "client": agency.client_id,
        "location": agency.location.id,
        "enabled": True,
        "discover": False,
        "field_keys": {"service_zip_codes": "contact.zips"},
        "full_pass_at": None,
    }
    second = cli("clients", "set-crm", "Acme", "--field", "taking_new_work=contact.open_for_work", "--json").document()
    assert (second["enabled"], second["discover"]) == (True, False)
    assert second["field_keys"] == {"service_zip_codes": "contact.zips", "taking_new_work": "contact.open_for_work"}
    third = cli("clients", "set-crm", "Acme", "--discover", "--field", "service_zip_codes=", "--json").document()
    assert third["discover"] is True
    assert third["field_keys"] == {"taking_new_work": "contact.open_for_work"}
    assert cli("clients", "set-crm", "Acme", "--json").document() == third
    assert "taking_new_work in contact.open_for_work" in cli("clients", "set-crm", "Acme").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--field", "zips=contact.zips"), "service_zip_codes"),
        (("--field", "service_zip_codes"), "--field service_zip_codes=contact.zips"),
    ],
)
def test_a_field_that_is_not_ours_is_refused(
    cli: Cli, agency: Agency, engine: Engine, words: tuple[str, ...], said: str
) -> None:
    refused = cli("clients", "set-crm", "Acme", *words)
    assert refused.code == 2
    assert said in refused.words()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM crm_clients")).scalar() == 0


def test_an_unknown_client_is_refused(cli: Cli, agency: Agency) -> None:
    assert cli("clients", "set-crm", "Nobody", "--on").code == 2
