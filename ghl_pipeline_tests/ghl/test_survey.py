"""The survey: groups of known and impossible addresses, against searches that misbehave in every way we know of."""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import GhlServerError, GhlUnreachable, RateLimited, TokenRejected
from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.survey import (
    GROUP_SIZES,
    GroupAnswer,
    Survey,
    first_page,
    searches_by_date,
    survey,
)
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import Connector

RIGHT, WRONG, REFUSED, FAILED = GroupAnswer.RIGHT, GroupAnswer.WRONG, GroupAnswer.REFUSED, GroupAnswer.FAILED
ONCE = RetryPolicy(max_attempts=1, max_429=0, deadline_seconds=30)
DOCTOR_SIZES = (100, 50, 25, 2)


@pytest.fixture
def location(sandbox: Sandbox) -> Location:
    """600 contacts with lower-case addresses: more than the first page holds."""
    return sandbox.add_location(contacts=crowd(600, "survey"))


async def surveyed(client: LocationClient) -> Survey:
    return await survey(client, await first_page(client))


async def test_the_first_page_holds_the_oldest_contacts_and_the_total(connect: Connector, location: Location) -> None:
    page = await first_page(await connect(location))
    oldest = sorted(location.contacts.by_id.values(), key=lambda contact: (contact.date_added, contact.id))[:500]
    assert [contact.id for contact in page.contacts] == [contact.id for contact in oldest]
    assert page.total == 600


async def test_where_all_is_well_one_group_of_a_hundred_and_one_address_are_asked(
    sandbox: Sandbox, connect: Connector, location: Location
) -> None:
    oldest = min(location.contacts.by_id.values(), key=lambda contact: contact.date_added)
    location.change(oldest.id, email="Ada.Lovelace@Example.com")
    client = await connect(location)
    page = await first_page(client)
    assert await survey(client, page) == Survey(600, {100: RIGHT}, case_matters=False)
    assert client.usage.calls == 1 + 2
    assert sandbox.stats(location.id)["lookups"]["email"]["asked"] == 100 + 1
    assert sandbox.stats(location.id)["creates"] == sandbox.stats(location.id)["updates"] == 0


async def test_every_size_is_tried_on_demand(connect: Connector, location: Location) -> None:
    client = await connect(location)
    answers = (await survey(client, await first_page(client), sizes=DOCTOR_SIZES, stop_at_first_right=False)).answers
    assert answers == dict.fromkeys(DOCTOR_SIZES, RIGHT)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_groups_that_are_too_large_are_refused_and_the_next_smaller_is_tried(
    sandbox: Sandbox, connect: Connector, location: Location, status: int
) -> None:
    sandbox.faults(max_or_leaves=30, or_refusal_status=status)
    found_out = await surveyed(await connect(location))
    assert found_out.answers == {100: REFUSED, 50: REFUSED, 25: RIGHT}
    assert found_out.largest_right == 25


async def test_groups_that_are_answered_with_a_server_error_count_as_failed(
    sandbox: Sandbox, connect: Connector, location: Location
) -> None:
    sandbox.faults(max_or_leaves=10, or_refusal_status=500)
    found_out = await surveyed(await connect(location))
    assert found_out.answers == {100: FAILED, 50: FAILED, 25: FAILED, 10: RIGHT}


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (99, {100: WRONG, 50: RIGHT}),
        (30, {100: WRONG, 50: WRONG, 25: RIGHT}),
        (2, {100: WRONG, 50: WRONG, 25: WRONG, 10: WRONG, 2: RIGHT}),
        (1, dict.fromkeys(GROUP_SIZES, WRONG)),
    ],
)
async def test_groups_that_are_cut_off_in_silence_are_found_out(
    sandbox: Sandbox, connect: Connector, location: Location, answered: int, expected: dict[int, GroupAnswer]
) -> None:
    sandbox.faults(or_answers_first_leaves=answered)
    client = await connect(location)
    found_out = await surveyed(client)
    assert found_out.answers == expected
    assert found_out.groups_are_wrong is (answered == 1)
    assert client.usage.calls == 1 + len(expected) + 1, "one address is asked alone before a group is called wrong"


async def test_a_filter_that_is_ignored_is_wrong_although_the_known_addresses_are_among_the_answer(
    connect: Connector,
) -> None:
    everybody = json.dumps({"contacts": _items(f"p{number}@example.com" for number in range(300)), "total": 300})
    client = await connect.answered_by(lambda request: httpx.Response(200, text=everybody))
    found_out = await surveyed(client)
    assert found_out == Survey(300, dict.fromkeys(GROUP_SIZES, WRONG), None)


