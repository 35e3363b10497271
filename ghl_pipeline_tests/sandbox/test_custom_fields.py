"""Custom fields: the location's definitions, and values that are more than text."""

from collections.abc import Callable
from typing import Any

import pytest

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller, leaf


async def _listed(caller: Caller, **params: str) -> list[dict[str, Any]]:
    response = await caller.http.get(f"/locations/{caller.location.id}/customFields", params=params)
    assert response.status_code == 200, response.text
    fields: list[dict[str, Any]] = response.json()["customFields"]
    return fields


async def test_the_definitions_tell_the_key_of_each_id(location: Location, caller: Caller) -> None:
    zips = location.custom_fields.add("Service ZIP Codes", data_type="LARGE_TEXT")
    trade = location.custom_fields.add("Trade", field_key="contact.primary", options=["Roofing", "Plumbing"])
    assert await _listed(caller) == [
        {
            "id": zips.id,
            "name": "Service ZIP Codes",
            "model": "contact",
            "fieldKey": "contact.service_zip_codes",
            "placeholder": "",
            "dataType": "LARGE_TEXT",
            "position": 50,
            "locationId": location.id,
        },
        {
            "id": trade.id,
            "name": "Trade",
            "model": "contact",
            "fieldKey": "contact.primary",
            "placeholder": "",
            "dataType": "TEXT",
            "position": 100,
            "locationId": location.id,
            "picklistOptions": ["Roofing", "Plumbing"],
            "isAllowedCustomOption": False,
        },
    ]
    assert location.custom_fields.id_of("contact.primary") == trade.id
    with pytest.raises(InvalidInput, match=r"contact\.unheard_of"):
        location.custom_fields.id_of("contact.unheard_of")


async def test_fields_of_opportunities_are_listed_on_request(location: Location, caller: Caller) -> None:
    location.custom_fields.add("Trade")
    location.custom_fields.add("Budget", model="opportunity")
    keys = {
        model: [each["fieldKey"] for each in await _listed(caller, model=model)] for model in ("opportunity", "all")
    }
    assert keys == {"opportunity": ["opportunity.budget"], "all": ["contact.trade", "opportunity.budget"]}
    assert [each["fieldKey"] for each in await _listed(caller)] == ["contact.trade"]


async def test_the_same_field_has_another_id_in_each_location(sandbox: Sandbox) -> None:
    ids = {sandbox.add_location().custom_fields.add("Trade").id for _ in range(5)}
    assert len(ids) == 5


async def test_definitions_of_another_location_and_senseless_queries_are_refused(
    sandbox: Sandbox, location: Location, caller: Caller
) -> None:
    other = sandbox.add_location()
    assert (await caller.http.get(f"/locations/{other.id}/customFields")).status_code == 403
    for query in ("model=company", "limit=5"):
        response = await caller.http.get(f"/locations/{location.id}/customFields?{query}")
        assert response.status_code == 422


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/locations/{}/customFields", "locations/customFields.readonly"),
        ("/opportunities/search?location_id={}", "opportunities.readonly"),
        ("/opportunities/anything?{}", "opportunities.readonly"),
    ],
)
async def test_the_token_needs_the_scope(
    sandbox: Sandbox, location: Location, caller: Caller, path: str, scope: str
) -> None:
    sandbox.faults(missing_scopes=[scope])
    response = await caller.http.get(path.format(location.id))
    assert (response.status_code, response.json()["message"]) == (401, "The token is not authorized for this scope.")


VALUES: tuple[Any, ...] = ("gold", 12.5, 7, ["Roofing", "Plumbing"], {"file1": {"url": "https://example.com/x"}}, "")


