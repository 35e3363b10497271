"""Faults of writing contacts: phones that are refused, creates that are done all the same, a lookup that lags."""

from typing import Any

import httpx
import pytest

from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller

TEXT = "Invalid country calling code"


async def create(caller: Caller, **fields: Any) -> httpx.Response:
    return await caller.http.post("/contacts/", json={"locationId": caller.location.id, **fields})


@pytest.mark.parametrize("status", [400, 422])
async def test_a_phone_is_refused_on_create_and_update(
    sandbox: Sandbox, location: Location, caller: Caller, status: int
) -> None:
    contact = location.add(email="bob@example.com")
    sandbox.faults(refused_phone=TEXT, refused_phone_status=status)
    created = await create(caller, email="ada@example.com", phone="+13055550123")
    changed = await caller.http.put(f"/contacts/{contact.id}", json={"phone": "+13055550123", "firstName": "Bob"})
    for answer in (created, changed):
        assert (answer.status_code, answer.json()["message"]) == (status, TEXT)
    assert list(location.contacts.by_id.values()) == [contact]
    assert (await create(caller, email="ada@example.com")).status_code == 201


async def test_a_refused_create_is_done_all_the_same(sandbox: Sandbox, location: Location, caller: Caller) -> None:
    sandbox.faults(refused_phone=TEXT, creates_what_it_refuses=True)
    assert (await create(caller, email="ada@example.com", phone="+13055550123")).status_code == 400
    (contact,) = location.contacts.by_id.values()
    assert (contact.email, contact.phone, sandbox.stats(location.id)["creates"]) == ("ada@example.com", None, 1)


async def test_the_duplicate_lookup_lags_when_it_is_told_to(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    async def duplicate() -> object:
        params = {"locationId": location.id, "email": "ada@example.com"}
        return (await caller.http.get("/contacts/search/duplicate", params=params)).json()["contact"]

    sandbox.faults(index_lag_seconds=60)
    location.add(email="ada@example.com")
    assert await duplicate() is not None
    sandbox.faults(index_lag_seconds=60, duplicate_lookup_lags=True)
    assert await duplicate() is None


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_duplicate_lookup_follows_the_setting_when_it_is_told_to(
    sandbox: Sandbox, location: Location, caller: Caller, *, allowed: bool
) -> None:
    location.allow_duplicates = allowed
    location.add(email="ada@example.com")
    sandbox.faults(duplicate_lookup_follows_setting=True)
    params = {"locationId": location.id, "email": "ada@example.com"}
    answer = await caller.http.get("/contacts/search/duplicate", params=params)
    assert (answer.status_code, answer.json()["contact"] is None) == (200, allowed)


async def test_a_change_is_refused_for_a_property_and_a_create_is_not(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    contact = location.add(email="bob@example.com")
    sandbox.faults(refused_properties=("companyName",))
    changed = await caller.http.put(f"/contacts/{contact.id}", json={"companyName": "Engines", "firstName": "Bob"})
    assert (changed.status_code, changed.json()["message"]) == (422, ["property companyName should not exist"])
    assert list(location.contacts.by_id.values()) == [contact]
    assert (await create(caller, email="ada@example.com", companyName="Engines")).status_code == 201