async def test_a_contact_deleted_meanwhile_does_not_make_a_group_wrong(connect: Connector, location: Location) -> None:
    client = await connect(location)
    page = await first_page(client)
    for contact in (page.contacts[0], page.contacts[250]):
        location.remove(contact.id)
    assert (await survey(client, page)).answers == {100: RIGHT}


async def test_a_search_that_knows_none_of_its_contacts_is_not_believed(connect: Connector, location: Location) -> None:
    client = await connect(location)
    page = await first_page(client)
    for contact_id in list(location.contacts.by_id):
        location.remove(contact_id)
    assert (await survey(client, page)).groups_are_wrong


async def test_contacts_that_lag_behind_in_the_index_are_not_in_the_page_and_do_no_harm(
    sandbox: Sandbox, connect: Connector, location: Location
) -> None:
    sandbox.faults(index_lag_seconds=3600)
    location.add(email="new@example.com", date_added=0)
    for contact in list(location.contacts.by_id.values())[:300]:
        location.change(contact.id, email=f"moved.{contact.id.lower()}@example.com")
    assert await surveyed(await connect(location)) == Survey(600, {100: RIGHT})


async def test_duplicates_of_a_known_address_do_no_harm(sandbox: Sandbox, connect: Connector) -> None:
    location = sandbox.add_location(contacts=crowd(20, "twins"), allow_duplicates=True)
    for contact in list(location.contacts.by_id.values()):
        location.add(email=contact.email)
    location.add(email="ada@example.com", additional_emails=("first@example.com", "second@example.com"))
    location.add(email="ben@example.com")
    assert await surveyed(await connect(location)) == Survey(42, {100: RIGHT})


async def test_an_address_of_hundreds_of_contacts_crowds_no_other_out_of_the_answer(
    connect: Connector, location: Location
) -> None:
    client = await connect(location)
    page = await first_page(client)
    for _ in range(700):
        location.add(email=page.contacts[-1].email)
    assert (await survey(client, page)).answers == {100: RIGHT}


async def test_a_location_of_a_few_contacts_is_tried_with_these(sandbox: Sandbox, connect: Connector) -> None:
    location = sandbox.add_location(contacts=crowd(1, "alone"))
    assert await surveyed(await connect(location)) == Survey(1, {100: RIGHT})
    sandbox.faults(or_answers_first_leaf_only=True)
    assert (await surveyed(await connect(location))).groups_are_wrong


@pytest.mark.parametrize(
    "email", [None, "Ada@Example.com", f"{'a' * 64}@example.com", "not an address", "josé@example.com"]
)
async def test_without_an_address_to_try_nothing_is_tried(
    sandbox: Sandbox, connect: Connector, email: str | None
) -> None:
    location = sandbox.add_location()
    location.add(email=email, first_name="Ada")
    found_out = await surveyed(await connect(location))
    assert (found_out.answers, found_out.largest_right, found_out.groups_are_wrong) == ({}, 0, False)


async def test_an_empty_location_costs_the_page_alone(sandbox: Sandbox, connect: Connector) -> None:
    client = await connect(sandbox.add_location())
    assert await surveyed(client) == Survey(0)
    assert client.usage.calls == 1


async def test_letter_case_that_matters_is_found_out(sandbox: Sandbox, connect: Connector, location: Location) -> None:
    sandbox.faults(case_sensitive_email=True)
    assert (await surveyed(await connect(location))).case_matters is None
    location.add(email="Ada@Example.com", date_added=0)
    assert await surveyed(await connect(location)) == Survey(601, {100: RIGHT}, case_matters=True)


async def test_a_contact_that_is_found_in_no_spelling_says_nothing_about_letter_case(
    connect: Connector, location: Location
) -> None:
    ada = location.add(email="Ada@Example.com", date_added=0)
    client = await connect(location)
    page = await first_page(client)
    location.remove(ada.id)
    assert (await survey(client, page)).case_matters is None


async def test_a_contact_that_came_since_with_the_same_address_in_lower_case_is_not_mistaken_for_the_other(
    sandbox: Sandbox, connect: Connector, location: Location
) -> None:
    sandbox.faults(case_sensitive_email=True)
    location.add(email="Ada@Example.com", date_added=0)
    client = await connect(location)
    page = await first_page(client)
    location.add(email="ada@example.com")
    assert (await survey(client, page)).case_matters is True


async def test_another_contact_with_the_same_address_in_lower_case_says_nothing_about_letter_case(
    sandbox: Sandbox, connect: Connector
) -> None:
    location = sandbox.add_location(allow_duplicates=True)
    location.add(email="Ada@Example.com")
    location.add(email="ada@example.com")
    assert (await surveyed(await connect(location))).case_matters is None


