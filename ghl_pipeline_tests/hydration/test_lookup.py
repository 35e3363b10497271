"""Finding many contacts with few calls: groups that grow, groups that are refused, and a GHL that is down."""

import pytest

from ghl_pipeline.ghl.errors import (
    GhlServerError,
    LocationAccessDenied,
    PermanentGhlError,
    RequestRejected,
    ScopeMissing,
    TokenRejected,
    TransientGhlError,
)
from ghl_pipeline.hydration.lookup import MAX_GROUP, ContactLookup, GroupSize
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import QUICK, OpenLocation

SEARCH, GET_CONTACT = "POST /contacts/search", "GET /contacts/{id}"


def people(location: Location, number: int) -> list[str]:
    """Adds contacts; returns their addresses."""
    addresses = [f"person{n}@example.com" for n in range(number)]
    for address in addresses:
        location.add(email=address, first_name="Some", last_name="Body")
    return addresses


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
    # Ten groups side by side, one group of each half of 50, three single values; each with its retries.
    assert sandbox.stats(location.id)["requests"] <= (10 + 5 + 3) * QUICK.max_attempts


async def test_an_outage_of_single_calls_ends_in_an_error_too(sandbox: Sandbox, open_location: OpenLocation) -> None:
    location = sandbox.add_location()
    sandbox.faults(error_rate=1.0, error_status=503)
    async with open_location(location) as client:
        for calls in (ContactLookup(client, GroupSize()).get, ContactLookup(client, GroupSize()).find_long):
            before = sandbox.stats(location.id)["requests"]
            with pytest.raises(GhlServerError):
                await calls([f"contact{n:013d}" for n in range(500)])
            assert sandbox.stats(location.id)["requests"] - before <= 10 * QUICK.max_attempts


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
