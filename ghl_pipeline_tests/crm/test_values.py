"""What a contact says of a vendor and of a lead."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghl_pipeline.crm.coverage import CoverageKind
from ghl_pipeline.crm.custom_fields import FieldIds, FieldName
from ghl_pipeline.crm.lead_fields import LeadValues, lead_values
from ghl_pipeline.crm.vendor_fields import VendorValues, vendor_values
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline_tests.crm.contacts import CONTACT_ID, FIELDS, REGION, contact, holding
from ghl_pipeline_tests.crm.test_custom_fields import ANY_JSON


def vendor(who: Contact) -> VendorValues:
    return vendor_values(who, FIELDS, REGION)


def lead(who: Contact) -> LeadValues:
    return lead_values(who, FIELDS, REGION)


def test_every_field_of_a_vendor_is_read() -> None:
    details = holding(
        {
            FieldName.SERVICE_CATEGORIES: ["Roofing", "Heating"],
            FieldName.SERVICES_OFFERED: "repair, inspection",
            FieldName.SERVICE_ZIP_CODES: "Broward County, FL",
            FieldName.TAKING_NEW_WORK: "Yes",
            FieldName.LAST_LEAD_ASSIGNED: "2026-03-04",
            FieldName.LEAD_CLOSE_PERCENTAGE: "45%",
            FieldName.PRIMARY_SERVICE_CATEGORY: "Roofing",
            FieldName.GHL_USER_ID: "user1",
        },
        tags=("manually approved",),
    )
    found = vendor(
        contact(
            email="Ada@Example.com", phone="305-555-0123", first_name="Ada", last_name="Byron", company_name="Roofs",
            details=details,
        )
    )  # fmt: skip
    assert found == VendorValues(
        contact_id=CONTACT_ID,
        name="Ada Byron",
        name_is_companys=False,
        email="ada@example.com",
        phone="+13055550123",
        company_name="Roofs",
        service_categories=("Roofing", "Heating"),
        services_offered=("repair", "inspection"),
        service_zip_codes="Broward County, FL",
        coverage=found.coverage,
        taking_new_work=True,
        last_lead_assigned_at=datetime(2026, 3, 4, tzinfo=UTC),
        lead_close_percentage=Decimal(45),
        primary_service_category="Roofing",
        ghl_user_id="user1",
        status="active",
    )
    assert found.coverage.counties == ("Broward, FL",)


def test_an_empty_contact_says_nothing() -> None:
    for details in (None, ContactDetails()):
        found = vendor(Contact(CONTACT_ID, details=details))
        assert found == VendorValues(
            CONTACT_ID, None, None, None, None, (), (), None, found.coverage, None, None, None, None, None, None
        )
        assert found.coverage.kind is CoverageKind.NONE
        assert lead(Contact(CONTACT_ID, details=details)) == LeadValues(
            CONTACT_ID, None, None, None, None, None, None, None, None, None, is_new=False
        )


@pytest.mark.parametrize(
    ("who", "name"),
    [
        (contact(first_name="Ada", last_name="Byron", company_name="Roofs"), "Ada Byron"),
        (contact(last_name="Byron", company_name="Roofs"), "Byron"),
        (contact(company_name="Roofs"), "Roofs"),
        (contact(), None),
        (contact(company_name="Roofs", names_are_whole=False), None),
    ],
)
def test_a_vendor_is_called_by_the_persons_name_else_the_companys(who: Contact, name: str | None) -> None:
    assert vendor(who).name == name


def test_what_cannot_be_read_is_named_and_the_text_of_the_coverage_is_kept() -> None:
    details = holding(
        {
            FieldName.SERVICE_ZIP_CODES: "ask me",
            FieldName.TAKING_NEW_WORK: "maybe",
            FieldName.LAST_LEAD_ASSIGNED: "last week",
            FieldName.LEAD_CLOSE_PERCENTAGE: "many",
        }
    )
    found = vendor(contact(details=details))
    assert found.unreadable == (
        FieldName.SERVICE_ZIP_CODES,
        FieldName.TAKING_NEW_WORK,
        FieldName.LAST_LEAD_ASSIGNED,
        FieldName.LEAD_CLOSE_PERCENTAGE,
    )
    assert (found.taking_new_work, found.last_lead_assigned_at, found.lead_close_percentage) == (None, None, None)
    assert found.service_zip_codes == "ask me"


def test_tags_without_a_level_leave_the_status_open() -> None:
    assert vendor(contact(details=holding({}, tags=("new vendor",)))).status is None


def test_every_field_of_a_lead_is_read() -> None:
    fields = holding(
        {
            FieldName.PRIMARY_SERVICE_CATEGORY: ["Roofing"],
            FieldName.SPECIFIC_SERVICE_REQUESTED: "A leak over the stairs",
        }
    ).custom_fields
    details = ContactDetails(tags=("new lead",), custom_fields=fields, postal_code="33125-1234", state="NY")
    found = lead(
        contact(email="Ada@example.com", phone="+1 305 555 0123", first_name="Ada", last_name="Byron", details=details)
    )
    assert found == LeadValues(
        contact_id=CONTACT_ID,
        first_name="Ada",
        last_name="Byron",
        email="ada@example.com",
        phone="+13055550123",
        primary_service_category="Roofing",
        specific_service_requested="A leak over the stairs",
        zip_code="33125",
        county="Miami-Dade County",
        state="FL",
        is_new=True,
    )


def test_a_lead_abroad_has_no_zip_code() -> None:
    found = lead(contact(details=ContactDetails(postal_code="33125", country="DE", address="1 Main St 33125")))
    assert (found.zip_code, found.county, found.state) == (None, None, None)


def test_a_location_without_our_fields_yields_what_every_contact_has() -> None:
    found = vendor_values(
        contact(email="ada@example.com", details=holding({FieldName.GHL_USER_ID: "u"})), FieldIds({}), REGION
    )
    assert (found.email, found.ghl_user_id) == ("ada@example.com", None)


@settings(deadline=None)  # the first example waits for the ZIP codes
@given(st.dictionaries(st.sampled_from(FieldName), ANY_JSON))
def test_no_value_of_any_field_stops_the_reading(values: dict[FieldName, object]) -> None:
    details = ContactDetails(custom_fields={FIELDS.ids[name]: value for name, value in values.items()})  # type: ignore[misc]
    found = vendor(contact(details=details))
    assert lead(contact(details=details)).zip_code is None
    assert found.lead_close_percentage is None or 0 <= found.lead_close_percentage <= 100
    assert set(found.unreadable) <= set(values)
