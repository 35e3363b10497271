"""Failures at a request that a test names, and lists that end too early."""

import httpx
import pytest

from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, leaf


async def _statuses(caller: Caller, times: int) -> list[int]:
    """Of requests to different routes, by turns."""
    paths = ("/users/?locationId={}", "/locations/{}", "/contacts/?locationId={}")
    answers = [await caller.http.get(paths[n % len(paths)].format(caller.location.id)) for n in range(times)]
    return [answer.status_code for answer in answers]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_exactly_one_request_of_any_route_fails(sandbox: Sandbox, caller: Caller, status: int) -> None:
    await _statuses(caller, 2)  # before it is set, requests do not count
    sandbox.faults(fail_at=3, fail_status=status)
    assert await _statuses(caller, 5) == [200, 200, status, 200, 200]
    sandbox.faults(fail_at=1, fail_status=status)
    assert await _statuses(caller, 2) == [status, 200]


async def test_an_outage_lasts_for_a_number_of_requests_or_for_good(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(fail_at=2, fail_requests=2)
    assert await _statuses(caller, 5) == [200, 503, 503, 200, 200]
    sandbox.faults(fail_at=2, fail_requests=None)
    assert await _statuses(caller, 5) == [200, 503, 503, 503, 503]


async def test_a_cut_connection_comes_after_the_work_and_a_status_before(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    contact = location.add(first_name="Ada")
    sandbox.faults(fail_at=2)
    await _statuses(caller, 1)
    await caller.http.put(f"/contacts/{contact.id}", json={"city": "Oslo"})
    assert location.contacts.by_id[contact.id].city is None
    sandbox.faults(fail_at=1, fail_status=None)
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.http.put(f"/contacts/{contact.id}", json={"city": "Oslo"})
    assert location.contacts.by_id[contact.id].city == "Oslo"


async def test_a_planned_429_says_when_to_come_back_and_takes_no_slot(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(fail_at=1, fail_status=429, retry_after=2)
    refused, answered = await caller.search(), await caller.search()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    assert answered.headers["X-RateLimit-Remaining"] == "99"


async def test_requests_of_one_location_do_not_count_for_another(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(sandbox.add_location().id, fail_at=1, fail_requests=None)
    assert await _statuses(caller, 3) == [200, 200, 200]


@pytest.mark.parametrize("filters", [[], [leaf("dateUpdated", "range", {"gte": "2020-01-01T00:00:00Z"})]])
@pytest.mark.parametrize(("ends_after", "sizes"), [(0, [0]), (4, [2, 2, 0]), (5, [2, 2, 1]), (20, [2, 2, 2, 1])])
async def test_a_list_ends_early_although_its_total_says_more(
    sandbox: Sandbox, location: Location, caller: Caller, filters: list[object], ends_after: int, sizes: list[int]
) -> None:
    for number in range(7):
        location.add(first_name=str(number), date_updated=1_790_000_000_000 + number)
    sandbox.faults(scan_ends_after=ends_after)
    after: object = None
    order = [{"field": "dateUpdated", "direction": "asc"}]
    for size in sizes:
        body = (await caller.search(filters=filters, sort=order, pageLimit=2, searchAfter=after)).json()
        assert (len(body["contacts"]), body["total"]) == (size, 7)
        after = body["contacts"][-1]["searchAfter"] if body["contacts"] else after


async def test_searches_for_somebody_are_whole_even_if_lists_are_not(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    contact = location.add(first_name="Ada", email="ada@example.com")
    sandbox.faults(scan_ends_after=0)
    assert await caller.found(leaf("id", "eq", contact.id)) == ["Ada"]
    assert await caller.found(leaf("email", "eq", "ada@example.com")) == ["Ada"]
    assert await caller.found() == []
