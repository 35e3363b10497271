"""The details of a contact, in the forms that GHL, its workflows and old exports give them."""

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.contact_details import ContactDetails, tags_of
from ghl_pipeline.ghl.location_payloads import decode_custom_fields, decode_opportunities
from ghl_pipeline.ghl.payloads import decode_contact, decode_detailed_contact, decode_search
from ghl_pipeline.ghl.search import ContactSearch
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.ghl.conftest import Connector

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def details(**wire: object) -> ContactDetails:
    contact = decode_detailed_contact(msgspec.json.encode({"contact": {"id": "a" * 20, **wire}}))
    assert contact is not None
    assert contact.details is not None
    return contact.details


@pytest.mark.parametrize(
    "sent",
    [
        ["New Lead", "manually approved"],
        "New Lead, manually  approved",
        " new lead ,MANUALLY APPROVED,,",
        [{"name": "new lead"}, {"tag": "Manually Approved"}],
        [{"label": "new lead"}, "manually approved", "NEW LEAD", None, {}, []],
    ],
)
def test_tags_come_as_list_text_or_objects(sent: object) -> None:
    assert tags_of(sent) == ("new lead", "manually approved")


@pytest.mark.parametrize("sent", [None, "", [], {}, {"name": "new lead"}, True, [[], {}, None]])
def test_what_is_no_list_of_tags_is_none(sent: object) -> None:
    assert tags_of(sent) == ()


def test_a_search_and_a_get_tell_the_same_details() -> None:
    fields = {"type": " Staff", "source": " Vendor Application ", "postalCode": 33101, "tags": ["VIP"]}
    search = {"contacts": [{"id": "a" * 20, "address": "1 Main St", **fields}], "total": 1}
    (found,) = decode_search(msgspec.json.encode(search), detailed=True).contacts
    assert found.details == details(address1="1 Main St", **fields)
    assert found.details == ContactDetails(
        type="staff", source="Vendor Application", postal_code="33101", tags=("vip",), address="1 Main St"
    )


def test_details_are_read_only_where_they_are_asked_for() -> None:
    body = msgspec.json.encode({"contact": {"id": "a" * 20, "tags": ["vip"]}})
    contact = decode_contact(body)
    assert contact is not None
    assert contact.details is None


def test_custom_fields_keep_their_form() -> None:
    read = details(
        customFields=[
            {"id": "one", "value": "FL, GA"},
            {"id": "two", "value": ["Roofing", "Solar"]},
            {"id": "three", "fieldValue": 45},
            {"id": "four", "value": None},
            {"value": "nobody's"},
            "no field",
        ]
    )
    assert read.custom_fields == {"one": "FL, GA", "two": ["Roofing", "Solar"], "three": 45}


def test_opportunities_are_named_once() -> None:
    assert details(opportunities=[{"id": "x"}, {"id": "x"}, "y", {}, None]).opportunity_ids == ("x", "y")


@given(st.dictionaries(st.sampled_from(["type", "source", "tags", "customFields", "address", "opportunities"]), JSON))
def test_whatever_ghl_sends_is_read(wire: dict[str, object]) -> None:
    read = details(**wire)
    assert all(tag == " ".join(tag.lower().split()) for tag in read.tags)
    assert len(set(read.tags)) == len(read.tags)


@given(st.lists(st.sampled_from(["New Lead", "VIP", "manual approval"]), unique=True))
def test_the_order_of_tags_is_theirs(tags: list[str]) -> None:
    for order in permutations(tags):
        assert set(tags_of(list(order))) == {tag.lower() for tag in tags}


async def test_details_custom_fields_and_opportunities_over_the_wire(location: Location, connect: Connector) -> None:
    field = location.custom_fields.add("Service ZIP Codes", field_key="contact.service_zip_codes")
    contact = location.add(email="ada@example.com", tags=("vip",), custom_fields=((field.id, "33101"),))
    opportunity = location.opportunities.add(contact.id, name="Roof")
    client = await connect(location)
    (found,) = (await client.search_contacts(ContactSearch(detailed=True))).contacts
    assert found.details is not None
    assert found.details.custom_fields == {field.id: "33101"}
    assert found.details.opportunity_ids == (opportunity.id,)
    assert (await client.contact(contact.id, detailed=True)).details is not None
    assert [(each.id, each.key) for each in await client.custom_fields()] == [(field.id, "contact.service_zip_codes")]
    page = await client.opportunities()
    assert [(each.id, each.contact_id) for each in page.opportunities] == [(opportunity.id, contact.id)]


async def test_opportunities_are_paged_to_their_end(location: Location, connect: Connector) -> None:
    contact = location.add(email="ada@example.com")
    made = {location.opportunities.add(contact.id, name=f"Roof {n}").id for n in range(205)}
    client = await connect(location)
    found: list[str] = []
    page = await client.opportunities()
    while page.opportunities:
        found += [each.id for each in page.opportunities]
        if page.next_cursor is None:
            break
        page = await client.opportunities(page.next_cursor)
    assert (len(found), set(found)) == (205, made)


@given(JSON)
def test_fields_and_opportunities_of_any_form_are_read_or_refused(wire: object) -> None:
    for body in (
        {"customFields": [wire]}, {"opportunities": [wire]}, {"opportunities": [], "meta": wire}, wire
    ):  # fmt: skip
        for decode in (decode_custom_fields, decode_opportunities):
            try:
                decode(msgspec.json.encode(body))
            except msgspec.DecodeError:
                continue
