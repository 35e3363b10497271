"""Clients: what may be added, how one is found, and what work on a location is told."""

import contextlib

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, select, update

from ghl_pipeline.database.tables import clients
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.locations.clients import (
    Client,
    ClientInactive,
    TokenMissing,
    active_locations,
    add_client,
    deactivate_client,
    find_client,
    list_clients,
    location_access,
    reactivate_client,
    set_token,
    valid_location_id,
    valid_time_zone,
)
from ghl_pipeline.privacy.tokens import TokenCipher, TokenUnreadable

LOCATION, OTHER = "ve9EPM428h8vShlRW1KT", "otherLocation0000001"
TOKEN = SecretStr("pit-6f1f2b1e-7c2d-4b7a-9a53-0123456789ab")


@pytest.fixture
def cipher() -> TokenCipher:
    return TokenCipher([Fernet(Fernet.generate_key())], "this test")


def add(connection: Connection, cipher: TokenCipher, name: str = "Acme", location_id: str = LOCATION) -> Client:
    return add_client(connection, cipher, name=name, location_id=location_id, token=TOKEN)


def test_an_added_client_is_listed_and_its_location_can_be_worked_on(engine: Engine, cipher: TokenCipher) -> None:
    with engine.begin() as connection:
        client = add_client(
            connection, cipher, name=" Acme, \"O'Neil\" & Söhne ", location_id=LOCATION, token=TOKEN,
            default_region="gb", time_zone="Europe/London", settings={"calendar": None},
        )  # fmt: skip
    with engine.connect() as connection:
        assert list_clients(connection) == [client]
        access = location_access(connection, cipher, LOCATION)
        stored = connection.execute(select(clients.c.ghl_token_encrypted)).scalar_one()
    assert (client.name, client.default_region, client.active, client.has_token) == (
        "Acme, \"O'Neil\" & Söhne", "GB", True, True,
    )  # fmt: skip
    assert client.settings == {"calendar": None}
    assert (access.client_id, access.default_region, access.time_zone) == (client.id, "GB", "Europe/London")
    assert access.token == TOKEN
    secret = TOKEN.get_secret_value()
    assert secret not in f"{client!r}{access!r}{stored}"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"name": " "}, "The client name must be"),
        ({"name": "x" * 201}, "The client name must be"),
        ({"name": "Ac\x00me"}, "The client name must be"),
        ({"location_id": "short"}, "The location id must be the GHL location"),
        ({"location_id": "ve9EPM428h8vShlRW1KT/"}, "The location id must be"),
        ({"location_id": "vé9EPM428h8vShlRW1KT"}, "The location id must be"),
        ({"default_region": "XX"}, "The region must be a country"),
        ({"default_region": "USA"}, "The region must be a country"),
        ({"time_zone": "Mars/Olympus"}, "The time zone must be an IANA"),
        ({"time_zone": "America"}, "The time zone must be an IANA"),
        ({"time_zone": "../etc/passwd"}, "The time zone must be an IANA"),
        ({"time_zone": ""}, "The time zone must be an IANA"),
        ({"token": SecretStr("pit-with space")}, "The token must be"),
        ({"token": SecretStr(" ")}, "The token must be"),
        ({"token": SecretStr("pit-\u2013")}, "The token must be"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_without_being_repeated(
    engine: Engine, cipher: TokenCipher, wrong: dict[str, str | SecretStr], text: str
) -> None:
    given: dict[str, object] = {"name": "Acme", "location_id": LOCATION, "token": TOKEN, **wrong}
    with engine.begin() as connection:
        with pytest.raises(InvalidInput, match=text) as refused:
            add_client(connection, cipher, **given)  # type: ignore[arg-type]
        assert list_clients(connection) == []
    assert "passwd" not in str(refused.value)
    assert "pit-with" not in str(refused.value)


@given(st.text(max_size=80))
def test_rules_answer_with_a_clean_value_or_a_refusal_and_never_crash(text: str) -> None:
    for rule in (valid_location_id, valid_time_zone):
        with contextlib.suppress(InvalidInput):
            assert rule(text) == text.strip()


def test_adding_refuses_what_another_client_has_and_says_who_it_is(engine: Engine, cipher: TokenCipher) -> None:
    with engine.begin() as connection:
        acme = add(connection, cipher)
        with pytest.raises(InvalidInput, match=rf'{LOCATION} belongs to client {acme.id} \("Acme"\) already.*import'):
            add(connection, cipher, name="Beta")
        with pytest.raises(InvalidInput, match=rf'{LOCATION} belongs to client {acme.id} \("Acme"\) already'):
            add(connection, cipher)
        with pytest.raises(InvalidInput, match=rf'name is taken by client {acme.id} \("Acme"\), location {LOCATION}'):
            add(connection, cipher, name="ACME", location_id=OTHER)
        add(connection, cipher, name="Beta", location_id=OTHER)
    with engine.connect() as connection:
        assert [client.name for client in list_clients(connection)] == ["Acme", "Beta"]


def test_a_client_is_found_by_location_name_or_number(engine: Engine, cipher: TokenCipher) -> None:
    with engine.begin() as connection:
        acme = add(connection, cipher)
        named_like_a_number = add(connection, cipher, name=str(acme.id + 1000), location_id=OTHER)
        for which in (LOCATION, "acme", " Acme ", str(acme.id)):
            assert find_client(connection, which) == acme
        assert find_client(connection, named_like_a_number.name) == named_like_a_number
        for unknown in ("Acm", "%", "ve9epm428h8vshlrw1kt", "99999", "9" * 30, "\x00", "²"):
            with pytest.raises(UnknownClient, match="clients list"):
                find_client(connection, unknown)
        with pytest.raises(UnknownClient, match=r'"\[email\]"'):
            find_client(connection, "ann@example.com")


def test_a_deactivated_client_keeps_its_data_and_is_not_worked_on(engine: Engine, cipher: TokenCipher) -> None:
    with engine.begin() as connection:
        add(connection, cipher)
        add(connection, cipher, name="Beta", location_id=OTHER)
        assert active_locations(connection) == [LOCATION, OTHER]
    with engine.begin() as connection:
        gone = deactivate_client(connection, "acme")
    with engine.begin() as connection:
        assert deactivate_client(connection, "acme") == gone
        assert gone.deactivated_at is not None
        assert gone.deactivated_at.tzinfo is not None
        assert active_locations(connection) == [OTHER]
        assert [client.name for client in list_clients(connection, active_only=True)] == ["Beta"]
        assert len(list_clients(connection)) == 2
        with pytest.raises(ClientInactive, match=r"is deactivated.*clients reactivate"):
            location_access(connection, cipher, LOCATION)
        back = reactivate_client(connection, LOCATION)
        assert (back.active, back.deactivated_at, back.has_token) == (True, None, True)
        assert location_access(connection, cipher, LOCATION).token == TOKEN


def test_work_on_a_location_needs_a_client_and_a_readable_token(engine: Engine, cipher: TokenCipher) -> None:
    with engine.begin() as connection:
        with pytest.raises(UnknownClient, match=rf"No client has location {LOCATION}. Add it"):
            location_access(connection, cipher, LOCATION)
        client = add_client(connection, cipher, name="Acme", location_id=LOCATION)
        assert not client.has_token
        with pytest.raises(TokenMissing, match=r"client \d+ has no GHL token.*private integration.*clients set-token"):
            location_access(connection, cipher, LOCATION)
        assert set_token(connection, cipher, "Acme", TOKEN).has_token
        assert location_access(connection, cipher, LOCATION).token == TOKEN
        with pytest.raises(InvalidInput, match="The token must be"):
            set_token(connection, cipher, "Acme", SecretStr("a b"))
        connection.execute(update(clients).values(ghl_token_encrypted="of another key"))
        with pytest.raises(TokenUnreadable):
            location_access(connection, cipher, LOCATION)
