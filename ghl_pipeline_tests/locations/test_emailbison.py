"""A client's EmailBison workspace: stored once, its token never for another instance, its mark never back."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, select

from ghl_pipeline.database.tables import emailbison_workspaces
from ghl_pipeline.errors import InvalidInput, UnknownClient
from ghl_pipeline.locations.clients import ClientInactive, add_client, deactivate_client
from ghl_pipeline.locations.emailbison import (
    Workspace,
    events_were_seen,
    find_workspace,
    locations_with_workspace,
    set_workspace,
    valid_base_url,
    workspace_access,
)
from ghl_pipeline.privacy.tokens import TokenCipher, TokenUnreadable

LOCATION, OTHER = "ve9EPM428h8vShlRW1KT", "otherLocation0000001"
URL, TOKEN = "https://bison.example.com", SecretStr("9|q8kOfNobody")
NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
def cipher() -> TokenCipher:
    return TokenCipher([Fernet(Fernet.generate_key())], "this test")


@pytest.fixture
def connection(engine: Engine, cipher: TokenCipher) -> Iterator[Connection]:
    with engine.connect() as opened:
        add_client(opened, cipher, name="Acme", location_id=LOCATION)
        add_client(opened, cipher, name="Other", location_id=OTHER)
        yield opened


def put(
    connection: Connection,
    cipher: TokenCipher,
    which: str = LOCATION,
    *,
    base_url: str = URL,
    workspace_id: int = 42,
    token: SecretStr | None = TOKEN,
) -> Workspace:
    return set_workspace(connection, cipher, which, base_url=base_url, workspace_id=workspace_id, token=token)


def test_a_workspace_is_found_with_its_token_which_is_stored_encrypted(
    connection: Connection, cipher: TokenCipher
) -> None:
    stored = put(connection, cipher, "acme", base_url=" https://Bison.example.com/api/ ")
    access = workspace_access(connection, cipher, LOCATION)

    assert (stored.base_url, stored.workspace_id, stored.has_token) == (URL, 42, True)
    assert find_workspace(connection, LOCATION) == stored
    assert access is not None
    assert access.token == TOKEN
    assert "q8k" not in f"{access!r} {stored!r}"
    kept = connection.execute(select(emailbison_workspaces.c.token_encrypted)).scalar_one()
    assert kept is not None
    assert "q8k" not in kept


def test_the_token_is_kept_for_the_same_workspace_and_dropped_for_another(
    connection: Connection, cipher: TokenCipher
) -> None:
    put(connection, cipher)
    assert put(connection, cipher, token=None).has_token
    moved = put(connection, cipher, token=None, base_url="https://elsewhere.example.net")
    assert not moved.has_token
    assert put(connection, cipher, workspace_id=43).has_token
    assert not put(connection, cipher, workspace_id=44, token=None).has_token


def test_another_workspace_is_looked_through_from_the_beginning(connection: Connection, cipher: TokenCipher) -> None:
    put(connection, cipher)
    access = workspace_access(connection, cipher, LOCATION)
    assert access is not None
    events_were_seen(connection, access, NOON)

    same, other = put(connection, cipher), put(connection, cipher, workspace_id=43)
    events_were_seen(connection, access, NOON)  # of the workspace that was
    after = find_workspace(connection, LOCATION)

    assert (same.events_seen_until, other.events_seen_until) == (NOON, None)
    assert after is not None
    assert after.events_seen_until is None


def test_after_another_token_the_log_is_looked_through_from_the_beginning(
    connection: Connection, cipher: TokenCipher
) -> None:
    put(connection, cipher)
    access = workspace_access(connection, cipher, LOCATION)
    assert access is not None
    events_were_seen(connection, access, NOON)

    assert put(connection, cipher, token=None).events_seen_until == NOON
    assert put(connection, cipher, token=TOKEN).events_seen_until == NOON
    assert put(connection, cipher, token=SecretStr("10|ofAnotherWorkspace")).events_seen_until is None
    events_were_seen(connection, access, NOON)  # a look that the token before had begun
    after = find_workspace(connection, LOCATION)
    assert after is not None
    assert after.events_seen_until is None


def test_the_mark_moves_forward_only(connection: Connection, cipher: TokenCipher) -> None:
    put(connection, cipher)
    access = workspace_access(connection, cipher, LOCATION)
    assert access is not None
    for until in (NOON, NOON - timedelta(hours=1)):
        events_were_seen(connection, access, until)
    found = find_workspace(connection, LOCATION)

    assert found is not None
    assert found.events_seen_until == NOON


def test_a_workspace_belongs_to_one_client(connection: Connection, cipher: TokenCipher) -> None:
    put(connection, cipher)

    with pytest.raises(InvalidInput, match="belongs to client"):
        put(connection, cipher, OTHER)
    assert put(connection, cipher, OTHER, base_url="https://elsewhere.example.net").workspace_id == 42


@pytest.mark.parametrize(
    ("base_url", "workspace_id", "token"),
    [
        ("http://bison.example.com", 42, TOKEN),
        ("bison.example.com", 42, TOKEN),
        ("https://user:secret@bison.example.com", 42, TOKEN),
        ("https://bison.example.com?token=secret", 42, TOKEN),
        ("https://bison.example.com:99999", 42, TOKEN),
        ("https://", 42, TOKEN),
        ("https://[::1", 42, TOKEN),
        ("https://bison.exa mple.com", 42, TOKEN),
        (URL, 0, TOKEN),
        (URL, 2**63, TOKEN),
        (URL, 42, SecretStr("secret with spaces")),
        (URL, 42, SecretStr("")),
    ],
)
def test_what_cannot_be_used_is_refused_without_quoting_it(
    connection: Connection, cipher: TokenCipher, base_url: str, workspace_id: int, token: SecretStr
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        put(connection, cipher, base_url=base_url, workspace_id=workspace_id, token=token)
    assert "secret" not in str(refusal.value)
    assert find_workspace(connection, LOCATION) is None


def test_http_is_for_this_machine_only() -> None:
    assert valid_base_url("http://127.0.0.1:8080/emailbison/") == "http://127.0.0.1:8080/emailbison"


def test_only_active_clients_that_can_be_asked_are_listed(connection: Connection, cipher: TokenCipher) -> None:
    put(connection, cipher)
    put(connection, cipher, OTHER, workspace_id=43, token=None)
    assert locations_with_workspace(connection) == [LOCATION]

    put(connection, cipher, OTHER, workspace_id=43)
    deactivate_client(connection, LOCATION)
    assert locations_with_workspace(connection) == [OTHER]


def test_who_asks_for_access_is_told_what_is_missing(connection: Connection, cipher: TokenCipher) -> None:
    assert workspace_access(connection, cipher, LOCATION) is None
    put(connection, cipher)
    with pytest.raises(TokenUnreadable):
        workspace_access(connection, TokenCipher([Fernet(Fernet.generate_key())], "another key"), LOCATION)
    with pytest.raises(UnknownClient):
        workspace_access(connection, cipher, "nobodysLocation00001")
    deactivate_client(connection, LOCATION)
    with pytest.raises(ClientInactive):
        workspace_access(connection, cipher, LOCATION)
