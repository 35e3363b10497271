"""Opportunities: the list's order, paging and filters, single ones, and those that a contact shows."""

from typing import Any

import httpx
import pytest

from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller


async def _asked(caller: Caller, **params: Any) -> httpx.Response:
    return await caller.http.get("/opportunities/search", params={"location_id": caller.location.id, **params})


async def _page(caller: Caller, **params: Any) -> tuple[list[str], dict[str, Any]]:
    response = await _asked(caller, **params)
    assert response.status_code == 200, response.text
    body = response.json()
    return [each["name"] for each in body["opportunities"]], body["meta"]


@pytest.fixture
def numbered(location: Location) -> Location:
    """Seven opportunities of one contact, a millisecond apart but for two of the same moment."""
    contact = location.add(first_name="Ada", email="ada@example.com")
    for number in range(7):
        location.opportunities.add(contact.id, name=str(number), created_at=1_790_000_000_000 + min(number, 5))
    return location


async def test_the_cursor_leads_through_all_of_them_newest_first(numbered: Location, caller: Caller) -> None:
    names, meta = await _page(caller, limit=2)
    seen = names
    while meta["nextPage"] is not None:
        names, meta = await _page(caller, limit=2, startAfter=meta["startAfter"], startAfterId=meta["startAfterId"])
        assert meta["total"] == 7
        seen = [*seen, *names]
    assert sorted(seen) == list("0123456")
    assert seen[2:] == list("43210")
    assert await _page(caller, startAfter=meta["startAfter"], startAfterId=meta["startAfterId"]) == (
        [],
        {
            "total": 7,
            "nextPageUrl": None,
            "startAfter": None,
            "startAfterId": None,
            "currentPage": 1,
            "nextPage": None,
            "prevPage": None,
        },
    )


async def test_the_url_of_the_next_page_and_its_number_lead_there_too(numbered: Location, caller: Caller) -> None:
    _, meta = await _page(caller, limit=3)
    following = httpx.URL(meta["nextPageUrl"])
    assert (following.host, following.path) == ("services.leadconnectorhq.com", "/opportunities/search")
    by_url = await caller.http.get("/opportunities/search", params=following.params)
    names, meta = await _page(caller, limit=3, page=2)
    assert [each["name"] for each in by_url.json()["opportunities"]] == names == ["3", "2", "1"]
    assert (meta["currentPage"], meta["nextPage"], meta["prevPage"]) == (2, 3, 1)


async def test_a_contact_shows_its_opportunities_in_the_search(location: Location, caller: Caller) -> None:
    contact = location.add(first_name="Ada")
    made = location.opportunities.add(contact.id, name="Roof", monetary_value=1500, status="won")
    item = (await caller.search()).json()["contacts"][0]
    assert item["opportunities"] == [
        {
            "id": made.id,
            "pipelineId": made.pipeline_id,
            "pipelineStageId": made.pipeline_stage_id,
            "monetaryValue": 1500.0,
            "status": "won",
        }
    ]
    single = (await caller.http.get(f"/opportunities/{made.id}")).json()["opportunity"]
    listed = (await _asked(caller)).json()["opportunities"]
    assert listed == [single]
    assert (single["contactId"], single["contact"]["id"]) == (contact.id, contact.id)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"status": "won"}, {"won"}),
        ({"status": "all"}, {"won", "old", "ben's"}),
        ({"contact_id": "benBenBenBenBenBen00"}, {"ben's"}),
        ({"assigned_to": "someUser123456789012"}, {"won"}),
        ({"q": "BEN@"}, {"ben's"}),
        ({"endDate": "01-31-2025"}, {"old"}),
        ({"date": "02-01-2025", "status": "open"}, {"ben's"}),
        ({"pipeline_id": "elsewhere"}, set()),
    ],
)
async def test_filters(location: Location, caller: Caller, params: dict[str, str], names: set[str]) -> None:
    ada = location.add(first_name="Ada", email="ada@example.com")
    ben = location.add(id="benBenBenBenBenBen00", email="ben@example.com")
    location.opportunities.add(ada.id, name="won", status="won", assigned_to="someUser123456789012")
    # 11 at night in New York, the location's zone, is the next day in UTC.
    location.opportunities.add(ada.id, name="old", created_at=1_738_382_400_000)
    location.opportunities.add(ben.id, name="ben's")
    assert set((await _page(caller, **params))[0]) == names


@pytest.mark.parametrize(
    ("params", "status", "named"),
    [
        ({"limit": 101}, 400, "limit"),
        ({"limit": 0}, 422, "limit"),
        ({"limit": "many"}, 422, "limit"),
        ({"status": "sold"}, 422, "status"),
        ({"locationId": "x"}, 422, "property locationId should not exist"),
        ({"date": "2025-01-31"}, 422, "mm-dd-yyyy"),
        ({"location_id": ""}, 422, "location_id must be a string"),
        ({"location_id": "another"}, 403, "access"),
    ],
)
async def test_what_the_list_refuses(caller: Caller, params: dict[str, Any], status: int, named: str) -> None:
    response = await _asked(caller, **params)
    assert response.status_code == status
    assert named in str(response.json()["message"])


async def test_opportunities_go_with_their_contact_or_alone(location: Location, caller: Caller) -> None:
    ada, ben = location.add(first_name="Ada"), location.add(first_name="Ben")
    made = [location.opportunities.add(contact.id, name=str(contact.first_name)) for contact in (ada, ben)]
    location.remove(ada.id)
    assert (await _page(caller))[0] == ["Ben"]
    assert location.opportunities.remove(made[1].id)
    assert not location.opportunities.remove(made[1].id)
    assert (await _page(caller))[0] == []
    for opportunity_id in (made[0].id, made[1].id, "unknown"):
        assert (await caller.http.get(f"/opportunities/{opportunity_id}")).status_code == 400
    assert (await caller.search()).json()["contacts"][0]["opportunities"] == []


async def test_what_is_hidden_from_searches_can_still_be_fetched(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    ada, ben, cleo = (location.add(first_name=name) for name in ("Ada", "Ben", "Cleo"))
    made = [location.opportunities.add(contact.id, name=str(contact.first_name)) for contact in (ada, ben, cleo)]
    sandbox.faults(location.id, hidden_from_search=[ada.id, made[1].id])
    assert set(await caller.found()) == {"Ben", "Cleo"}
    assert (await _page(caller))[0] == ["Cleo"]
    assert (await caller.search()).json()["total"] == 2
    for path in (f"/contacts/{ada.id}", f"/opportunities/{made[0].id}", f"/opportunities/{made[1].id}"):
        assert (await caller.http.get(path)).status_code == 200
    sandbox.faults()
    assert set(await caller.found()) == {"Ada", "Ben", "Cleo"}