@pytest.mark.parametrize("value", VALUES)
async def test_a_value_is_shown_as_it_was_written(location: Location, caller: Caller, value: Any) -> None:
    contact = location.add(first_name="Ada")
    for name in ("field_value", "fieldValue"):
        body = {"customFields": [{"id": "cf1", name: value}]}
        assert (await caller.http.put(f"/contacts/{contact.id}", json=body)).status_code == 200
        shown = (await caller.http.get(f"/contacts/{contact.id}")).json()["contact"]["customFields"]
        found = (await caller.search()).json()["contacts"][0]["customFields"]
        assert shown == found == [{"id": "cf1", "value": value}]
        assert (await caller.http.put(f"/contacts/{contact.id}", json={"customFields": []})).status_code == 200


async def test_a_contact_is_created_with_tags_source_and_fields_and_its_type_is_set_later(
    location: Location, caller: Caller
) -> None:
    body = {
        "locationId": location.id,
        "email": "ada@example.com",
        "tags": ["New Vendor"],
        "source": "Vendor Application",
        "customFields": [{"id": "cf1", "field_value": ["Roofing"]}],
    }
    created = (await caller.http.post("/contacts/", json=body)).json()["contact"]
    await caller.http.put(f"/contacts/{created['id']}", json={"type": "staff"})
    item = (await caller.search()).json()["contacts"][0]
    assert (item["tags"], item["source"], item["type"]) == (["new vendor"], "Vendor Application", "staff")
    assert item["customFields"] == [{"id": "cf1", "value": ["Roofing"]}]


async def test_filters_see_each_option_of_a_list(location: Location, caller: Caller) -> None:
    for name, value in (("Ada", ("Roofing", "Plumbing")), ("Ben", "Roofing"), ("Cleo", ()), ("Dora", 45)):
        location.add(first_name=name, custom_fields=(("cf1", value),))
    assert set(await caller.found(leaf("customFields.cf1", "eq", "Roofing"))) == {"Ada", "Ben"}
    assert set(await caller.found(leaf("customFields.cf1", "contains", "plumb"))) == {"Ada"}
    assert set(await caller.found(leaf("customFields.cf1", "exists"))) == {"Ada", "Ben", "Dora"}
    assert await caller.found(leaf("customFields.cf1", "eq", 45)) == ["Dora"]


async def test_operators_follow_the_kind_of_the_field(location: Location, caller: Caller) -> None:
    options = location.custom_fields.add("Trades", data_type="MULTIPLE_OPTIONS")
    text = location.custom_fields.add("Notes", data_type="LARGE_TEXT")
    refused = await caller.search(filters=[leaf(f"customFields.{options.id}", "contains", "roof")])
    assert refused.json()["message"] == f"Invalid Operator passed for field customFields.{options.id}"
    assert (await caller.search(filters=[leaf(f"customFields.{text.id}", "contains", "roof")])).status_code == 200


async def test_sources_and_tags_are_found_by_a_part_and_whole(location: Location, caller: Caller) -> None:
    location.add(first_name="Ada", source="Website - VENDOR APPLICATION", tags=("new vendor application",))
    location.add(first_name="Ben", source="public api", tags=("new vendor", "vip"))
    assert await caller.found(leaf("source", "contains", "Vendor Application")) == ["Ada"]
    assert await caller.found(leaf("tags", "eq", "new vendor")) == ["Ben"]
    assert set(await caller.found(leaf("tags", "contains", "new vendor"))) == {"Ada", "Ben"}


async def test_staff_have_the_addresses_they_were_given(
    location: Location, caller_of: Callable[[Location], Caller]
) -> None:
    location.add_user(first_name="Grace", last_name="Hopper", email="Grace@example.com", phone="+12125550103")
    location.add_user()
    users = (await caller_of(location).http.get("/users/", params={"locationId": location.id})).json()["users"]
    assert [(user["email"], user["phone"]) for user in users[1:]] == [
        ("Grace@example.com", "+12125550103"),
        ("staff.3@example.com", "+12125550193"),
    ]
    with pytest.raises(InvalidInput, match="mail"):
        location.add_user(mail="x")
