"""The sandbox's own routes: statistics, faults and contacts over HTTP."""

from typing import Any

import httpx
import pytest

from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, any_of, leaf


async def test_the_statistics_tell_what_was_asked_in_counts(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    contact = location.add(email="canary.person@example.com", first_name="Canaria")
    emails = [leaf("email", "eq", f"{name}@example.com") for name in ("canary.person", "b", "c")]
    await caller.search(filters=[any_of(*emails)])
    await caller.search(filters=[any_of(leaf("email", "eq", "B@example.com"), leaf("id", "eq", contact.id))])
    await caller.search(filters=[leaf("email", "contains", "refused")])
    await caller.http.get(f"/contacts/{contact.id}")
    await caller.http.put(f"/contacts/{contact.id}", json={"city": "Oslo"})
    response = await caller.http.get("/_sandbox/stats")
    counts = response.json()["locations"][location.id]
    assert counts == {
        "requests": 5,
        "by_route": {
            "GET /contacts/{id}": {"200": 1},
            "POST /contacts/search": {"200": 2, "400": 1},
            "PUT /contacts/{id}": {"200": 1},
        },
        "highest_in_window": 5,
        "window_seconds": 10.0,
        "refused_429": 0,
        "creates": 0,
        "updates": 1,
        "deletes": 0,
        "contacts": 1,
        "searches": {"ids": 0, "emails": 1, "dates": 0, "none": 0, "other": 1},
        "list_calls": 0,
        "lookups": {
            "email": {"asked": 4, "distinct": 3, "repeated": 1, "most_often": 2},
            "id": {"asked": 1, "distinct": 1, "repeated": 0, "most_often": 1},
        },
    }
    assert counts == sandbox.stats(location.id)
    for secret in ("canary", "Canaria", location.token, contact.id):
        assert secret not in response.text


async def test_searches_are_counted_by_what_they_select_by(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    since = {"gte": "2026-01-01T00:00:00.000Z"}
    await caller.search()
    await caller.search(filters=[])
    await caller.search(filters=[leaf("dateUpdated", "range", since)])
    await caller.search(filters=[leaf("dateUpdated", "range", since), leaf("tags", "eq", "vip")])
    await caller.search(filters=[any_of(leaf("id", "eq", "a"), leaf("id", "eq", "b"))])
    await caller.search(filters=[leaf("email", "eq", "ada@example.com")])
    await caller.search(filters=[any_of(leaf("email", "eq", "ada@example.com"), leaf("id", "eq", "a"))])
    await caller.search(query="ada lovelace")
    await caller.search(pageLimit=501)  # refused, so not counted
    counts = sandbox.stats(location.id)
    assert counts["searches"] == {"ids": 1, "emails": 1, "dates": 1, "none": 2, "other": 3}
    assert counts["list_calls"] == 3


async def test_counting_starts_anew_but_the_limit_does_not(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    await caller.search()
    assert (await caller.http.post("/_sandbox/stats/reset")).json() == {"ok": True}
    assert sandbox.stats(location.id)["requests"] == 0
    assert (await caller.search()).headers["X-RateLimit-Remaining"] == "98"


async def test_the_sandbox_s_own_routes_use_no_slot(location: Location, caller: Caller) -> None:
    health = await caller.http.get("/_sandbox/health")
    assert health.json() == {"ok": True, "locations": 1}
    assert (await caller.search()).headers["X-RateLimit-Remaining"] == "99"


async def test_faults_are_set_and_reset_over_http(location: Location, caller: Caller) -> None:
    await caller.http.post("/_sandbox/faults", json={"location": location.id, "error_rate": 1.0, "error_status": 502})
    assert (await caller.search()).status_code == 502
    await caller.http.post("/_sandbox/faults", json={})
    assert (await caller.search()).status_code == 200
    await caller.http.post("/_sandbox/faults", json={"location": None, "storm_requests": 1})
    assert (await caller.search()).status_code == 429


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("faults", {"error_rates": 1}, "error_rates"),
        ("faults", {"location": "nowhere", "error_rate": 1}, "no such location"),
        ("contacts", {"location": "nowhere"}, "no such location"),
        ("contacts", {"location": None}, "location"),
        ("contacts", {"place": "x"}, "place"),
    ],
)
async def test_orders_that_make_no_sense_are_refused(caller: Caller, path: str, body: Any, named: str) -> None:
    response = await caller.http.post(f"/_sandbox/{path}", json=body)
    assert response.status_code == 422
    assert named in response.json()["error"]


async def test_contacts_are_added_changed_and_deleted_over_http(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    async def order(**changes: Any) -> Any:
        async with httpx.AsyncClient(verify=False) as client:
            response = await client.post(f"{sandbox.url}/_sandbox/contacts", json={"location": location.id, **changes})
        assert response.status_code == 200, response.text
        return response.json()

    added = (await order(add=[{"email": "ada@example.com", "tags": ["VIP"]}, {"phone": "+12125550101"}]))["added"]
    await order(change={added[0]: {"first_name": "Ada"}}, delete=[added[1], "unknown"])
    assert await caller.found(leaf("tags", "eq", "vip")) == ["Ada"]
    assert len(location.contacts) == 1
    assert sandbox.stats(location.id)["creates"] == 0  # only the API's own creates count


@pytest.mark.parametrize("fields", [{"mail": "x"}, {"email": 5}])
async def test_a_contact_with_fields_it_cannot_have_is_refused(
    location: Location, caller: Caller, fields: dict[str, object]
) -> None:
    response = await caller.http.post("/_sandbox/contacts", json={"location": location.id, "add": [fields]})
    assert response.status_code == 422
    assert len(location.contacts) == 0
