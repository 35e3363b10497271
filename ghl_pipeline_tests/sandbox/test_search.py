"""The search: its grammar, its refusals, sorting, paging and the shape of its items."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.sandbox.contacts import Contact, ContactTable
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.search import parse_search, run_search
from ghl_pipeline.sandbox.search_filters import FilterRules
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, all_of, any_of, leaf


def _moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def people(location: Location) -> Location:
    """Ada, Ben and Cleo, added in this order."""
    location.add(
        first_name="Ada",
        last_name="Abbott",
        email="Ada@Example.com",
        phone="+12125550101",
        city="Portland",
        tags=("VIP", "webinar"),
        date_added=_moment("2026-01-01T12:00"),
        date_updated=_moment("2026-04-01T02:00"),
        additional_emails=("ada.old@example.org",),
    )
    location.add(
        first_name="Ben",
        email="ben@example.com",
        company_name="Acme Solar",
        date_added=_moment("2026-01-02T12:00"),
        date_updated=_moment("2026-04-01T12:00"),
        custom_fields=(("cf1", "gold"),),
    )
    location.add(
        first_name="Cleo",
        phone="+12125550103",
        dnd=True,
        date_added=_moment("2026-01-03T12:00"),
        date_updated=_moment("2026-04-02T02:00"),
    )
    return location


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ["Cleo", "Ben", "Ada"]),
        ([leaf("email", "eq", "ada@example.com")], ["Ada"]),
        ([leaf("email", "eq", "ADA@EXAMPLE.COM")], ["Ada"]),
        ([leaf("email", "eq", "ada.old@example.org")], ["Ada"]),
        ([leaf("email", "not_eq", "ada@example.com")], ["Cleo", "Ben"]),
        ([leaf("email", "exists")], ["Ben", "Ada"]),
        ([leaf("email", "not_exists")], ["Cleo"]),
        ([leaf("phone", "eq", "+12125550103")], ["Cleo"]),
        ([leaf("phone", "contains", "555010")], ["Cleo", "Ada"]),
        ([leaf("tags", "eq", "vip")], ["Ada"]),
        ([leaf("tags", "not_eq", "vip")], ["Cleo", "Ben"]),
        ([leaf("companyName", "contains", "solar")], ["Ben"]),
        ([leaf("firstNameLowerCase", "eq", "ada")], ["Ada"]),
        ([leaf("dnd", "eq", True)], ["Cleo"]),
        ([leaf("customFields.cf1", "eq", "gold")], ["Ben"]),
        ([leaf("city", "eq", "Portland"), leaf("dnd", "eq", True)], []),
        ([any_of(leaf("email", "eq", "ben@example.com"), leaf("email", "eq", "ada@example.com"))], ["Ben", "Ada"]),
        ([any_of(leaf("email", "eq", "ben@example.com"), leaf("city", "eq", "Portland"))], ["Ben", "Ada"]),
        ([all_of(leaf("email", "exists"), any_of(leaf("tags", "eq", "vip"), leaf("dnd", "eq", True)))], ["Ada"]),
        ([leaf("dateUpdated", "range", {"gte": "2026-04-01T12:00:00.000Z"})], ["Cleo", "Ben"]),
        ([leaf("dateUpdated", "range", {"gt": "2026-04-01T12:00:00.000Z"})], ["Cleo"]),
        ([leaf("dateUpdated", "range", {"lt": _moment("2026-04-01T12:00")})], ["Ada"]),
        ([leaf("dateAdded", "range", {"gte": "2026-01-01T13:00:00Z", "lte": "2026-01-02T12:00:00Z"})], ["Ben"]),
    ],
)
async def test_a_filter_selects_the_people_it_describes(
    people: Location, caller: Caller, filters: list[Any], names: list[str]
) -> None:
    assert await caller.found(*filters) == names


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        # New York is four hours behind UTC in April: 02:00 UTC on the first is the evening of 31 March there.
        ({"gte": "2026-04-01", "lte": "2026-04-01"}, ["Cleo", "Ben"]),
        ({"gt": "2026-03-31"}, ["Cleo", "Ben"]),
        ({"lte": "2026-03-31"}, ["Ada"]),
        ({"lt": "2026-04-01"}, ["Ada"]),
    ],
)
async def test_a_date_alone_is_a_whole_day_where_the_location_is(
    people: Location, caller: Caller, bounds: dict[str, str], names: list[str]
) -> None:
    assert await caller.found(leaf("dateUpdated", "range", bounds)) == names


@pytest.mark.parametrize(
    ("filters", "status", "text"),
    [
        ([leaf("contact_name", "eq", "x")], 400, "Invalid field contact_name"),
        ([leaf("firstName", "eq", "x")], 400, "Invalid field firstName"),
        ([leaf("email", "contains", "ada")], 400, "Invalid Operator passed for field email"),
        ([leaf("email", "in", ["a@example.com"])], 400, "Invalid Operator passed for field email"),
        ([leaf("dateUpdated", "gte", "2026-01-01")], 400, "Invalid Operator passed for field dateUpdated"),
        ([leaf("phone", "contains", "55")], 400, "Min. 3 characters required for applying contains filter"),
        ([leaf("dateAdded", "range", {"gte": "yesterday"})], 400, "Invalid date passed for field dateAdded"),
        ([{"group": "XOR", "filters": [leaf("dnd", "eq", True)]}], 400, "Invalid group passed in filters"),
        ([leaf("email", "eq", ["a@example.com"])], 422, ["value must be a string, number or boolean"]),
        ([leaf("email", "eq", "a" * 76)], 422, ["value must be shorter than or equal to 75 characters"]),
        ([leaf("email", "exists", True)], 422, ["value should not exist for operator exists"]),
        ([any_of()], 422, ["filters should not be empty"]),
        ([{**leaf("email", "eq", "x"), "values": 1}], 422, ["property values should not exist"]),
        ({"field": "email"}, 422, ["filters must be an array"]),
    ],
)
async def test_a_filter_outside_the_grammar_is_refused(caller: Caller, filters: Any, status: int, text: Any) -> None:
    response = await caller.search(filters=filters)
    assert (response.status_code, response.json()["message"]) == (status, text)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"email": "x@example.com", "limit": 5}, 422, "property email should not exist"),
        ({"pageLimit": None}, 422, "pageLimit must be a number conforming to the specified constraints"),
        ({"pageLimit": "20"}, 422, "pageLimit must be a number conforming to the specified constraints"),
        ({"pageLimit": 501}, 422, "pageLimit must not be greater than 500"),
        ({"page": 0}, 422, "page must not be less than 1"),
        ({"query": "x" * 76}, 422, "query must be a string shorter than or equal to 75 characters"),
        ({"locationId": None}, 422, "locationId must be a string"),
        ({"page": 1, "searchAfter": [1, "x"]}, 400, "Only one of page and searchAfter can be passed"),
        ({"searchAfter": ["text", "x"]}, 400, "searchAfter does not fit the sort"),
        ({"page": 21, "pageLimit": 500}, 400, "Records beyond 10000 need searchAfter instead of page"),
        ({"sort": [{"field": "phone", "direction": "asc"}]}, 400, "Invalid field passed for sort"),
        ({"locationId": "someOtherLocation1234"}, 403, "The token does not have access to this location."),
    ],
)
async def test_a_body_outside_the_rules_is_refused(
    caller: Caller, body: dict[str, object], status: int, text: str
) -> None:
    response = await caller.search(**body)
    message = response.json()["message"]
    assert response.status_code == status
    assert text in message if isinstance(message, list) else message == text
    assert isinstance(message, list) is (status == 422)


async def test_every_unknown_property_is_named(caller: Caller) -> None:
    response = await caller.search(email="x@example.com", limit=5)
    assert response.json()["message"] == ["property email should not exist", "property limit should not exist"]


async def test_seventy_five_characters_can_be_searched(location: Location, caller: Caller) -> None:
    email = "a" * 63 + "@example.com"
    location.add(first_name="Long", email=email)
    assert await caller.found(leaf("email", "eq", email)) == ["Long"]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ([("dateAdded", "asc")], ["Ada", "Ben", "Cleo"]),
        ([("dateUpdated", "desc")], ["Cleo", "Ben", "Ada"]),
        ([("email", "asc")], ["Cleo", "Ada", "Ben"]),
        ([("dnd", "desc"), ("dateAdded", "asc")], ["Cleo", "Ada", "Ben"]),
    ],
)
async def test_sorting(people: Location, caller: Caller, sort: list[tuple[str, str]], names: list[str]) -> None:
    assert await caller.found(sort=[{"field": field, "direction": direction} for field, direction in sort]) == names


@pytest.mark.parametrize("query", ["ada abb", "ADA", "ada@exam", "+1212555010"])
async def test_a_query_matches_prefixes_of_words_in_order(people: Location, caller: Caller, query: str) -> None:
    assert "Ada" in await caller.found(query=query)
    assert await caller.found(query="solar acme") == []


async def _walk(caller: Caller, **body: Any) -> list[str]:
    """The ids of all pages by `searchAfter`."""
    ids: list[str] = []
    cursor = None
    while True:
        page = (await caller.search(**body, searchAfter=cursor)).json()
        ids += [item["id"] for item in page["contacts"]]
        if len(page["contacts"]) < body["pageLimit"]:
            assert page["total"] == len(ids)
            return ids
        cursor = page["contacts"][-1]["searchAfter"]


@pytest.mark.parametrize("field", ["dateAdded", "dateUpdated", "email", "firstNameLowerCase", "dnd"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("filters", [[], [leaf("email", "exists")], [leaf("dateUpdated", "range", {"gte": 0})]])
async def test_search_after_visits_everybody_once(
    sandbox: Sandbox,
    caller_of: Callable[[Location], Caller],
    field: str,
    direction: str,
    filters: list[Any],
) -> None:
    contacts = crowd(37, seed=1)
    caller = caller_of(sandbox.add_location(contacts=contacts))
    ids = await _walk(caller, pageLimit=5, filters=filters, sort=[{"field": field, "direction": direction}])
    assert len(ids) == len(set(ids))
    assert set(ids) == {contact.id for contact in contacts}


async def test_two_sorts_can_be_paged_through(sandbox: Sandbox, caller_of: Callable[[Location], Caller]) -> None:
    contacts = crowd(41, seed=2)
    caller = caller_of(sandbox.add_location(contacts=contacts))
    sort = [{"field": "firstNameLowerCase", "direction": "asc"}, {"field": "dateAdded", "direction": "desc"}]
    ids = await _walk(caller, pageLimit=4, sort=sort)
    by_id = {contact.id: contact for contact in contacts}
    keys = [((by_id[i].first_name or "").lower(), -by_id[i].date_added) for i in ids]
    assert keys == sorted(keys)
    assert len(set(ids)) == 41


async def test_a_contact_updated_during_the_pull_is_seen_again_and_none_is_lost(
    sandbox: Sandbox, caller_of: Callable[[Location], Caller]
) -> None:
    location = sandbox.add_location(contacts=crowd(20, seed=3))
    caller = caller_of(location)
    oldest_first = [{"field": "dateUpdated", "direction": "asc"}]
    first = (await caller.search(pageLimit=10, sort=oldest_first)).json()["contacts"]
    location.change(first[0]["id"], city="Elsewhere")
    rest = (await caller.search(pageLimit=50, sort=oldest_first, searchAfter=first[-1]["searchAfter"])).json()
    assert [item["id"] for item in rest["contacts"]][-1] == first[0]["id"]
    assert len(rest["contacts"]) == 11


async def test_page_numbers_walk_too(sandbox: Sandbox, caller_of: Callable[[Location], Caller]) -> None:
    caller = caller_of(sandbox.add_location(contacts=crowd(23, seed=4)))
    pages = [(await caller.search(page=number, pageLimit=10)).json()["contacts"] for number in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [10, 10, 3, 0]
    added = [item["dateAdded"] for page in pages for item in page]
    assert added == sorted(added, reverse=True)


async def test_an_item_has_the_search_s_shape(people: Location, caller: Caller) -> None:
    (item,) = (await caller.search(filters=[leaf("email", "eq", "ada@example.com")])).json()["contacts"]
    assert item["email"] == "Ada@Example.com"  # as typed
    assert (item["firstName"], item["firstNameLowerCase"], item["contactName"]) == ("Ada", "ada", "ada abbott")
    assert item["tags"] == ["vip", "webinar"]
    assert item["searchAfter"] == [_moment("2026-01-01T12:00"), item["id"]]
    assert item["dateUpdated"] == "2026-04-01T02:00:00.000Z"
    assert "address1" not in item
    assert "emailLowerCase" not in item


async def test_items_differ_as_live_ones_do(sandbox: Sandbox, caller_of: Callable[[Location], Caller]) -> None:
    location = sandbox.add_location()
    for number in range(40):
        location.add(email=f"{number}@example.com", additional_emails=("x@example.com",), date_of_birth="1970-01-02")
    items = (await caller_of(location).search()).json()["contacts"]
    assert {type(item["additionalEmails"][0]) for item in items} == {str, dict}
    assert {"phone" in item for item in items} == {True, False}  # null, or missing
    assert {item["dateOfBirth"] for item in items} == {86_400_000}


_NAMES = st.sampled_from(["ada", "ben", "cleo"])
_LEAVES = st.one_of(
    st.builds(leaf, st.just("email"), st.sampled_from(["eq", "not_eq"]), _NAMES.map("{}@example.com".format)),
    st.builds(leaf, st.just("id"), st.just("eq"), st.integers(0, 20).map("contact{:03d}".format)),
    st.builds(leaf, st.just("dnd"), st.just("eq"), st.booleans()),
    st.builds(leaf, st.just("dateAdded"), st.just("range"), st.fixed_dictionaries({"gte": st.integers(0, 20)})),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.builds(
        lambda group, nodes: group(*nodes), st.sampled_from([any_of, all_of]), st.lists(inner, min_size=1, max_size=3)
    ),
)


def _holds(node: Any, contact: Contact) -> bool:
    """The grammar once more, without any index."""
    if "group" in node:
        held = [_holds(inner, contact) for inner in node["filters"]]
        return any(held) if node["group"] == "OR" else all(held)
    match node["field"]:
        case "email":
            same = contact.email == node["value"]
            return same if node["operator"] == "eq" else not same
        case "id":
            return bool(contact.id == node["value"])
        case "dnd":
            return contact.dnd is node["value"]
        case _:
            return bool(contact.date_added >= node["value"]["gte"])


@given(trees=st.lists(_TREES, max_size=3), descending=st.booleans())
def test_the_indexes_find_what_looking_at_everybody_finds(trees: list[Any], descending: bool) -> None:
    names = ("ada", "ben", None)
    contacts = [
        Contact(
            id=f"contact{number:03d}",
            date_added=number,
            date_updated=number,
            email=f"{names[number % 3]}@example.com" if names[number % 3] else None,
            dnd=number % 2 == 0,
        )
        for number in range(21)
    ]
    table = ContactTable()
    table.load(contacts)
    body = {
        "pageLimit": 500,
        "filters": trees,
        "sort": [{"field": "dateAdded", "direction": "desc" if descending else "asc"}],
    }
    page = run_search(parse_search(body, FilterRules(ZoneInfo("UTC"))), table)
    expected = [contact for contact in contacts if all(_holds(tree, contact) for tree in trees)]
    assert list(page.contacts) == (expected[::-1] if descending else expected)
    assert page.total == len(expected)


def test_a_group_of_addresses_costs_no_more_in_a_big_location() -> None:
    """Looking at all 20,000 contacts for 50 addresses would take over a hundred times as long."""
    contacts = crowd(20_000, seed=9)
    table = ContactTable()
    table.load(contacts)
    asked = [leaf("email", "eq", contact.email) for contact in contacts[::400]]
    search = parse_search({"pageLimit": 500, "filters": [any_of(*asked)]}, FilterRules(ZoneInfo("UTC")))
    began = time.process_time()
    for _ in range(20):
        assert run_search(search, table).total == 50
    assert (time.process_time() - began) / 20 < 0.01
