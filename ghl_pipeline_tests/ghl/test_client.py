"""A location's client over real HTTP: what it reads, what it never does, what it shows of itself, and its limit."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.ghl.calls import MAX_CONNECTIONS
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.errors import (
    CalendarNotFound,
    ContactNotFound,
    LocationAccessDenied,
    RequestRejected,
    ScopeMissing,
    TokenRejected,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.message_payloads import MessageExport
from ghl_pipeline.ghl.payloads import User
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.search import ContactSearch, equals
from ghl_pipeline.ghl.throttle import Limits, LocationThrottle
from ghl_pipeline.privacy.redaction import install
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import QUICK, Connector, Unlimited

EVERYBODY = ContactSearch()


def _days_ahead(days: float) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now, now + timedelta(days=days)


# --- what it reads


async def test_a_contact_is_the_same_however_it_is_found(location: Location, connect: Connector) -> None:
    stored = location.add(
        email="Ada@Example.com",
        first_name="Ada",
        last_name="O'Love\"lace",
        phone="+13055550123",
        company_name="Engines",
        additional_emails=("ada@example.org",),
    )
    client = await connect(location)
    page = await client.search_contacts(ContactSearch((equals("email", "ada@example.com"),)))
    assert page.contacts == (await client.contact(stored.id),) == (await client.duplicate_of("ada@example.com"),)
    found = page.contacts[0]
    assert (found.id, found.email, found.first_name, found.last_name) == (
        stored.id, "Ada@Example.com", "Ada", 'O\'Love"lace',
    )  # fmt: skip
    assert (found.phone, found.company_name, found.additional_emails) == (
        "+13055550123", "Engines", ("ada@example.org",),
    )  # fmt: skip
    assert found.date_updated is not None
    assert round(found.date_updated.timestamp() * 1000) == stored.date_updated


async def test_names_that_a_search_lower_cases_are_whole_in_a_get(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    stored = location.add(email="ada@example.com", first_name="Ada")
    sandbox.faults(location.id, lower_case_names_only=True)
    client = await connect(location)
    (found,) = (await client.search_contacts(EVERYBODY)).contacts
    assert (found.first_name, found.names_are_whole) == (None, False)
    assert (await client.contact(stored.id)).first_name == "Ada"


@pytest.mark.parametrize(
    "address",
    [
        "a" * 288 + "@example.com",
        "ada+news@example.com",
        "o'brien&co=x?y#z%41@example.com",
        "ädä@example.com",
        'a "quoted" one@example.com',
    ],
)
async def test_an_address_that_no_search_takes_is_found_as_a_duplicate(
    location: Location, connect: Connector, address: str
) -> None:
    stored = location.add(email=address)
    client = await connect(location)
    found = await client.duplicate_of(address)
    assert found is not None
    assert found.id == stored.id
    assert await client.duplicate_of("x" + address) is None


async def test_a_contact_that_is_gone_is_not_found(location: Location, connect: Connector) -> None:
    stored = location.add(email="ada@example.com")
    client = await connect(location)
    assert (await client.contact(stored.id)).id == stored.id
    location.remove(stored.id)
    with pytest.raises(ContactNotFound):
        await client.contact(stored.id)


@pytest.mark.parametrize("junk", ["", "test", "../locations/x", "ada@example.com", "a" * 65, "search/duplicate?a=b"])
async def test_what_cannot_be_an_id_is_not_sent(
    sandbox: Sandbox, location: Location, connect: Connector, junk: str
) -> None:
    client = await connect(location)
    with pytest.raises(ContactNotFound) as raised:
        await client.contact(junk)
    assert client.usage.calls == sandbox.stats(location.id)["requests"] == 0
    assert str(raised.value) == (
        f"ContactNotFound: location {location.id}: GET /contacts/{{contactId}} found no such contact"
    )


async def test_the_location_and_its_staff(location: Location, connect: Connector) -> None:
    client = await connect(location)
    place = await client.location()
    assert (place.id, place.time_zone, place.allows_duplicate_contacts) == (location.id, "America/New_York", False)
    staff = location.users[0]
    assert await client.users() == (User(staff.id, staff.email, staff.phone),)


async def test_the_calendars_and_their_free_times(location: Location, connect: Connector) -> None:
    roof = location.calendars.add("Roof", slug="roof-a", widget_slug="roof-b")
    off = location.calendars.add("Off", is_active=False)
    client = await connect(location)
    listed = await client.calendars()
    assert [(each.id, each.location_id, each.is_active) for each in listed] == [
        (roof.id, location.id, True), (off.id, location.id, False),
    ]  # fmt: skip
    assert await client.calendar(roof.id) == listed[0]
    assert [listed[0].is_called(name) for name in ("ROOF-A", "roof-b", "roof")] == [True, True, False]
    start, end = _days_ahead(31)
    times = await client.free_slots(roof.id, start, end)
    assert [datetime.fromisoformat(each) for each in times] == location.calendars.free(roof.id, start, end)
    with pytest.raises(RequestRejected):
        await client.free_slots(roof.id, start, end + timedelta(days=1))


@pytest.mark.parametrize("calendar_id", ["", "../contacts", "roof-inspection", "Gone0000000000000001"])
async def test_a_calendar_that_is_none_is_not_found_and_what_can_be_no_id_is_not_sent(
    sandbox: Sandbox, location: Location, connect: Connector, calendar_id: str
) -> None:
    client = await connect(location)
    with pytest.raises(CalendarNotFound):
        await client.calendar(calendar_id)
    with pytest.raises(CalendarNotFound):
        await client.free_slots(calendar_id, *_days_ahead(1))
    assert sandbox.stats(location.id)["requests"] == (2 if calendar_id.startswith("Gone") else 0)


async def test_a_contact_answer_without_a_contact_is_unreadable(connect: Connector, location: Location) -> None:
    client = await connect.answered_by(lambda _: httpx.Response(200, json={"contact": None}))
    with pytest.raises(UnreadableAnswer):
        await client.contact("ocQHyuzHvysMo5N5VsXc")


# --- whose data it reads


async def test_a_wrong_token_is_said_to_be_one(location: Location, connect: Connector) -> None:
    client = await connect(location, token="pit-00000000-0000-0000-0000-000000000000")
    with pytest.raises(TokenRejected, match="ghl-pipeline clients set-token"):
        await client.search_contacts(EVERYBODY)
    assert client.usage.calls == 1


async def test_another_location_s_token_opens_nothing(sandbox: Sandbox, connect: Connector) -> None:
    mine, other = sandbox.add_location(), sandbox.add_location()
    client = await connect(mine, token=other.token)
    for call in (
        client.search_contacts(EVERYBODY),
        client.duplicate_of("a@example.com"),
        client.location(),
        client.users(),
    ):
        with pytest.raises(LocationAccessDenied, match=f"location {mine.id}"):
            await call


async def test_a_missing_scope_is_said_to_be_one(sandbox: Sandbox, location: Location, connect: Connector) -> None:
    sandbox.faults(location.id, missing_scopes=["users.readonly"])
    client = await connect(location)
    await client.search_contacts(EVERYBODY)
    with pytest.raises(ScopeMissing, match=r"users\.readonly"):
        await client.users()


async def test_clients_side_by_side_keep_their_locations_apart(sandbox: Sandbox, connect: Connector) -> None:
    locations = [sandbox.add_location() for _ in range(5)]
    for location in locations:
        location.add(email="shared@example.com", first_name=location.id)
    clients = [await connect(location) for location in locations]
    pages = await asyncio.gather(*(client.search_contacts(EVERYBODY) for client in clients * 3))
    assert [page.contacts[0].first_name for page in pages] == [location.id for location in locations] * 3


# --- what it never does


async def test_nothing_that_the_client_can_do_writes(sandbox: Sandbox, location: Location, connect: Connector) -> None:
    """Every public method is called here; one that is added has to be added below, and may not change anything."""
    stored = location.add(email="ada@example.com")
    calendar = location.calendars.add("Roof")
    before = dict(location.contacts.by_id)
    client = await connect(location)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "search_contacts": lambda: client.search_contacts(EVERYBODY),
        "contact": lambda: client.contact(stored.id),
        "duplicate_of": lambda: client.duplicate_of("nobody@example.com"),
        "location": client.location,
        "users": client.users,
        "custom_fields": client.custom_fields,
        "opportunities": client.opportunities,
        "exported_messages": lambda: client.exported_messages(MessageExport()),
        "calendars": client.calendars,
        "calendar": lambda: client.calendar(calendar.id),
        "free_slots": lambda: client.free_slots(calendar.id, *_days_ahead(31)),
    }
    public = {name for name, _ in inspect.getmembers(LocationClient, inspect.isfunction) if not name.startswith("_")}
    assert public == {*calls, "search_all_pages"}
    for call in calls.values():
        await call()
    assert [page async for page in client.search_all_pages(EVERYBODY)]

    stats = sandbox.stats(location.id)
    assert (stats["creates"], stats["updates"], stats["deletes"]) == (0, 0, 0)
    assert location.contacts.by_id == before
    methods = {route.split()[0] for route in stats["by_route"]}
    assert methods == {"GET", "POST"}
    assert [route for route in stats["by_route"] if route.startswith("POST")] == ["POST /contacts/search"]


# --- what it shows of itself


async def test_no_repr_and_no_log_shows_the_token_or_an_address(
    location: Location, connect: Connector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_REDACT_USER_CODE_ERRORS", "1")  # set by install(), and here unset again
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "httpcore", "httpx", "urllib3")}
    factory = logging.getLogRecordFactory()
    try:
        install()
        caplog.set_level(logging.DEBUG)
        client = await connect(location)
        await client.duplicate_of("ada.lovelace@example.com")
        with pytest.raises(RequestRejected):
            await client.search_contacts(ContactSearch((equals("unknown", "ada.lovelace@example.com"),)))
    finally:
        logging.setLogRecordFactory(factory)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    shown = "\n".join(
        [caplog.text, repr(client), repr(client._calls), repr(client._calls._http.headers), repr(client.usage)]
    )
    assert repr(client) == f"LocationClient({location.id})"
    assert location.token not in shown
    for spelling in ("ada.lovelace@example.com", quote("ada.lovelace@example.com")):
        assert spelling not in shown


async def test_usage_tells_routes_and_statuses_and_no_ids(location: Location, connect: Connector) -> None:
    stored = location.add(email="ada@example.com")
    client = await connect(location)
    await client.contact(stored.id)
    with pytest.raises(ContactNotFound):
        await client.contact("x" * 20)
    assert client.usage.calls == 2


async def test_opening_a_client_asks_nothing(location: Location) -> None:
    async with open_client(
        base_url="http://127.0.0.1:9",
        location_id=location.id,
        token=SecretStr(location.token),
        throttle=Unlimited(),
        policy=QUICK,
        timeout_seconds=1,
    ) as client:
        assert client.usage.calls == 0


# --- its limit

PATIENT = RetryPolicy(first_pause_seconds=0.01)
# Windows are ten times shorter than GHL's, so the throttle's guard against jitter is too: 15 ms, which a busy test
# machine exceeds. The server therefore allows more than the client takes, and the peak may be this much over.
JITTER = 1.2


def limit_of(engine: Engine, location: Location, requests: int, seconds: float) -> LocationThrottle:
    return LocationThrottle(engine, location.id, Limits(requests, seconds, 200_000))


async def test_a_hundred_calls_at_once_keep_the_limit(engine: Engine, sandbox: Sandbox, connect: Connector) -> None:
    location = sandbox.add_location(requests=50, time_scale=0.1)
    client = await connect(location, limit_of(engine, location, 25, 1.0), policy=PATIENT)
    await asyncio.gather(*(client.search_contacts(EVERYBODY) for _ in range(100)))
    stats = sandbox.stats(location.id)
    assert stats["refused_429"] == 0
    assert stats["requests"] == client.usage.calls == 100
    assert stats["highest_in_window"] <= 25 * JITTER
    assert client.usage.waited_seconds > 3


async def test_no_slot_is_taken_before_there_is_a_connection_to_use_it(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    """Slots taken while GHL is slow and every connection is busy would all be used at once when it recovers."""
    throttle = Unlimited()
    client = await connect(location, throttle)
    sandbox.faults(location.id, latency_seconds=1.0)
    calls = asyncio.gather(*(client.search_contacts(EVERYBODY) for _ in range(3 * MAX_CONNECTIONS)))
    await asyncio.sleep(0.3)
    assert throttle.acquired == MAX_CONNECTIONS
    sandbox.faults()
    await calls
    assert throttle.acquired == 3 * MAX_CONNECTIONS


async def test_the_limit_of_a_small_account_is_learned_from_the_first_answer(
    engine: Engine, sandbox: Sandbox, connect: Connector
) -> None:
    location = sandbox.add_location(requests=25, time_scale=0.1)  # GHL's sandbox accounts: 25 instead of 100
    client = await connect(location, limit_of(engine, location, 90, 1.0), policy=PATIENT)
    await client.search_contacts(EVERYBODY)
    await asyncio.gather(*(client.search_contacts(EVERYBODY) for _ in range(59)))
    # What was not refused is in the window; a refusal or two of a busy machine cost time, not the limit.
    stats = sandbox.stats(location.id)
    assert stats["highest_in_window"] <= 25
    assert stats["refused_429"] <= 2


async def test_the_headers_reach_the_throttle_and_senseless_ones_do_not(sandbox: Sandbox, connect: Connector) -> None:
    location = sandbox.add_location(requests=25, time_scale=0.5)
    throttle = Unlimited()
    await (await connect(location, throttle)).search_contacts(EVERYBODY)
    assert throttle.learned == [(25, 5.0)]

    for headers in ({}, {"X-RateLimit-Max": "25"}, {"X-RateLimit-Max": "x", "X-RateLimit-Interval-Milliseconds": "y"}):
        answer = httpx.Response(200, json={"contacts": []}, headers=headers)
        client = await connect.answered_by(lambda _, answer=answer: answer)  # type: ignore[misc]
        await client.search_contacts(EVERYBODY)