async def test_a_refused_question_about_letter_case_loses_nothing_of_the_groups(
    sandbox: Sandbox, connect: Connector, location: Location
) -> None:
    location.add(email="Ada@Example.com", date_added=0)
    client = await connect(location, policy=ONCE)
    page = await first_page(client)
    assert (await survey(client, page)).answers == {100: RIGHT}
    sandbox.faults(error_rate=1.0, times=1)
    assert await survey(client, page, sizes=()) == Survey(601, {}, None)


# --- the search by date


@pytest.mark.parametrize(
    ("fault", "rightly"), [({}, True), ({"ranges_refused": True}, False), ({"ranges_find_nothing": True}, False)]
)
async def test_a_search_by_date_has_to_find_the_contact_that_changed_last(
    sandbox: Sandbox, connect: Connector, location: Location, fault: dict[str, Any], rightly: bool
) -> None:
    sandbox.faults(**fault)
    client = await connect(location)
    page = await first_page(client)
    assert await searches_by_date(client, page.contacts) is rightly
    assert client.usage.calls == 1 + 1


async def test_a_search_by_date_that_finds_what_did_not_change_is_not_trusted(connect: Connector) -> None:
    """Its filter is ignored."""
    old, new = "2026-05-04T10:00:00.000Z", "2026-05-04T11:00:00.000Z"
    items = [{"id": f"contact{n}", "dateUpdated": date} for n, date in enumerate((old, new))]
    everybody = json.dumps({"contacts": items, "total": 2})
    client = await connect.answered_by(lambda request: httpx.Response(200, text=everybody))
    page = await first_page(client)
    assert await searches_by_date(client, page.contacts) is False
    assert await searches_by_date(client, page.contacts[:1]) is True


async def test_without_a_date_to_try_it_with_nothing_is_said_of_the_search_by_date(
    connect: Connector, location: Location
) -> None:
    client = await connect(location)
    assert await searches_by_date(client, [Contact("contact0000000000001")]) is None
    assert client.usage.calls == 0


async def test_when_every_size_fails_so_does_the_survey(
    sandbox: Sandbox, connect: Connector, location: Location
) -> None:
    client = await connect(location, policy=ONCE)
    page = await first_page(client)
    sandbox.faults(max_or_leaves=1, or_refusal_status=500)
    with pytest.raises(GhlServerError):
        await survey(client, page)
    assert client.usage.calls == 1 + len(GROUP_SIZES)


@pytest.mark.parametrize(
    ("fault", "error"), [({"storm_requests": 1}, RateLimited), ({"drop_rate": 1.0, "times": 1}, GhlUnreachable)]
)
async def test_an_outage_says_nothing_about_groups_and_ends_the_survey(
    sandbox: Sandbox, connect: Connector, location: Location, fault: dict[str, Any], error: type[Exception]
) -> None:
    client = await connect(location, policy=ONCE)
    page = await first_page(client)
    sandbox.faults(**fault)
    with pytest.raises(error):
        await survey(client, page)
    assert client.usage.calls == 2


async def test_a_refused_token_ends_the_survey(sandbox: Sandbox, connect: Connector, location: Location) -> None:
    client = await connect(location)
    page = await first_page(client)
    sandbox.faults(token_revoked=True)
    with pytest.raises(TokenRejected):
        await survey(client, page)


@given(known=st.integers(1, 40), size=st.integers(2, 100))
async def test_a_group_is_as_large_as_it_says_and_begins_and_ends_with_known_addresses(known: int, size: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        question = json.loads(request.content)["filters"][0]
        asked.extend(leaf["value"] for leaf in question.get("filters", []))
        alone = [question["value"]] if "value" in question else []
        return httpx.Response(200, json={"contacts": _items(alone), "total": len(alone)})

    contacts = tuple(Contact(f"contact{number}", f"known{number}@example.com") for number in range(known))
    async with AsyncExitStack() as stack:
        client = await Connector("", stack).answered_by(answer, ONCE)
        found_out = await survey(client, SearchPage(contacts, known, None), sizes=(size,))
    assert found_out.answers == {size: WRONG}
    ours = [address for address in asked if address.startswith("known")]
    assert len(asked) == len(set(asked)) == size
    assert asked[-1] in ours
    assert asked[0] in ours or known == 1
    assert len(ours) == min(known, 20, max(2, size // 2))


def _items(emails: Iterable[str]) -> list[dict[str, str]]:
    return [{"id": f"contact{number}", "email": email} for number, email in enumerate(emails)]
