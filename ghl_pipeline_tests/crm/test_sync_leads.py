"""Leads in step with their contacts: matched, updated, made; status by the tag, where they live only filled in."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.custom_fields import FieldName
from ghl_pipeline_tests.crm.syncing import Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

REQUEST: dict[str, object] = {
    FieldName.PRIMARY_SERVICE_CATEGORY: "Roofing",
    FieldName.SPECIFIC_SERVICE_REQUESTED: "Leak",
}


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox)


async def test_a_lead_that_is_known_by_its_contact_is_updated(client: Client) -> None:
    made = client.contact(
        first_name="Ada", last_name="Byron", email="ada@example.com", phone="305-555-0123", postal_code="33139-1234",
        country="US", values=REQUEST,
    )  # fmt: skip
    client.lead(ghl_contact_id=made.id, first_name="A.", email="old@example.com", status="contacted")
    report = await client.sync()
    row = client.the_lead()
    expected = {
        "first_name": "Ada",
        "last_name": "Byron",
        "email": "ada@example.com",
        "phone": "+13055550123",
        "primary_service_category": "Roofing",
        "specific_service_requested": "Leak",
        "zip_code": "33139",
        "county": "Miami-Dade County",
        "state": "FL",
        "status": "contacted",
        "enrichment_status": "enriched",
        "enrichment_source": "ghl",
    }
    assert {name: row[name] for name in expected} == expected
    assert row["enriched_at"] is not None
    assert (report.leads_updated, report.leads_created) == (1, 0)


async def test_a_lead_that_is_known_by_its_email_is_linked(client: Client) -> None:
    made = client.contact(email="Ada@Example.com")
    client.lead(email="ada@example.com")
    await client.sync()
    assert client.the_lead()["ghl_contact_id"] == made.id


async def test_a_lead_that_is_known_by_an_opportunity_is_linked(client: Client) -> None:
    listed, named = client.contact(email="ada@example.com"), client.contact(email="ben@example.com")
    deal = client.ghl.opportunities.add(listed.id, name="Roof")
    field_value = client.values({FieldName.OPPORTUNITY_ID: "opportunityOfBen00001"})
    client.ghl.change(named.id, custom_fields=field_value)
    ada = client.lead(ghl_opportunity_id=deal.id)
    ben = client.lead(ghl_opportunity_id="opportunityOfBen00001")
    report = await client.sync()
    rows = {row["id"]: row for row in client.leads()}
    assert (rows[ada]["ghl_contact_id"], rows[ada]["email"]) == (listed.id, "ada@example.com")
    assert rows[ben]["ghl_contact_id"] == named.id
    assert report.reasons.get("lead_opportunity") == 2


async def test_what_ghl_does_not_say_overwrites_nothing(client: Client) -> None:
    made = client.contact(phone="12")
    own = {
        "first_name": "Ada",
        "last_name": "Byron",
        "email": "ada@example.com",
        "phone": "+13055550123",
        "primary_service_category": "Roofing",
        "specific_service_requested": "Leak",
        "zip_code": "33139",
        "county": "Miami-Dade County",
        "state": "FL",
    }
    client.lead(ghl_contact_id=made.id, **own)
    before = client.the_lead()
    report = await client.sync()
    assert (client.the_lead(), report.leads_updated) == (before, 0)


@pytest.mark.parametrize(
    ("own", "zip_code", "county", "state"),
    [
        ({}, "33139", "Miami-Dade County", "FL"),
        ({"zip_code": " "}, "33139", "Miami-Dade County", "FL"),
        ({"zip_code": "10001"}, "10001", "New York County", "NY"),
        ({"zip_code": "10001-2345"}, "10001-2345", "New York County", "NY"),
        ({"zip_code": "abc"}, "abc", None, None),
        ({"county": "Broward"}, "33139", "Broward", "FL"),
        ({"state": "GA", "county": ""}, "33139", "Miami-Dade County", "GA"),
    ],
)
async def test_where_a_lead_lives_is_only_filled_in(
    client: Client, own: dict[str, str], zip_code: str, county: str | None, state: str | None
) -> None:
    made = client.contact(postal_code="33139", country="US")
    client.lead(ghl_contact_id=made.id, **own)
    await client.sync()
    row = client.the_lead()
    assert (row["zip_code"], row["county"], row["state"]) == (zip_code, county, state)


async def test_the_zip_may_be_in_the_street_address(client: Client) -> None:
    made = client.contact(address1="12345 Ocean Drive, Miami Beach, FL 33139")
    client.lead(ghl_contact_id=made.id)
    await client.sync()
    assert client.the_lead()["zip_code"] == "33139"


@pytest.mark.parametrize(
    ("own", "tagged", "after"),
    [
        ({"status": "unassigned"}, True, "new lead"),
        ({"status": "contacted"}, True, "new lead"),
        ({"status": "new lead"}, False, "new lead"),
        ({"status": "contacted"}, False, "contacted"),
        ({"status": "Booked"}, True, "Booked"),
        ({"status": "do_not_contact"}, True, "do_not_contact"),
        ({"status": "unsubscribed"}, True, "unsubscribed"),
        ({"status": "contacted", "opted_out_at": datetime(2026, 1, 1, tzinfo=UTC)}, True, "contacted"),
        # What an event said of it since: it is not new any more.
        ({"status": "interested"}, True, "interested"),
        ({"status": "replied"}, True, "replied"),
        ({"status": "bounced"}, True, "bounced"),
    ],
)
async def test_the_tag_makes_a_new_lead_of_whom_it_may(
    client: Client, own: dict[str, object], tagged: bool, after: str
) -> None:
    made = client.contact(email="ada@example.com", tags=("New Lead",) if tagged else ())
    client.lead(ghl_contact_id=made.id, email="ada@example.com", **own)
    await client.sync()
    assert client.the_lead()["status"] == after


async def test_a_new_lead_that_only_ghl_knows_gets_a_row(client: Client) -> None:
    made = client.contact(
        first_name="Ada", email="Ada@Example.com", phone="305-555-0123", tags=("new lead",), postal_code="33139",
        values=REQUEST,
    )  # fmt: skip
    client.contact(email="anybody@example.com", tags=("newsletter",))
    report = await client.sync()
    row = client.the_lead()
    assert (row["ghl_contact_id"], row["email"], row["phone"], row["first_name"], row["status"]) == (
        made.id, "ada@example.com", "+13055550123", "Ada", "new lead",
    )  # fmt: skip
    assert (row["state"], row["specific_service_requested"]) == ("FL", "Leak")
    assert report.leads_created == 1


async def test_an_address_that_is_one_of_the_contacts_stays(client: Client) -> None:
    made = client.contact(email="ada@example.com", additional_emails=("ada.at.work@example.com",))
    client.lead(email="ada.at.work@example.com")
    await client.sync()
    row = client.the_lead()
    assert (row["ghl_contact_id"], row["email"]) == (made.id, "ada.at.work@example.com")


@pytest.mark.parametrize("status", [None, "not_needed", "pending"])
async def test_a_filled_phone_counts_as_enrichment_unless_none_is_needed(client: Client, status: str | None) -> None:
    made = client.contact(phone="305-555-0123")
    client.lead(ghl_contact_id=made.id, enrichment_status=status)
    await client.sync()
    assert client.the_lead()["enrichment_status"] == ("not_needed" if status == "not_needed" else "enriched")


async def test_another_phone_is_no_enrichment(client: Client) -> None:
    made = client.contact(phone="305-555-0123")
    client.lead(ghl_contact_id=made.id, phone="+13055550199")
    await client.sync()
    row = client.the_lead()
    assert (row["phone"], row["enrichment_status"]) == ("+13055550123", None)


async def test_phones_are_read_in_the_clients_region(client: Client) -> None:
    client.sql("UPDATE clients SET default_region = 'GB'")
    made = client.contact(phone="020 7946 0958")
    client.lead(ghl_contact_id=made.id)
    await client.sync()
    assert client.the_lead()["phone"] == "+442079460958"


async def test_a_lead_whose_contact_is_a_vendor_now_is_left_as_it_is(client: Client) -> None:
    made = client.contact(email="ada@example.com", first_name="Ada", tags=("new vendor",))
    client.lead(ghl_contact_id=made.id, email="ada@example.com", status="replied")
    before = client.the_lead()
    first, second = await client.sync(), await client.sync()
    assert client.the_vendor()["ghl_contact_id"] == made.id
    assert client.the_lead() == before
    assert (first.reclassified, first.leads_deleted, second.reclassified) == (1, 0, 0)
