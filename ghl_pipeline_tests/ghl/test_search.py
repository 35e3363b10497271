"""Searches as the sandbox, and so GHL's strict validation, takes them; and paging that always ends and loses nobody."""

import json
from collections.abc import Callable

import httpx
import pytest

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import RequestRejected
from ghl_pipeline.ghl.search import MAX_VALUE_LENGTH, ContactSearch, any_of, equals, fits_eq
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import Connector


async def pages_of(client: LocationClient, search: ContactSearch) -> list[list[str]]:
    return [[contact.id for contact in page.contacts] async for page in client.search_all_pages(search)]


async def test_one_search_finds_many_addresses(location: Location, connect: Connector) -> None:
    for n in range(30):
        location.add(email=f"Person{n}@Example.com")
    client = await connect(location)
    asked = [f"person{n}@example.com" for n in range(10, 60)]
    page = await client.search_contacts(ContactSearch((any_of("email", asked),)))
    assert {contact.email for contact in page.contacts} == {f"Person{n}@Example.com" for n in range(10, 30)}
    assert page.total == 20
    assert client.usage.calls == 1


async def test_one_search_finds_many_ids(location: Location, connect: Connector) -> None:
    ids = [location.add(email=f"p{n}@example.com").id for n in range(5)]
    client = await connect(location)
    page = await client.search_contacts(ContactSearch((any_of("id", ids[:3]),)))
    assert {contact.id for contact in page.contacts} == set(ids[:3])


async def test_a_single_value_is_asked_without_a_group(
    location: Location, connect: Connector, sandbox: Sandbox
) -> None:
    """What is left when a location refuses groups must not be a group of one."""
    location.add(email="ada@example.com")
    sandbox.faults(max_or_leaves=1)
    client = await connect(location)
    assert any_of("email", ["ada@example.com"]) == equals("email", "ada@example.com")
    page = await client.search_contacts(ContactSearch((any_of("email", ["ada@example.com"]),)))
    assert len(page.contacts) == 1
    with pytest.raises(RequestRejected):
        await client.search_contacts(ContactSearch((any_of("email", ["ada@example.com", "bob@example.com"]),)))


async def test_a_value_that_fits_is_taken_and_a_longer_one_refused(location: Location, connect: Connector) -> None:
    longest = "a" * (MAX_VALUE_LENGTH - 12) + "@example.com"
    client = await connect(location)
    assert fits_eq(longest)
    assert not fits_eq("a" + longest)
    await client.search_contacts(ContactSearch((equals("email", longest),)))
    with pytest.raises(RequestRejected):
        await client.search_contacts(ContactSearch((equals("email", "a" + longest),)))


@pytest.mark.parametrize("size", [1, 3, 500])
async def test_all_pages_hold_everybody_once(location: Location, connect: Connector, size: int) -> None:
    ids = {location.add(email=f"p{n}@example.com").id for n in range(9)}
    client = await connect(location)
    pages = await pages_of(client, ContactSearch(page_limit=size))
    found = [contact for page in pages for contact in page]
    assert sorted(found) == sorted(ids)
    # The total is known, so that no request is spent on finding an empty page.
    assert client.usage.calls == -(-9 // size)


async def test_more_duplicates_than_a_page_are_all_found(sandbox: Sandbox, connect: Connector) -> None:
    location = sandbox.add_location(allow_duplicates=True)
    ids = {location.add(email="shared@example.com").id for _ in range(7)}
    location.add(email="other@example.com")
    client = await connect(location)
    search = ContactSearch((any_of("email", ["shared@example.com", "nobody@example.com"]),), page_limit=3)
    pages = await pages_of(client, search)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert {contact for page in pages for contact in page} == ids


async def test_a_location_without_contacts_is_one_empty_page(location: Location, connect: Connector) -> None:
    client = await connect(location)
    assert await pages_of(client, ContactSearch()) == [[]]
    assert client.usage.calls == 1


def paged(answer: Callable[[object], dict[str, object]]) -> Callable[[httpx.Request], httpx.Response]:
    """A server whose answer depends on the cursor it is asked for."""
    return lambda request: httpx.Response(200, json=answer(json.loads(request.content).get("searchAfter")))


async def test_a_cursor_that_comes_again_ends_the_search(connect: Connector) -> None:
    client = await connect.answered_by(
        paged(lambda _: {"contacts": [{"id": "contact1", "searchAfter": [1764003536678, "contact1"]}], "total": 1000})
    )
    pages = await pages_of(client, ContactSearch())
    assert pages == [["contact1"], ["contact1"]]


async def test_cursors_that_go_in_a_circle_end_the_search(connect: Connector) -> None:
    def answer(after: object) -> dict[str, object]:
        here = after[0] if isinstance(after, list) else 0
        return {"contacts": [{"id": f"contact{here}", "searchAfter": [(here + 1) % 3]}], "total": 1000}

    client = await connect.answered_by(paged(answer))
    assert len(await pages_of(client, ContactSearch())) == 4


async def test_without_a_total_the_pages_go_on_until_one_is_empty(connect: Connector) -> None:
    def answer(after: object) -> dict[str, object]:
        here = after[0] if isinstance(after, list) else 0
        return {"contacts": [{"id": f"contact{here}", "searchAfter": [here + 1]}] if here < 3 else []}

    client = await connect.answered_by(paged(answer))
    assert await pages_of(client, ContactSearch()) == [["contact0"], ["contact1"], ["contact2"], []]


async def test_a_broken_item_at_the_end_of_a_page_loses_nobody_after_it(connect: Connector) -> None:
    """The cursor is read even from an item that is no contact; else the next page repeats it and the count runs out."""
    items: list[dict[str, object]] = [
        {"id": "contact0", "searchAfter": [0]},
        {"id": {"broken": True}, "searchAfter": [1]},
        {"id": "contact2", "searchAfter": [2]},
        {"id": "contact3", "searchAfter": [3]},
        {"id": "contact4", "searchAfter": [4]},
    ]

    def answer(after: object) -> dict[str, object]:
        start = after[0] + 1 if isinstance(after, list) else 0
        return {"contacts": items[start : start + 2], "total": len(items)}

    client = await connect.answered_by(paged(answer))
    assert await pages_of(client, ContactSearch(page_limit=2)) == [["contact0"], ["contact2", "contact3"], ["contact4"]]


def test_a_search_says_nothing_that_was_not_asked() -> None:
    assert ContactSearch().body("L") == {"locationId": "L", "pageLimit": 500}


def test_the_next_page_keeps_the_filters() -> None:
    search = ContactSearch((equals("email", "ada@example.com"),), page_limit=20)
    assert search.following((1, "a")).body("L") == {**search.body("L"), "searchAfter": [1, "a"]}
