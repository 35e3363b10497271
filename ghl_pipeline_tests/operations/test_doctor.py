"""The doctor against a sandbox: what it finds, what it leaves alone, and what it keeps for the plan."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.locations.clients import LocationAccess, add_client
from ghl_pipeline.locations.learning import load_learned
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.operations.doctor import OpenClient, examine_locations
from ghl_pipeline.operations.findings import Check, Finding, Level
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import Unlimited

Examine = Callable[..., Coroutine[Any, Any, dict[Check, Finding]]]


@pytest.fixture
def cipher(project: Settings) -> TokenCipher:
    return TokenCipher.from_settings(project)


@pytest.fixture
def location(sandbox: Sandbox, engine: Engine, cipher: TokenCipher) -> Location:
    """A client's location where all is well."""
    location = sandbox.add_location(contacts=crowd(600, "doctor"))
    location.add(email="Ada@Example.com", date_added=0)
    return added(location, engine, cipher)


def added(location: Location, engine: Engine, cipher: TokenCipher, token: str | None = None) -> Location:
    """The location, with a client of ours to it."""
    with engine.begin() as connection:
        add_client(
            connection,
            cipher,
            name=f"Client of {location.id}",
            location_id=location.id,
            token=SecretStr(token or location.token),
            time_zone="America/New_York",
        )
    return location


@pytest.fixture
def opener(project: Settings, engine: Engine) -> OpenClient:
    """Clients as the command line opens them, which try twice only."""
    return client_opener(project.model_copy(update={"max_attempts": 2}), engine)


@pytest.fixture
def examine(
    project: Settings,
    engine: Engine,
    cipher: TokenCipher,
    opener: OpenClient,
) -> Examine:
    """The findings of one location that are not well, by check; several of one check are joined."""

    async def run(location: Location, **changes: Any) -> dict[Check, Finding]:
        given: dict[str, Any] = {"settings": project, "engine": engine, "cipher": cipher, "open_client": opener}
        given |= changes
        findings = await examine_locations([location.id], **given)
        assert {finding.location for finding in findings} == {location.id}
        for finding in findings:
            assert finding.level is Level.OK or finding.advice, finding
            assert location.token not in str(finding)
            assert "@" not in str(finding), "no address of anybody"
        return {finding.check: finding for finding in findings if finding.level is not Level.OK}

    return run


async def test_where_all_is_well_every_check_says_so_with_fewer_than_twenty_calls_that_change_nothing(
    sandbox: Sandbox, location: Location, project: Settings, engine: Engine, cipher: TokenCipher, opener: OpenClient
) -> None:
    findings = await examine_locations(
        [location.id], settings=project, engine=engine, cipher=cipher, open_client=opener
    )
    this_side = {Check.SETTINGS, Check.TOKEN_KEYS, Check.DATABASE, Check.CLIENTS}
    assert {finding.check for finding in findings} == set(Check) - this_side
    assert {finding.level for finding in findings} == {Level.OK}
    stats = sandbox.stats(location.id)
    assert stats["by_route"] == {
        "GET /locations/{id}": {"200": 1},
        "GET /users/": {"200": 1},
        "POST /contacts/search": {"200": 1 + 5 + 1},
    }
    assert stats["creates"] == stats["updates"] == stats["deletes"] == 0


async def test_what_the_search_takes_is_kept_for_the_plan(
    sandbox: Sandbox, location: Location, engine: Engine, examine: Examine
) -> None:
    sandbox.faults(or_answers_first_leaves=30, case_sensitive_email=True)
    found = await examine(location)
    assert found.keys() == {Check.GROUPS, Check.LETTER_CASE}
    assert "up to 25 addresses" in found[Check.GROUPS].text
    assert sandbox.stats(location.id)["requests"] < 20
    learned = load_learned(engine, location.id, 50)
    assert (learned.group_size, learned.groups_are_wrong, learned.case_matters) == (25, False, True)
    assert (learned.contacts, learned.survey_is_due) == (601, False)


async def test_groups_that_are_answered_wrongly_at_every_size_need_action(
    sandbox: Sandbox, location: Location, engine: Engine, examine: Examine
) -> None:
    sandbox.faults(or_answers_first_leaf_only=True)
    found = await examine(location)
    assert (set(found), found[Check.GROUPS].level) == ({Check.GROUPS}, Level.PROBLEM)
    assert sandbox.stats(location.id)["requests"] < 20
    assert load_learned(engine, location.id, 50).groups_are_wrong


@pytest.mark.parametrize(
    ("scope", "level", "missed"),
    [
        ("contacts.readonly", Level.PROBLEM, "no contact can be looked up"),
        ("locations.readonly", Level.WARNING, "time zone"),
        ("users.readonly", Level.WARNING, "staff"),
    ],
)
async def test_a_missing_scope_is_named_with_what_does_not_work_without(
    sandbox: Sandbox, location: Location, examine: Examine, scope: str, level: Level, missed: str
) -> None:
    sandbox.faults(missing_scopes=[scope])
    found = await examine(location)
    assert found.keys() == {Check.SCOPES}
    assert (found[Check.SCOPES].level, "agency" in found[Check.SCOPES].advice) == (level, False)
    assert f"{scope} is missing" in found[Check.SCOPES].text
    assert missed in found[Check.SCOPES].text


async def test_a_token_without_any_scope_may_be_an_agency_s(
    sandbox: Sandbox, location: Location, examine: Examine
) -> None:
    sandbox.faults(missing_scopes=["contacts.readonly", "locations.readonly", "users.readonly"])
    assert "agency" in (await examine(location))[Check.SCOPES].advice


