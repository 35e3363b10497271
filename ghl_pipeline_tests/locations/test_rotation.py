"""A client's token is rotated: the new one is tried, the old one stays in reserve, and work goes on with either."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.contact_writer import open_writer
from ghl_pipeline.ghl.errors import GhlServerError, LocationAccessDenied, TokenRejected
from ghl_pipeline.ghl.location_tokens import LocationTokens, Which
from ghl_pipeline.ghl.standard_fields import StandardFields
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.locations.clients import (
    LocationAccess,
    TokenMissing,
    add_client,
    find_client,
    list_clients,
    location_access,
    set_token,
)
from ghl_pipeline.locations.opening import call_options, client_opener
from ghl_pipeline.locations.rotation import (
    OVERLAP,
    begin_rotation,
    forget_previous_tokens,
    store_rotation,
    tried,
    untried,
)
from ghl_pipeline.operations.doctor import examine_locations
from ghl_pipeline.operations.findings import Check, Level
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@dataclass
class Rotating:
    """A client with a location in the sandbox, and what an operator does with its token."""

    engine: Engine
    sandbox: Sandbox
    ghl: Location
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet(Fernet.generate_key())], "this test"))

    @property
    def settings(self) -> Settings:
        return Settings(api_url=self.sandbox.url, max_attempts=2, database_url=None)

    def open(self) -> Any:
        """A client on the location, with what is stored now."""
        return client_opener(self.settings, self.engine)(self.access())

    def access(self) -> LocationAccess:
        with self.engine.connect() as connection:
            return location_access(connection, self.cipher, self.ghl.id)

    def rotate(self, new: str, *, check: bool = False) -> datetime:
        """What `clients rotate-token` does."""
        with self.engine.connect() as connection:
            rotation = begin_rotation(connection, self.cipher, self.ghl.id, SecretStr(new))
        if check:
            rotation = asyncio.run(tried(rotation, client_opener(self.settings, self.engine, interactive=True)))
        else:
            rotation = untried(rotation)
        with self.engine.begin() as connection:
            return store_rotation(connection, self.cipher, rotation)

    def end_overlap(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE clients SET previous_token_until = now() - interval '1 second'"))

    def stored(self) -> tuple[Any, Any, Any]:
        query = "SELECT ghl_token_encrypted, previous_token_encrypted, updated_at FROM clients"
        with self.engine.connect() as connection:
            return tuple(connection.execute(text(query)).one())

    def requests(self) -> int:
        return int(self.sandbox.stats(self.ghl.id)["requests"])


@pytest.fixture
def place(engine: Engine, sandbox: Sandbox) -> Rotating:
    rotating = Rotating(engine, sandbox, sandbox.add_location(requests=10_000))
    with engine.begin() as connection:
        add_client(
            connection, rotating.cipher, name="Acme", location_id=rotating.ghl.id, token=SecretStr(rotating.ghl.token)
        )
    return rotating


# --- storing


def test_the_new_token_is_stored_and_the_old_one_is_kept_for_seven_days(place: Rotating) -> None:
    new = place.sandbox.world.rotate_token(place.ghl.id)
    until = place.rotate(new, check=True)
    access = place.access()
    assert access.token.get_secret_value() == new
    assert access.previous_token is not None
    assert access.previous_token.get_secret_value() == place.ghl.token
    assert access.previous_until == until
    assert abs(until - datetime.now(UTC) - OVERLAP) < timedelta(minutes=1)
    assert new not in repr(access)
    assert place.ghl.token not in repr(access)
    assert not {new, place.ghl.token} & {str(value) for value in place.stored()}


def test_a_token_that_ghl_refuses_is_not_stored(place: Rotating) -> None:
    before = place.stored()
    with pytest.raises(InvalidInput, match="refused the new token, so nothing was stored"):
        place.rotate("pit-mistyped", check=True)
    assert place.stored() == before


def test_a_token_of_another_location_is_not_stored(place: Rotating) -> None:
    other = place.sandbox.add_location()
    before = place.stored()
    with pytest.raises(InvalidInput, match="of another location") as raised:
        place.rotate(other.token, check=True)
    assert other.token not in str(raised.value)
    assert place.stored() == before


def test_a_token_without_the_scope_for_the_record_is_tried_by_a_search(place: Rotating) -> None:
    new = place.sandbox.world.rotate_token(place.ghl.id)
    place.sandbox.faults(place.ghl.id, missing_scopes=["locations.readonly"])
    place.rotate(new, check=True)
    assert place.requests() == 2


def test_when_ghl_is_down_nothing_is_stored_and_no_check_stores_it(place: Rotating) -> None:
    new = place.sandbox.world.rotate_token(place.ghl.id)
    place.sandbox.faults(place.ghl.id, error_rate=1.0)
    before = place.stored()
    with pytest.raises(GhlServerError):
        place.rotate(new, check=True)
    assert place.stored() == before
    place.rotate(new)
    assert place.stored() != before


def test_the_same_token_again_is_no_rotation(place: Rotating) -> None:
    with pytest.raises(InvalidInput, match="has this token already"):
        place.rotate(f" {place.ghl.token} ")
    with pytest.raises(InvalidInput, match=r"^The token must be"):
        place.rotate("two words")


def test_a_client_without_a_token_has_nothing_to_rotate(place: Rotating) -> None:
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET ghl_token_encrypted = NULL"))
    with pytest.raises(TokenMissing, match="clients set-token"):
        place.rotate("pit-new")


def test_a_token_that_somebody_stores_meanwhile_is_not_overwritten(place: Rotating) -> None:
    with place.engine.connect() as connection:
        rotation = begin_rotation(connection, place.cipher, "Acme", SecretStr("pit-rotated"))
    with place.engine.begin() as connection:
        set_token(connection, place.cipher, "Acme", SecretStr("pit-somebody-elses"))
    with place.engine.begin() as connection, pytest.raises(InvalidInput, match="changed by somebody else"):
        store_rotation(connection, place.cipher, rotation)
    assert place.access().token.get_secret_value() == "pit-somebody-elses"


def test_a_second_rotation_keeps_the_token_that_works(place: Rotating) -> None:
    """The first new one was mistyped and stored unchecked: what works is the one before it."""
    place.rotate("pit-mistyped")
    first_until = place.access().previous_until
    new = place.sandbox.world.rotate_token(place.ghl.id)
    assert place.rotate(new, check=True) == first_until
    access = place.access()
    assert access.token.get_secret_value() == new
    assert access.previous_token is not None
    assert access.previous_token.get_secret_value() == place.ghl.token
    newer = place.sandbox.world.rotate_token(place.ghl.id)
    place.rotate(newer, check=True)
    kept = place.access().previous_token
    assert kept is not None
    assert kept.get_secret_value() == new


def test_a_second_token_that_cannot_be_tried_does_not_push_out_the_one_that_may_work(place: Rotating) -> None:
    place.rotate("pit-mistyped")
    before = place.stored()
    with pytest.raises(InvalidInput, match="could push out the one that works") as raised:
        place.rotate("pit-mistyped-again")
    assert "clients set-token" in str(raised.value)
    assert "pit-" not in str(raised.value)
    assert place.stored() == before
    place.end_overlap()
    place.rotate("pit-mistyped-again")
    assert place.stored() != before


def test_set_token_and_an_import_forget_the_one_before(place: Rotating) -> None:
    place.rotate("pit-new")
    with place.engine.begin() as connection:
        assert set_token(connection, place.cipher, "Acme", SecretStr("pit-newer")).previous_token_until is None
    assert place.access().previous_token is None
    assert place.stored()[1] is None


def test_the_old_token_is_deleted_after_the_overlap_without_looking_like_a_change(place: Rotating) -> None:
    place.rotate("pit-new")
    with place.engine.begin() as connection:
        assert forget_previous_tokens(connection) == 0
    assert place.access().previous_token is not None
    place.end_overlap()
    assert place.access().previous_token is None
    _, kept, changed_at = place.stored()
    assert kept is not None
    with place.engine.begin() as connection:
        assert forget_previous_tokens(connection, dry_run=True) == 1
        assert forget_previous_tokens(connection) == 1
        assert forget_previous_tokens(connection) == 0
        assert find_client(connection, "Acme").previous_token_until is None
    assert place.stored()[1:] == (None, changed_at)


def test_an_old_token_that_no_key_reads_keeps_nobody_from_working(place: Rotating) -> None:
    place.rotate("pit-new")
    stranger = TokenCipher([Fernet(Fernet.generate_key())], "another test").encrypt("pit-old")
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET previous_token_encrypted = :text"), {"text": stranger})
    access = place.access()
    assert access.token.get_secret_value() == "pit-new"
    assert access.previous_token is None


# --- calling


async def test_a_new_token_that_is_not_active_yet_costs_one_call(
    place: Rotating, caplog: pytest.LogCaptureFixture
) -> None:
    place.rotate("pit-active-later")
    caplog.set_level(logging.DEBUG)
    async with place.open() as client:
        for _ in range(3):
            assert (await client.location()).time_zone
        assert client.uses_previous_token
        # The refused call and the one with the old token; then the old one is used at once. A refused token is a
        # stranger to the sandbox, which counts its request apart.
        assert client.usage.calls == 4
        assert place.requests() == 3
    assert sum(place.sandbox.world.unidentified.values()) == 1
    switches = [record.getMessage() for record in caplog.records if "refused its new token" in record.getMessage()]
    assert len(switches) == 1
    assert place.ghl.id in switches[0]
    assert "pit-" not in caplog.text
    assert place.ghl.token not in caplog.text


async def test_the_next_client_begins_with_the_new_token(place: Rotating) -> None:
    place.rotate("pit-active-later")
    async with place.open() as client:
        await client.location()
        assert client.uses_previous_token
    place.sandbox.world.take_token(place.ghl.id, "pit-active-later")
    async with place.open() as client:
        await client.location()
        assert not client.uses_previous_token
        assert client.usage.calls == 1


async def test_an_old_token_that_ends_early_gives_way_to_the_new_one(place: Rotating) -> None:
    place.rotate("pit-active-later")
    async with place.open() as client:
        await client.location()
        place.sandbox.world.take_token(place.ghl.id, "pit-active-later")
        place.sandbox.world.revoke_token(place.ghl.token)
        await client.location()
        assert not client.uses_previous_token
        assert client.usage.calls == 4


async def test_an_old_token_that_was_revoked_is_not_noticed_where_the_new_one_works(place: Rotating) -> None:
    place.rotate(place.sandbox.world.rotate_token(place.ghl.id))
    place.sandbox.world.revoke_token(place.ghl.token)
    async with place.open() as client:
        await client.location()
        assert client.usage.calls == 1


async def test_after_the_overlap_the_old_token_is_never_used(place: Rotating) -> None:
    place.rotate("pit-wrong")
    place.end_overlap()
    async with place.open() as client:
        with pytest.raises(TokenRejected) as raised:
            await client.location()
        assert client.usage.calls == 1
    assert "too" not in str(raised.value)
    assert place.requests() == 0


async def test_the_overlap_may_end_while_a_client_is_open(place: Rotating) -> None:
    place.rotate("pit-wrong")
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET previous_token_until = now() + interval '0.5 second'"))
    async with place.open() as client:
        await asyncio.sleep(0.6)
        with pytest.raises(TokenRejected):
            await client.location()
        assert client.usage.calls == 1


async def test_the_old_token_is_not_used_after_its_time_although_ghl_still_takes_it() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    tokens = LocationTokens(
        "LocationOne", SecretStr("pit-new"), SecretStr("pit-old"), now[0] + timedelta(days=7), clock=lambda: now[0]
    )
    tokens.settle_on(Which.PREVIOUS)
    now[0] += timedelta(days=6, hours=23)
    assert tokens.first() is Which.PREVIOUS
    now[0] += timedelta(hours=1)
    assert tokens.first() is tokens.in_use is Which.CURRENT
    assert tokens.instead_of(Which.CURRENT) is None


async def test_a_client_that_works_with_the_old_token_leaves_it_when_its_time_is_over(place: Rotating) -> None:
    place.rotate("pit-wrong")
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET previous_token_until = now() + interval '2 seconds'"))
    async with place.open() as client:
        await client.location()
        assert client.uses_previous_token
        await asyncio.sleep(2.1)
        with pytest.raises(TokenRejected):
            await client.location()
    assert place.requests() == 1


async def test_both_refused_is_one_error_that_says_so(place: Rotating) -> None:
    place.rotate("pit-wrong")
    place.sandbox.world.revoke_token(place.ghl.token)
    async with place.open() as client:
        with pytest.raises(TokenRejected, match=r"refused the token, and the one before it, too\. .*clients set-token"):
            await client.location()
        assert client.usage.calls == 2
        with pytest.raises(TokenRejected) as raised:
            await client.users()
    shown = "".join(map(str, (raised.value, raised.value.__cause__, raised.value.__context__)))
    assert "pit-" not in shown
    assert place.ghl.token not in shown


async def test_a_refusal_for_another_reason_is_no_reason_to_change_the_token(place: Rotating) -> None:
    other = place.sandbox.add_location()
    place.rotate(other.token)
    async with place.open() as client:
        with pytest.raises(LocationAccessDenied):
            await client.location()
        assert client.usage.calls == 1


async def test_many_calls_at_once_change_the_token_once(place: Rotating, caplog: pytest.LogCaptureFixture) -> None:
    place.rotate("pit-active-later")
    async with place.open() as client:
        records = await asyncio.gather(*(client.location() for _ in range(15)))
        assert len(records) == 15
        assert client.usage.calls <= 30
    assert caplog.text.count("refused its new token") == 1
    assert place.requests() == 15


async def test_what_creates_a_contact_falls_back_too_and_creates_it_once(place: Rotating) -> None:
    place.rotate("pit-active-later")
    options = call_options(place.settings, place.engine, place.access(), interactive=True)
    async with open_writer(**options) as writer:
        await writer.create(StandardFields(email="ada@example.com", first_name="Ada"))
    assert len(place.ghl.contacts) == 1
    assert place.sandbox.stats(place.ghl.id)["creates"] == 1


async def test_a_rotation_in_the_middle_of_a_hydration_stops_nothing(place: Rotating) -> None:
    """The run has the old token in its hands, which GHL takes for 7 more days; the next one uses the new token."""
    with place.engine.begin() as connection:
        for number in range(60):
            place.ghl.add(email=f"person.{number}@example.com", first_name="Ada", phone=f"+1305555{100 + number:04}")
            connection.execute(
                text("INSERT INTO leads (client_id, email) SELECT id, :email FROM clients"),
                {"email": f"person.{number}@example.com"},
            )
    new = place.sandbox.world.rotate_token(place.ghl.id)
    calls = 0

    @asynccontextmanager
    async def opened(access: LocationAccess) -> AsyncIterator[LocationClient]:
        nonlocal calls
        async with client_opener(place.settings, place.engine)(access) as client:
            search = client.search_contacts

            async def rotates_then_searches(wanted: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == 2:
                    await asyncio.to_thread(place.rotate, new)
                return await search(wanted)

            client.search_contacts = rotates_then_searches  # type: ignore[method-assign, assignment]
            yield client

    hydration = Hydration(engine=place.engine, cipher=place.cipher, open_client=opened, default_group_size=10)
    result = await hydration.run([place.ghl.id], RememberedHistory(), Options())
    assert calls > 2
    assert not result.failures
    with place.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM leads WHERE ghl_contact_id <> ''")).scalar() == 60
    async with place.open() as client:
        await client.location()
        assert not client.uses_previous_token


# --- what an operator sees


async def test_the_doctor_says_that_the_old_token_is_what_works(place: Rotating) -> None:
    until = place.rotate("pit-active-later")
    findings = await examine_locations(
        [place.ghl.id],
        settings=place.settings,
        engine=place.engine,
        cipher=place.cipher,
        open_client=client_opener(place.settings, place.engine, interactive=True),
    )
    (token,) = [finding for finding in findings if finding.check is Check.TOKEN]
    assert token.level is Level.WARNING
    assert f"{until:%Y-%m-%d %H:%M}" in token.text
    assert "rotate-token" in token.advice
    assert [finding for finding in findings if finding.level is Level.PROBLEM] == []


def test_the_list_of_clients_tells_until_when(place: Rotating) -> None:
    until = place.rotate("pit-new")
    with place.engine.connect() as connection:
        assert [client.previous_token_until for client in list_clients(connection)] == [until]
