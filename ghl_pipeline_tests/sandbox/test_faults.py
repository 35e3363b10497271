"""Faults: each happens when it is set, to whom it is set for, and no longer."""

import asyncio
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.faults import Faults, Mishap, faults_from
from ghl_pipeline.sandbox.world import Location, World
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, any_of, leaf


async def _statuses(caller: Caller, times: int) -> list[int]:
    return [(await caller.search()).status_code for _ in range(times)]


async def test_server_errors_come_at_their_rate_and_the_same_ones_each_time(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(error_rate=0.3, error_status=503, seed=1)
    first = await _statuses(caller, 40)
    sandbox.faults(error_rate=0.3, error_status=503, seed=1)
    assert await _statuses(caller, 40) == first
    assert 4 <= first.count(503) <= 22
    sandbox.faults(error_rate=0.3, error_status=503, seed=2)
    assert await _statuses(caller, 20) != first[:20]


def test_one_location_s_mishaps_do_not_depend_on_another_s() -> None:
    def mishaps(disturbed: bool) -> list[Mishap]:
        board = World().faults
        board.set(Faults(error_rate=0.5))
        rolled = []
        for _ in range(30):
            if disturbed:
                board.of("other").roll("GET /contacts/{id}")
            rolled.append(board.of("one").roll("GET /contacts/{id}"))
        return rolled

    assert mishaps(disturbed=False) == mishaps(disturbed=True)
    assert set(mishaps(disturbed=False)) == {Mishap.NONE, Mishap.SERVER_ERROR}


async def test_faults_of_one_location_leave_the_others_alone(
    sandbox: Sandbox, caller_of: Callable[[Location], Caller]
) -> None:
    ill, well = sandbox.add_location(), sandbox.add_location()
    sandbox.faults(ill.id, error_rate=1.0)
    assert await _statuses(caller_of(ill), 2) == [500, 500]
    assert await _statuses(caller_of(well), 2) == [200, 200]
    sandbox.faults()
    assert await _statuses(caller_of(ill), 1) == [200]


async def test_a_number_of_mishaps_on_one_route(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    sandbox.faults(error_rate=1.0, times=2, routes=["POST /contacts/search"])
    assert (await caller.http.get(f"/locations/{location.id}")).status_code == 200
    assert await _statuses(caller, 4) == [500, 500, 200, 200]


async def test_a_failed_create_created_nothing(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    sandbox.faults(error_rate=1.0)
    body = {"locationId": location.id, "email": "ada@example.com"}
    assert (await caller.http.post("/contacts/", json=body)).status_code == 500
    assert len(location.contacts) == sandbox.stats(location.id)["creates"] == 0


async def test_a_dropped_answer_s_work_is_done_all_the_same(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    sandbox.faults(drop_rate=1.0, times=1)
    body = {"locationId": location.id, "email": "ada@example.com"}
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.http.post("/contacts/", json=body)
    assert len(location.contacts) == sandbox.stats(location.id)["creates"] == 1
    assert (await caller.http.post("/contacts/", json=body)).status_code == 400


async def test_garbage_is_not_json(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(garbage_rate=1.0)
    response = await caller.search()
    assert response.status_code == 200
    assert response.text.startswith("<html>")


async def test_latency_delays_each_answer(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(latency_seconds=0.15)
    began = time.monotonic()
    await asyncio.gather(caller.search(), caller.search())
    assert 0.15 <= time.monotonic() - began < 2.0


async def test_a_hang_outlasts_the_client_but_not_the_server(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(hang_rate=1.0, hang_seconds=600, times=1)
    with pytest.raises(httpx.ReadTimeout):
        await caller.http.get("/contacts/x", timeout=0.1)
    assert (await caller.search()).status_code == 200  # others are answered meanwhile


async def test_a_storm_of_a_number_of_requests(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    sandbox.faults(storm_requests=3, retry_after=2)
    responses = [await caller.search() for _ in range(4)]
    assert [response.status_code for response in responses] == [429, 429, 429, 200]
    assert [response.headers.get("Retry-After") for response in responses] == ["2", "2", "2", None]
    assert responses[-1].headers["X-RateLimit-Remaining"] == "99"  # those refused took no slot
    assert sandbox.stats(location.id)["refused_429"] == 3


async def test_a_storm_of_some_seconds_with_a_date_to_come_back(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(storm_seconds=0.3, retry_after=30, retry_after_as_date=True)
    response = await caller.search()
    wait = parsedate_to_datetime(response.headers["Retry-After"]).timestamp() - sandbox.world.clock()
    assert response.status_code == 429
    assert 28 <= wait <= 31
    await asyncio.sleep(0.35)
    assert (await caller.search()).status_code == 200


async def test_retry_after_also_goes_with_the_limit_s_own_429(
    sandbox: Sandbox, caller_of: Callable[[Location], Caller]
) -> None:
    caller = caller_of(sandbox.add_location(requests=1))
    sandbox.faults(retry_after=7.5)
    await caller.search()
    assert (await caller.search()).headers["Retry-After"] == "7.5"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"token_revoked": True}, "Invalid token: access token is invalid"),
        ({"missing_scopes": ["contacts.readonly"]}, "The token is not authorized for this scope."),
    ],
)
async def test_a_token_that_opens_less(
    sandbox: Sandbox, location: Location, caller: Caller, fault: dict[str, Any], message: str
) -> None:
    sandbox.faults(location.id, **fault)
    response = await caller.search()
    assert (response.status_code, response.json()["message"]) == (401, message)
    allowed = (await caller.http.get(f"/locations/{location.id}")).status_code
    assert allowed == (401 if "token_revoked" in fault else 200)


@pytest.mark.parametrize("status", [400, 422])
async def test_or_groups_up_to_a_size(sandbox: Sandbox, location: Location, caller: Caller, status: int) -> None:
    location.add(first_name="Ada", email="ada@example.com")
    sandbox.faults(max_or_leaves=2, or_refusal_status=status)
    leaves = [leaf("email", "eq", f"{name}@example.com") for name in ("ada", "ben", "cleo")]
    assert await caller.found(any_of(*leaves[:2])) == ["Ada"]
    assert (await caller.search(filters=[any_of(*leaves)])).status_code == status


async def test_or_groups_that_answer_only_their_first_leaf(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    for name in ("Ada", "Ben"):
        location.add(first_name=name, email=f"{name}@example.com")
    sandbox.faults(or_answers_first_leaf_only=True)
    assert await caller.found(
        any_of(leaf("email", "eq", "ben@example.com"), leaf("email", "eq", "ada@example.com"))
    ) == ["Ben"]


async def test_or_groups_that_are_cut_off_in_silence(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    for name in ("Ada", "Ben", "Cleo"):
        location.add(first_name=name, email=f"{name}@example.com")
    group = any_of(*(leaf("email", "eq", f"{name}@example.com") for name in ("cleo", "ben", "ada")))
    sandbox.faults(or_answers_first_leaves=2)
    assert sorted(await caller.found(group)) == ["Ben", "Cleo"]
    sandbox.faults(or_answers_first_leaves=3)
    assert sorted(await caller.found(group)) == ["Ada", "Ben", "Cleo"]


@pytest.mark.parametrize("status", [400, 500])
async def test_a_lost_search_context_meets_searches_only(
    sandbox: Sandbox, location: Location, caller: Caller, status: int
) -> None:
    sandbox.faults(search_context_rate=1.0, search_context_status=status)
    response = await caller.search()
    assert response.status_code == status
    assert "point in time" in response.json()["message"]
    assert (await caller.http.get(f"/locations/{location.id}")).status_code == 200


async def test_addresses_compared_by_case(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    location.add(first_name="Ada", email="Ada@Example.com")
    sandbox.faults(case_sensitive_email=True)
    assert await caller.found(leaf("email", "eq", "ada@example.com")) == []
    assert await caller.found(leaf("email", "eq", "Ada@Example.com")) == ["Ada"]


async def test_additional_addresses_left_out(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    location.add(first_name="Ada", email="ada@example.com", additional_emails=("old@example.com",))
    asked = leaf("email", "eq", "old@example.com")
    assert await caller.found(asked) == ["Ada"]
    sandbox.faults(primary_email_only=True)
    assert await caller.found(asked) == []


async def test_items_with_lower_case_names_only(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    contact = location.add(first_name="Ada")
    sandbox.faults(lower_case_names_only=True)
    (item,) = (await caller.search()).json()["contacts"]
    assert item["firstNameLowerCase"] == "ada"
    assert not {"firstName", "lastName"} & item.keys()
    assert (await caller.http.get(f"/contacts/{contact.id}")).json()["contact"]["firstName"] == "Ada"


@pytest.mark.parametrize(
    ("fault", "status", "found"), [({"ranges_refused": True}, 400, None), ({"ranges_find_nothing": True}, 200, 0)]
)
async def test_ranges_that_are_refused_or_find_nothing(
    sandbox: Sandbox, location: Location, caller: Caller, fault: dict[str, Any], status: int, found: int | None
) -> None:
    location.add(first_name="Ada")
    asked = leaf("dateUpdated", "range", {"gte": 0})
    assert await caller.found(asked) == ["Ada"]
    sandbox.faults(**fault)
    answer = await caller.search(filters=[asked])
    assert (answer.status_code, answer.json().get("total")) == (status, found)
    assert (await caller.search()).json()["total"] == 1


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_searches_without_filters_that_are_not_answered(
    sandbox: Sandbox, location: Location, caller: Caller, status: int
) -> None:
    location.add(first_name="Ada", email="ada@example.com")
    sandbox.faults(unfiltered_status=status)
    assert (await caller.search()).status_code == status
    assert await caller.found(leaf("email", "eq", "ada@example.com")) == ["Ada"]


async def test_a_total_that_says_too_much_or_stops_counting(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    for _ in range(3):
        location.add()
    sandbox.faults(total_surplus=7)
    assert (await caller.search()).json()["total"] == 10
    sandbox.faults(total_at_most=2)
    answer = (await caller.search()).json()
    assert (answer["total"], len(answer["contacts"])) == (2, 3)


@pytest.mark.parametrize("shift", [900.0, -900.0])
async def test_a_clock_that_is_wrong_dates_the_answers_and_the_writes(
    sandbox: Sandbox, location: Location, caller: Caller, shift: float
) -> None:
    before = time.time()
    sandbox.faults(clock_shift_seconds=shift)
    contact = location.add(first_name="Ada")
    answer = await caller.search()
    told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert answer.headers.get_list("date") == [answer.headers["Date"]]
    for moment in (told, contact.date_updated / 1000):
        assert before + shift - 2 <= moment <= time.time() + shift + 2


def test_searches_see_a_write_only_after_the_lag() -> None:
    now = [1_000_000.0]
    world = World(clock=lambda: now[0])
    location = world.add_location()
    old = location.add(first_name="Old")
    location.indexed_contacts.ordered("dateAdded")
    world.faults.set(Faults(index_lag_seconds=10))
    new = location.add(first_name="New")
    now[0] += 5
    location.change(old.id, first_name="Changed")
    location.remove(new.id)

    def seen() -> list[str | None]:
        return [contact.first_name for contact in location.indexed_contacts.ordered("dateAdded")]

    assert list(location.contacts.by_id) == [old.id]  # the truth, at once
    assert seen() == ["Old"]
    now[0] += 5
    assert sorted(map(str, seen())) == ["New", "Old"]
    now[0] += 5
    assert seen() == ["Changed"]
    assert location.indexed_contacts is location.contacts


@pytest.mark.parametrize(
    "fields",
    [
        {"error_rates": 0.5},
        {"error_rate": 1.5},
        {"error_rate": "often"},
        {"error_rate": 0.6, "hang_rate": 0.6},
        {"search_context_status": 200},
        {"max_or_leaves": 0},
    ],
)
def test_faults_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="cannot be set"):
        faults_from(fields)
