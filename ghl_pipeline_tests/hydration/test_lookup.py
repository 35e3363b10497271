"""Finding many contacts with few calls: groups that grow, groups that are refused, and a GHL that is down."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.errors import (
    GhlServerError,
    GhlUnreachable,
    LocationAccessDenied,
    PermanentGhlError,
    RateLimited,
    RequestRejected,
    ScopeMissing,
    TokenRejected,
    TransientGhlError,
    UnreadableAnswer,
)
from ghl_pipeline.hydration.group_size import MAX_GROUP, GroupSize
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.lookup import CALLS_IN_FLIGHT, OUTAGE_AFTER_FAILURES, ContactLookup
from ghl_pipeline.locations.learning import Learned, load_learned
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import QUICK, TIMEOUT_SECONDS, OpenLocation, Unthrottled

SEARCH, GET_CONTACT = "POST /contacts/search", "GET /contacts/{id}"
DUPLICATE = "GET /contacts/search/duplicate"


def people(location: Location, number: int) -> list[str]:
    """Adds contacts; returns their addresses."""
    addresses = [f"person{n}@example.com" for n in range(number)]
    for address in addresses:
        location.add(email=address, first_name="Some", last_name="Body")
    return addresses


class FailsOn(httpx.AsyncBaseTransport):
    """GHL failing on some values only: 500 for every request that holds one of them, the sandbox for all others."""

    def __init__(self, values: Collection[str]) -> None:
        self._values = values
        self._sandbox = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = f"{request.method} {request.url.path} {request.url.query.decode()} {(await request.aread()).decode()}"
        if any(value in asked for value in self._values):
            return httpx.Response(500, json={"message": "Internal server error"})
        return await self._sandbox.handle_async_request(request)

    async def aclose(self) -> None:
        await self._sandbox.aclose()


def open_at(
    url: str, location: Location, transport: httpx.AsyncBaseTransport | None = None
) -> AbstractAsyncContextManager[LocationClient]:
    """A location's client for an address, or a way to it, that is not the sandbox's own."""
    return open_client(
        base_url=url,
        location_id=location.id,
        token=SecretStr(location.token),
        throttle=Unthrottled(),
        policy=QUICK,
        timeout_seconds=TIMEOUT_SECONDS,
        transport=transport,
    )


def too_long(number: int) -> list[str]:
    """Addresses that a search refuses, also one by one."""
    return [f"{'x' * 80}{n}@example.com" for n in range(number)]


def answers(sandbox: Sandbox, location: Location, route: str = SEARCH) -> dict[str, int]:
    """Answers of a route by status."""
    counts: dict[str, int] = sandbox.stats(location.id)["by_route"].get(route, {})
    return counts


async def test_one_search_asks_for_a_whole_group(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    addresses = people(location, 120)
    async with open_location(location) as client:
        found = await ContactLookup(client, GroupSize(50)).find("email", [*addresses, "nobody@example.com"])
    assert sorted(contact.email or "" for contact in found.contacts) == sorted(addresses)
    assert found.failed == {}
    assert answers(sandbox, location) == {"200": 3}
    assert sandbox.stats(location.id)["lookups"]["email"] == {
        "asked": 121, "distinct": 121, "repeated": 0, "most_often": 1,
    }  # fmt: skip


async def test_contacts_are_found_by_id_as_by_address(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    people(location, 30)
    ids = sorted(location.contacts.by_id)
    async with open_location(location) as client:
        found = await ContactLookup(client, GroupSize()).find("id", ids)
    assert sorted(contact.id for contact in found.contacts) == ids
    assert answers(sandbox, location) == {"200": 1}


async def test_nothing_to_look_up_is_no_call(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    async with open_location(location) as client:
        lookup = ContactLookup(client, GroupSize())
        assert (await lookup.find("email", [])).contacts == []
        assert await lookup.get([]) == await lookup.find_long([]) == ({}, {})
    assert sandbox.stats(location.id)["requests"] == 0


async def test_groups_grow_to_a_hundred_while_answers_are_good(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    addresses = people(location, 300)
    learned = GroupSize(10)
    async with open_location(location) as client:
        lookup = ContactLookup(client, learned)
        for _ in range(3):
            assert len((await lookup.find("email", addresses)).contacts) == 300
    assert learned == GroupSize(MAX_GROUP, MAX_GROUP)


async def test_a_short_last_group_says_nothing_about_larger_ones(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    learned = GroupSize(50)
    async with open_location(location) as client:
        await ContactLookup(client, learned).find("email", ["one@example.com"])
    assert learned.size == 50


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_group_is_halved_and_its_size_not_asked_again(
    sandbox: Sandbox, open_location: OpenLocation, status: int
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 60)
    sandbox.faults(max_or_leaves=7, or_refusal_status=status)
    learned = GroupSize(50)
    async with open_location(location) as client:
        lookup = ContactLookup(client, learned)
        found = await lookup.find("email", addresses)
        refused = answers(sandbox, location)[str(status)]
        again = await lookup.find("email", addresses)
    assert len(found.contacts) == len(again.contacts) == 60
    assert found.failed == again.failed == {}
    assert learned.size == learned.ceiling
    assert 3 < learned.ceiling <= 7
    assert refused <= 10
    assert answers(sandbox, location)[str(status)] == refused


async def test_a_location_that_takes_single_values_only_is_still_looked_up(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 12)
    sandbox.faults(max_or_leaves=1)
    learned = GroupSize(50)
    async with open_location(location) as client:
        found = await ContactLookup(client, learned).find("email", addresses)
    assert len(found.contacts) == 12
    assert learned.ceiling == 1


async def test_a_group_that_breaks_the_server_is_halved_but_may_grow_again(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 40)
    sandbox.faults(max_or_leaves=7, or_refusal_status=500)
    learned = GroupSize(50)
    async with open_location(location) as client:
        lookup = ContactLookup(client, learned)
        assert len((await lookup.find("email", addresses)).contacts) == 40
        assert learned.ceiling == MAX_GROUP
        sandbox.faults()
        for _ in range(4):
            await lookup.find("email", addresses)
    assert learned.size >= 40


@pytest.mark.parametrize(
    "fault",
    [{"error_rate": 1.0, "error_status": 503}, {"drop_rate": 1.0}, {"garbage_rate": 1.0}, {"hang_rate": 1.0}],
    ids=["503", "connections dropped", "garbage", "timeouts"],
)
async def test_a_spell_of_failures_loses_nobody(
    sandbox: Sandbox, open_location: OpenLocation, fault: dict[str, float]
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 60)
    sandbox.faults(None, times=5, hang_seconds=0.4, **fault)
    learned = GroupSize(20)
    async with open_location(location, timeout_seconds=0.2) as client:
        found = await ContactLookup(client, learned).find("email", addresses)
    assert {contact.email for contact in found.contacts} == set(addresses)
    assert found.failed == {}
    assert learned.ceiling == MAX_GROUP


async def test_an_outage_ends_in_an_error_and_not_in_a_storm(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    sandbox.faults(error_rate=1.0, error_status=503)
    async with open_location(location) as client:
        lookup = ContactLookup(client, GroupSize(50))
        with pytest.raises(GhlServerError):
            await lookup.find("email", [f"person{n}@example.com" for n in range(2000)])
    # Ten groups side by side, one group of each half of 50, three single values, one about nobody; all with retries.
    assert sandbox.stats(location.id)["requests"] <= (10 + 4 + 3 + 1) * QUICK.max_attempts


async def test_an_outage_of_single_calls_ends_in_an_error_too(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    sandbox.faults(error_rate=1.0, error_status=503)
    async with open_location(location) as client:
        for calls in (ContactLookup(client, GroupSize()).get, ContactLookup(client, GroupSize()).find_long):
            before = sandbox.stats(location.id)["requests"]
            with pytest.raises(GhlServerError):
                await calls([f"contact{n:013d}" for n in range(500)])
            # One batch side by side, and the questions about nobody: by this route, and by a search.
            assert sandbox.stats(location.id)["requests"] - before <= (CALLS_IN_FLIGHT + 2) * QUICK.max_attempts


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"token_revoked": True}, TokenRejected), ({"missing_scopes": ("contacts.readonly",)}, ScopeMissing)],
)
async def test_a_location_that_refuses_is_not_asked_again(
    sandbox: Sandbox, open_location: OpenLocation, fault: dict[str, object], error: type[PermanentGhlError]
) -> None:
    location = sandbox.add_location()
    sandbox.faults(None, **fault)
    async with open_location(location) as client:
        with pytest.raises(error):
            await ContactLookup(client, GroupSize(50)).find("email", [f"person{n}@example.com" for n in range(5000)])
    answered = sum(answers(sandbox, location).values()) or sum(sandbox.world.unidentified.values())
    assert answered <= 10


async def test_the_token_of_another_location_is_named_as_that(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location, other = sandbox.add_location(), sandbox.add_location()
    other.token = location.token
    async with open_location(other) as client:
        with pytest.raises(LocationAccessDenied, match=other.id):
            await ContactLookup(client, GroupSize()).find("email", ["ada@example.com"])


async def test_a_value_that_ghl_refuses_alone_is_on_record_and_the_others_are_found(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 60)
    poison = f"{'x' * 80}@example.com"
    learned = GroupSize(50)
    async with open_location(location) as client:
        lookup = ContactLookup(client, learned)
        found = await lookup.find("email", [*addresses[:30], poison, *addresses[30:]])
        assert {contact.email for contact in found.contacts} == set(addresses)
        assert list(found.failed) == [poison]
        assert isinstance(found.failed[poison], RequestRejected)
        # The value was at fault and not the size of its group, so groups grow again.
        assert learned.ceiling == MAX_GROUP
        for _ in range(5):
            await lookup.find("email", addresses)
    assert learned.size >= 50


async def test_a_location_that_rejects_every_search_is_found_out_within_few_calls(sandbox: Sandbox) -> None:
    location = sandbox.add_location()
    addresses = people(location, 2000)
    learned = GroupSize(50)
    async with open_at(f"{sandbox.url}/no-such-api", location) as client:
        with pytest.raises(RequestRejected):
            await ContactLookup(client, learned).find("email", addresses)
        # Ten groups side by side of each size from 50 down to 1, and the question about nobody.
        assert client.usage.calls <= 6 * CALLS_IN_FLIGHT + 1
        asked = client.usage.calls
        with pytest.raises(RequestRejected):
            await ContactLookup(client, learned).find_long(addresses)
        assert client.usage.calls - asked <= CALLS_IN_FLIGHT + 2
    # A location that refuses says nothing about the size of groups.
    assert learned == GroupSize(50)


async def test_values_that_ghl_rejects_cost_one_question_about_nobody(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    poison = too_long(40)
    async with open_location(location) as client:
        found = await ContactLookup(client, GroupSize(1, 1)).find("email", poison)
        assert client.usage.calls == len(poison) + 1
    assert sorted(found.failed) == sorted(poison)


async def test_after_an_answer_the_question_about_nobody_is_asked_anew(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    good, poison = people(location, 1), too_long(10)
    async with open_location(location) as client:
        found = await ContactLookup(client, GroupSize(1, 1)).find("email", [*poison[:5], *good, *poison[5:]])
        assert client.usage.calls == len(poison) + 1 + 2
    assert len(found.contacts) == 1
    assert sorted(found.failed) == sorted(poison)


async def test_neighbours_on_which_ghl_fails_are_on_record_and_the_others_are_found(sandbox: Sandbox) -> None:
    location = sandbox.add_location()
    addresses = people(location, 60)
    poison = addresses[20:27]
    async with open_at(sandbox.url, location, FailsOn(poison)) as client:
        lookup = ContactLookup(client, GroupSize(50))
        found = await lookup.find("email", addresses)
        # As at the end of a list: only those that failed are asked, so nothing in between is answered.
        again = await lookup.find("email", poison)
    assert {contact.email for contact in found.contacts} == set(addresses) - set(poison)
    for result in (found, again):
        assert sorted(result.failed) == sorted(poison)
        assert {type(error) for error in result.failed.values()} == {GhlServerError}


async def test_single_calls_on_which_ghl_fails_are_on_record_too(sandbox: Sandbox) -> None:
    location = sandbox.add_location()
    ids = [location.add(email=f"person{n}@example.com").id for n in range(7)]
    long_addresses = too_long(7)
    async with open_at(sandbox.url, location, FailsOn([*ids, "x" * 80])) as client:
        lookup = ContactLookup(client, GroupSize())
        contacts, failed = await lookup.get(ids)
        by_address, failed_addresses = await lookup.find_long(long_addresses)
    assert contacts == by_address == {}
    assert sorted(failed) == sorted(ids)
    assert sorted(failed_addresses) == sorted(long_addresses)


async def test_an_outage_of_searches_is_not_the_fault_of_the_values(sandbox: Sandbox) -> None:
    location = sandbox.add_location()
    values = [f"0contact{n:012d}" for n in range(300)]
    async with open_at(sandbox.url, location, FailsOn(['"field":"email"'])) as client:
        with pytest.raises(GhlServerError):
            await ContactLookup(client, GroupSize(1)).find("email", values)
        assert client.usage.calls <= (CALLS_IN_FLIGHT + OUTAGE_AFTER_FAILURES + 1) * QUICK.max_attempts


@pytest.mark.parametrize(
    ("down", "ask"),
    [
        ("GET /contacts/0", lambda lookup, values: lookup.get(values)),
        ("/duplicate", lambda lookup, values: lookup.find_long(values)),
    ],
    ids=["GET", "duplicate lookup"],
)
async def test_a_route_that_is_down_fails_for_its_keys_and_is_left_alone_until_everything_is_tried_again(
    sandbox: Sandbox,
    down: str,
    ask: Callable[[ContactLookup, list[str]], Awaitable[tuple[dict[str, object], dict[str, object]]]],
) -> None:
    location = sandbox.add_location()
    values = [f"0contact{n:012d}" for n in range(300)]
    async with open_at(sandbox.url, location, FailsOn([down])) as client:
        lookup = ContactLookup(client, GroupSize(1))
        contacts, failed = await ask(lookup, values)
        assert (contacts, list(failed)) == ({}, values)
        # A batch side by side, and the questions about nobody: by this route, and by a search.
        assert client.usage.calls <= (CALLS_IN_FLIGHT + 2) * QUICK.max_attempts
        asked = client.usage.calls
        await ask(lookup, values)
        assert client.usage.calls == asked
        lookup.try_everything_again()
        await ask(lookup, values[:1])
        assert client.usage.calls > asked
        # What is up is still answered.
        assert (await lookup.find("id", values[:1])).failed == {}


async def test_a_429_storm_leaves_the_group_size_alone(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    addresses = people(location, 60)
    sandbox.faults(storm_requests=3 * (QUICK.max_429 + 1) + QUICK.max_429 + 1)
    learned = GroupSize(20, 20)
    async with open_location(location) as client:
        found = await ContactLookup(client, learned).find("email", addresses)
    assert {contact.email for contact in found.contacts} == set(addresses)
    assert found.failed == {}
    assert learned == GroupSize(20, 20)
    # Three groups, asked again as they were.
    assert answers(sandbox, location)["200"] == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [({"storm_seconds": 60.0}, RateLimited), ({"drop_rate": 1.0}, GhlUnreachable)],
    ids=["429", "connections dropped"],
)
@pytest.mark.parametrize("size", [50, 1])
async def test_a_ghl_that_lets_nobody_in_is_an_outage_of_which_nothing_is_learned(
    sandbox: Sandbox, open_location: OpenLocation, fault: dict[str, float], error: type[TransientGhlError], size: int
) -> None:
    location = sandbox.add_location()
    sandbox.faults(None, **fault)
    learned = GroupSize(size)
    async with open_location(location) as client:
        with pytest.raises(error):
            await ContactLookup(client, learned).find("email", [f"person{n}@example.com" for n in range(2000)])
        assert client.usage.calls <= (CALLS_IN_FLIGHT + 2) * (QUICK.max_429 + 1)
    assert learned == GroupSize(size)


async def test_an_answer_about_another_contact_is_a_failed_lookup(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    asked, stranger = location.add(email="ada@example.com"), location.add(email="stranger@example.com")
    location.contacts.by_id[asked.id] = stranger
    async with open_location(location) as client:
        contacts, failed = await ContactLookup(client, GroupSize()).get([asked.id, stranger.id])
    assert list(contacts) == [stranger.id]
    assert list(failed) == [asked.id]
    assert isinstance(failed[asked.id], UnreadableAnswer)
    assert "another contact" in str(failed[asked.id])


# --- what is found out about the location first


async def test_a_location_is_surveyed_once_before_its_first_group_and_not_for_a_single_value(
    engine: Engine, sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 60)
    sandbox.faults(location.id, max_or_leaves=30)
    async with open_location(location) as client:
        knowledge = LocationKnowledge(client, Learned(50), engine)
        lookup = ContactLookup(client, knowledge.group_size, knowledge)
        assert len((await lookup.find_addresses(addresses[:1])).contacts) == 1
        assert load_learned(engine, location.id, 50) == Learned(50)
        assert answers(sandbox, location) == {"200": 1}
        for _ in range(2):
            assert len((await lookup.find_addresses(addresses)).contacts) == 60
    # Of the sizes that are tried 25 is the largest that the location takes. No lead was asked for in a refused group.
    learned = load_learned(engine, location.id, 50)
    assert (learned.group_size, learned.group_ceiling, learned.survey_is_due) == (25, 25, False)
    assert (learned.searches_by_date, learned.contacts) == (True, 60)
    assert (knowledge.group_size, knowledge.groups_are_wrong) == (GroupSize(25, 25), False)
    assert answers(sandbox, location)["400"] == len({100, 50})


async def test_where_groups_are_answered_wrongly_every_lead_is_asked_for_alone(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 12)
    sandbox.faults(location.id, or_answers_first_leaf_only=True)
    async with open_location(location) as client:
        knowledge = LocationKnowledge(client, Learned(50))
        found = await ContactLookup(client, knowledge.group_size, knowledge).find_addresses(addresses)
    assert {contact.email for contact in found.contacts} == set(addresses)
    assert (knowledge.group_size, knowledge.groups_are_wrong) == (GroupSize(1, 1), True)


async def test_where_letter_case_matters_only_those_not_found_are_asked_for_once_more(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 30)
    location.add(email="Ada@Example.com")
    sandbox.faults(location.id, case_sensitive_email=True)
    async with open_location(location) as client:
        knowledge = LocationKnowledge(client, Learned(50, case_matters=True, survey_is_due=False))
        lookup = ContactLookup(client, knowledge.group_size, knowledge)
        found = await lookup.find_addresses([*addresses, "ada@example.com", "nobody@example.com"])
    assert {contact.email for contact in found.contacts} == {*addresses, "Ada@Example.com"}
    assert found.failed == {}
    assert (answers(sandbox, location), answers(sandbox, location, DUPLICATE)) == ({"200": 1}, {"200": 2})


async def test_misses_are_confirmed_for_a_person_who_waits_and_an_error_is_not_a_miss(
    sandbox: Sandbox, open_location: OpenLocation
) -> None:
    location = sandbox.add_location()
    addresses = people(location, 3)
    sandbox.faults(location.id, index_lag_seconds=60)
    fresh = location.add(email="ada@example.com")
    async with open_location(location) as client:
        lookup = ContactLookup(client, GroupSize(), confirm_misses=True)
        found = await lookup.find_addresses([*addresses, "ada@example.com"])
        assert {contact.email for contact in found.contacts} == {*addresses, fresh.email}
        assert found.failed == {}
        assert (answers(sandbox, location), answers(sandbox, location, DUPLICATE)) == ({"200": 1}, {"200": 1})
        sandbox.faults(location.id, routes=(DUPLICATE,), error_rate=1.0, index_lag_seconds=60)
        failed = (await lookup.find_addresses(["bob@example.com"])).failed
    assert {address: type(error) for address, error in failed.items()} == {"bob@example.com": GhlServerError}


async def test_more_duplicates_than_a_page_holds_are_all_seen(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location(allow_duplicates=True)
    ids = {location.add(email="ada@example.com", first_name=f"Ada {n}").id for n in range(45)}
    async with open_location(location) as client:
        found = await ContactLookup(client, GroupSize()).find("email", ["ada@example.com"])
    assert {contact.id for contact in found.contacts} == ids
    assert answers(sandbox, location) == {"200": 3}


async def test_single_calls_tell_missing_from_failed(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    long_address = f"{'y' * 80}@example.com"
    kept, gone = location.add(email=long_address), location.add(email="gone@example.com")
    location.remove(gone.id)
    async with open_location(location) as client:
        lookup = ContactLookup(client, GroupSize())
        contacts, failed = await lookup.get([kept.id, gone.id])
        by_address, _ = await lookup.find_long([long_address, f"{'z' * 80}@example.com"])
        sandbox.faults(routes=(GET_CONTACT,), error_rate=1.0)
        nothing, errors = await lookup.get([kept.id])
    assert {id_: contact and contact.email for id_, contact in contacts.items()} == {
        kept.id: long_address, gone.id: None,
    }  # fmt: skip
    assert failed == {}
    assert [contact and contact.id for contact in by_address.values()] == [kept.id, None]
    assert nothing == {}
    assert isinstance(errors[kept.id], TransientGhlError)
