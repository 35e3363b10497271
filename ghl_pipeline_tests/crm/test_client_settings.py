"""For which clients vendors and leads are kept in step, and how that is switched."""

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.crm.client_settings import CrmOff, crm_client, crm_locations, find_crm_client, set_crm, switched_on
from ghl_pipeline.crm.custom_fields import FieldName
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline_tests.crm.syncing import KEYS, Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

LOCATION = "C6HxU0gdMY76stvsY7nT"


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox)


def passed(client: Client) -> bool:
    """Whether the next run may ask for changes alone."""
    with client.engine.connect() as connection:
        return crm_client(connection, client.id).full_pass_at is not None


def after_a_pass(client: Client) -> None:
    client.sql("UPDATE crm_clients SET full_pass_at = now(), changes_seen_until = now()")


def test_a_client_is_off_until_it_is_switched_on(engine: Engine) -> None:
    with engine.begin() as connection:
        add_client(connection, KEYS, name="Acme", location_id=LOCATION)
        assert find_crm_client(connection, LOCATION) is None
        with pytest.raises(CrmOff, match=rf"{LOCATION}.*clients set-crm {LOCATION} --on") as refused:
            crm_client(connection, LOCATION)
        assert isinstance(refused.value, InvalidInput)
        set_crm(connection, "acme", enabled=True)
        on = crm_client(connection, LOCATION)
        assert (on.enabled, on.discover, dict(on.field_keys), on.full_pass_at) == (True, True, {}, None)
        set_crm(connection, LOCATION, enabled=False)
        with pytest.raises(CrmOff):
            crm_client(connection, LOCATION)
        assert switched_on(connection) == frozenset()


def test_only_active_clients_with_a_token_are_worked_on(client: Client, engine: Engine) -> None:
    with engine.begin() as connection:
        add_client(connection, KEYS, name="No token", location_id=LOCATION)
        set_crm(connection, LOCATION, enabled=True)
        assert crm_locations(connection) == [client.id]
        assert switched_on(connection) == {client.id, LOCATION}
        deactivate_client(connection, client.id)
        assert crm_locations(connection) == []


def test_field_keys_are_taken_in_any_spelling_and_checked(client: Client, engine: Engine) -> None:
    client.configure(field_keys={"Service-ZIP-codes": "contact.zips"})
    with engine.connect() as connection:
        stored = crm_client(connection, client.id)
    assert dict(stored.field_keys) == {"service_zip_codes": "contact.zips"}
    assert stored.keys.keys[FieldName.SERVICE_ZIP_CODES] == "zips"
    assert stored.keys.keys[FieldName.TAKING_NEW_WORK] == "taking_new_work"
    with pytest.raises(InvalidInput, match="service_zip_codes"):
        client.configure(field_keys={"shoe_size": "contact.shoes"})
    with pytest.raises(UnknownClient), engine.begin() as connection:
        set_crm(connection, "nobody", enabled=True)


@pytest.mark.parametrize(
    ("settings", "begins_anew"),
    [
        ({"enabled": True}, False),
        ({"discover": True}, False),
        ({"field_keys": {}}, False),
        ({"discover": False}, True),
        ({"enabled": False}, True),
        ({"field_keys": {"taking_new_work": "contact.free"}}, True),
    ],
)
def test_what_concerns_contacts_that_did_not_change_makes_the_next_run_look_at_all(
    client: Client, settings: dict[str, object], begins_anew: bool
) -> None:
    after_a_pass(client)
    client.configure(**settings)
    client.sql("UPDATE crm_clients SET enabled = true")
    assert passed(client) is not begins_anew


def test_what_is_not_given_stays(client: Client, engine: Engine) -> None:
    client.configure(discover=False, field_keys={"ghl_user_id": "contact.user"})
    client.configure(enabled=True)
    with engine.connect() as connection:
        stored = crm_client(connection, client.id)
        assert connection.execute(text("SELECT count(*) FROM crm_clients")).scalar_one() == 1
    assert (stored.discover, dict(stored.field_keys)) == (False, {"ghl_user_id": "contact.user"})