async def test_a_revoked_token_is_found_with_one_call(sandbox: Sandbox, location: Location, examine: Examine) -> None:
    sandbox.faults(token_revoked=True)
    found = await examine(location)
    assert (set(found), found[Check.TOKEN].level) == ({Check.TOKEN}, Level.PROBLEM)
    assert f"ghl-pipeline clients set-token {location.id}" in found[Check.TOKEN].advice
    assert sandbox.stats(location.id)["requests"] == 1


async def test_the_token_of_another_location_is_found(
    sandbox: Sandbox, engine: Engine, cipher: TokenCipher, examine: Examine
) -> None:
    other = sandbox.add_location()
    mistaken = added(sandbox.add_location(), engine, cipher, token=other.token)
    found = await examine(mistaken)
    assert (set(found), found[Check.ACCESS].level) == ({Check.ACCESS}, Level.PROBLEM)
    assert "same sub-account" in found[Check.ACCESS].advice


async def test_a_client_without_a_token_and_one_whose_token_no_key_fits(
    sandbox: Sandbox, engine: Engine, location: Location, examine: Examine
) -> None:
    strange = TokenCipher.from_settings(Settings(token_keys=SecretStr(Fernet.generate_key().decode())))
    assert "cannot be decrypted" in (await examine(location, cipher=strange))[Check.TOKEN].text
    with engine.begin() as connection:
        connection.execute(text("UPDATE clients SET ghl_token_encrypted = NULL"))
    assert "has no GHL token" in (await examine(location))[Check.TOKEN].text
    assert sandbox.stats(location.id)["requests"] == 0


async def test_the_smaller_limits_of_a_sandbox_account_are_pointed_out(
    sandbox: Sandbox, engine: Engine, cipher: TokenCipher, examine: Examine
) -> None:
    location = sandbox.add_location(requests=25, requests_per_day=10_000)
    found = await examine(added(location, engine, cipher))
    assert found.keys() == {Check.RATE_LIMIT, Check.DAILY_LIMIT}
    assert "25 requests per 10 s" in found[Check.RATE_LIMIT].text
    assert "10,000 requests a day" in found[Check.DAILY_LIMIT].text
    assert sandbox.stats(location.id)["refused_429"] == 0


async def test_a_day_that_is_used_up(sandbox: Sandbox, engine: Engine, cipher: TokenCipher, examine: Examine) -> None:
    found = await examine(added(sandbox.add_location(requests_per_day=1), engine, cipher))
    assert found[Check.DAILY_LIMIT].level is Level.PROBLEM


async def test_what_differs_between_the_location_s_record_and_its_client(
    sandbox: Sandbox, engine: Engine, cipher: TokenCipher, examine: Examine
) -> None:
    location = sandbox.add_location(time_zone="Europe/Berlin", allow_duplicates=True, contacts=crowd(3, "few"))
    found = await examine(added(location, engine, cipher))
    assert found.keys() == {Check.TIME_ZONE, Check.DUPLICATES}
    assert {finding.level for finding in found.values()} == {Level.WARNING}


async def test_a_clock_that_is_wrong_by_an_hour(sandbox: Sandbox, location: Location, examine: Examine) -> None:
    def an_hour_ahead(request: httpx.Request) -> httpx.Response:
        moment = formatdate(sandbox.world.clock() + 3600, usegmt=True)
        return httpx.Response(200, json={"contacts": [], "total": 0}, headers={"Date": moment})

    def open_for(access: LocationAccess) -> AbstractAsyncContextManager[LocationClient]:
        return open_client(
            base_url="https://ghl.example",
            location_id=access.location_id,
            token=access.token,
            throttle=Unlimited(),
            policy=RetryPolicy(max_attempts=1),
            timeout_seconds=10.0,
            transport=httpx.MockTransport(an_hour_ahead),
        )

    found = await examine(location, open_client=open_for)
    assert found[Check.CLOCK].level is Level.WARNING
    assert "behind that of GHL" in found[Check.CLOCK].text


async def test_one_broken_location_stops_no_other(
    sandbox: Sandbox, location: Location, project: Settings, engine: Engine, cipher: TokenCipher, opener: OpenClient
) -> None:
    broken, odd = (added(sandbox.add_location(), engine, cipher) for _ in range(2))
    sandbox.faults(broken.id, error_rate=1.0)

    def open_for(access: LocationAccess) -> AbstractAsyncContextManager[LocationClient]:
        if access.location_id == odd.id:
            raise ZeroDivisionError("a bug that quotes ada@example.com")
        return opener(access)

    findings = await examine_locations(
        [broken.id, odd.id, location.id, broken.id],
        settings=project, engine=engine, cipher=cipher, open_client=open_for,
    )  # fmt: skip
    problems = {finding.location: finding for finding in findings if finding.level is not Level.OK}
    assert problems.keys() == {broken.id, odd.id}
    assert "GhlServerError" in problems[broken.id].text
    assert "ZeroDivisionError" in problems[odd.id].text
    assert "ada" not in str(problems[odd.id])
    assert list(dict.fromkeys(finding.location for finding in findings)) == [broken.id, odd.id, location.id]


async def test_a_search_that_fails_on_groups_only_is_a_warning_and_nothing_is_kept(
    sandbox: Sandbox, location: Location, engine: Engine, examine: Examine
) -> None:
    sandbox.faults(max_or_leaves=1, or_refusal_status=500)
    found = await examine(location)
    assert (set(found), found[Check.GROUPS].level) == ({Check.GROUPS}, Level.WARNING)
    assert load_learned(engine, location.id, 50).survey_is_due
