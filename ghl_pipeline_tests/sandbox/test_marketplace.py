"""The sample marketplace: everybody occurs, nothing can reach anybody, and equal seeds give equal people."""

import re
import time
from typing import Any

import httpx
import msgspec
import pytest

from ghl_pipeline.sandbox.marketplace import Marketplace, marketplace
from ghl_pipeline.sandbox.marketplace_words import LEVELS, VENDOR_TAGS
from ghl_pipeline.sandbox.world import Location, World
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller


@pytest.fixture
def made(location: Location) -> Marketplace:
    return marketplace(location, vendors=120, leads=160, seed=3)


def test_equal_seeds_give_equal_marketplaces_and_others_do_not() -> None:
    def contacts(seed: int) -> tuple[object, ...]:
        location = World(seed=1).add_location()
        return marketplace(location, vendors=40, leads=40, seed=seed).contacts, tuple(location.opportunities.by_id)

    assert contacts(1) == contacts(1)
    assert contacts(1) != contacts(2)


def test_two_locations_share_no_id_and_no_field(sandbox: Sandbox) -> None:
    one, other = (marketplace(sandbox.add_location(), vendors=30, leads=30, seed=1) for _ in range(2))
    assert not {contact.id for contact in one.contacts} & {contact.id for contact in other.contacts}
    assert not set(one.field_ids.values()) & set(other.field_ids.values())
    assert one.field_ids.keys() == other.field_ids.keys()


def test_a_second_marketplace_adds_to_the_first(location: Location) -> None:
    first, second = (marketplace(location, vendors=30, leads=30, seed=1, staff=0) for _ in range(2))
    assert len(location.contacts) == 120
    emails = {str(contact.email).lower() for contact in (*first.contacts, *second.contacts)}
    assert len(emails) == 120
    assert first.field_ids == second.field_ids


def test_every_vendor_has_a_sign_of_one_and_the_status_of_its_highest_tag(made: Marketplace) -> None:
    levels = dict(LEVELS)
    order = [tag for tag, _ in LEVELS]
    for vendor in made.vendors:
        tags = vendor.contact.tags
        assert VENDOR_TAGS & set(tags) or "vendor application" in (vendor.contact.source or "").lower()
        told = sorted((order.index(tag) for tag in tags if tag in levels), reverse=True)
        assert vendor.status == (levels[order[told[0]]] if told else None)
    assert {vendor.status for vendor in made.vendors} == {*levels.values(), None}
    assert any(len(set(vendor.contact.tags) & set(levels)) > 2 for vendor in made.vendors)


def test_vendors_write_their_coverage_in_every_way(made: Marketplace) -> None:
    field_id = made.field_ids["contact.service_zip_codes"]
    for vendor in made.vendors:
        assert dict(vendor.contact.custom_fields).get(field_id) == vendor.coverage_text
    kinds = {vendor.coverage for vendor in made.vendors}
    assert kinds == {"global", "national", "states", "counties", "zips", "unreadable", None}


def test_values_have_every_form_that_ghl_s_have(made: Marketplace) -> None:
    values = [value for vendor in made.vendors for _, value in vendor.contact.custom_fields]
    assert {type(value) for value in values} == {str, int, float, tuple, dict}


async def test_leads_tell_their_zip_and_their_opportunity_in_every_way(
    location: Location, made: Marketplace, caller: Caller
) -> None:
    for lead in made.leads:
        contact = lead.contact
        texts = f"{contact.address1 or ''} {contact.postal_code or ''}"
        assert re.findall(r"\b\d{5}\b", texts)[-1:] != [] or lead.zip_code is None
        if lead.zip_code is not None:
            assert lead.zip_code in texts
        assert ("new lead" in contact.tags) is lead.is_new
        shown = [each.id for each in location.opportunities.of(contact.id)]
        assert shown == ([lead.opportunity_id] if lead.opportunity_in == "list" else [])
        named = dict(contact.custom_fields).get(made.field_ids["contact.opportunity_id"])
        assert named == (lead.opportunity_id if lead.opportunity_in == "custom field" else None)
    assert {lead.opportunity_in for lead in made.leads} == {"list", "custom field", None}
    assert {lead.is_new for lead in made.leads} == {True, False}
    assert {bool(lead.contact.postal_code) for lead in made.leads if lead.zip_code} == {True, False}
    assert any(lead.zip_code is None for lead in made.leads)
    listed = (await caller.http.get(f"/opportunities/search?location_id={location.id}")).json()
    assert listed["meta"]["total"] == sum(lead.opportunity_in == "list" for lead in made.leads)


def test_only_staff_have_the_address_of_a_user(location: Location) -> None:
    made = marketplace(location, vendors=2000, leads=12_000, seed=5, staff=6)

    def is_staff(contact: Any) -> bool:
        emails = {user.email.lower() for user in location.users}
        phones = {user.phone for user in location.users}
        return contact.type == "staff" or (contact.email or "").lower() in emails or contact.phone in phones

    assert [contact.id for contact in made.contacts if is_staff(contact)] == [contact.id for contact in made.staff]
    assert any(VENDOR_TAGS & set(contact.tags) for contact in made.staff)  # they try the form out


def test_nothing_can_reach_anybody(location: Location, made: Marketplace) -> None:
    text = msgspec.json.encode([made.contacts, location.users]).decode()
    assert {address.lower() for address in re.findall(r"@([\w.-]+)", text)} <= {
        "example.com",
        "example.org",
        "example.net",
    }
    phones = re.findall(r'"(\+\d+)"', text)
    assert phones
    assert all(re.fullmatch(r"\+1\d{3}55501\d\d", phone) for phone in phones)


def test_a_client_may_call_its_fields_otherwise(location: Location) -> None:
    keys = {"contact.service_zip_codes": "contact.where_we_work"}
    made = marketplace(location, vendors=5, leads=0, seed=1, field_keys=keys)
    renamed = location.custom_fields.by_id[made.field_ids["contact.service_zip_codes"]]
    assert (renamed.field_key, renamed.data_type) == ("contact.where_we_work", "LARGE_TEXT")
    assert dict(made.vendors[0].contact.custom_fields)[renamed.id] == "Global"


def test_fifteen_thousand_contacts_are_made_fast_enough(location: Location) -> None:
    began = time.process_time()  # not wall time: the machine may be busy
    marketplace(location, vendors=5000, leads=10_000, seed=7, staff=0)
    assert time.process_time() - began < 2.0
    assert len(location.contacts) == 15_000


async def test_a_marketplace_is_ordered_over_http(sandbox: Sandbox) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        order = {"vendors": 20, "leads": 30, "seed": 2}
        made = (await client.post("/_sandbox/marketplace", json=order)).json()
        location = sandbox.world.locations[made["location"]]
        assert made["token"] == location.token
        assert len(location.contacts) == 20 + 30 + 4
        members = [*made["vendors"], *made["leads"]]
        assert all(location.contacts.by_id[each["contact_id"]].email == each["email"] for each in members)
        assert {each["opportunity_in"] for each in made["leads"]} == {"list", "custom field", None}
        more = await client.post("/_sandbox/marketplace", json={"location": location.id, "vendors": 1, "leads": 0})
        assert (more.status_code, len(location.contacts)) == (200, 59)
        for wrong in ({"location": "nowhere"}, {"vendor": 1}, {"vendors": "many"}):
            assert (await client.post("/_sandbox/marketplace", json=wrong)).status_code == 422
