"""What a contact says of a lead. Pure; None means that GHL says nothing, which overwrites nothing."""

from dataclasses import dataclass

from ghl_pipeline.crm.custom_fields import FieldIds, FieldName
from ghl_pipeline.crm.field_values import one_text
from ghl_pipeline.crm.places import place_of, zip_of
from ghl_pipeline.crm.tags import is_new_lead
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration.matching import normal_address


@dataclass(frozen=True, slots=True)
class LeadValues:
    """A lead as its contact describes it.

    Attributes:
        contact_id: GHL's id of the contact.
        first_name: None when the answer had only the lower-cased name.
        last_name: likewise.
        email: as addresses are compared: lower-case.
        phone: E.164 when valid, else digits.
        primary_service_category: as GHL has it.
        specific_service_requested: as GHL has it.
        zip_code: five digits.
        county: of the ZIP code, full name: "Miami-Dade County".
        state: of the ZIP code, two-letter code.
        is_new: whether it is tagged as a new lead.
    """

    contact_id: str
    first_name: str | None
    last_name: str | None
    email: str | None
    phone: str | None
    primary_service_category: str | None
    specific_service_requested: str | None
    zip_code: str | None
    county: str | None
    state: str | None
    is_new: bool


def lead_values(contact: Contact, fields: FieldIds, default_region: str) -> LeadValues:
    """Reads a lead's contact.

    Args:
        contact: with its details; without them it has neither tags, nor custom fields, nor an address.
        fields: which custom field of the location is which.
        default_region: ISO 3166 alpha-2, for phone numbers without a country code.
    """
    details = contact.details or ContactDetails()
    zip_code = zip_of(details)
    place = place_of(zip_code)
    return LeadValues(
        contact_id=contact.id,
        first_name=contact.first_name,
        last_name=contact.last_name,
        email=normal_address(contact.email),
        phone=storable_phone(contact.phone, default_region),
        primary_service_category=one_text(fields.value(details, FieldName.PRIMARY_SERVICE_CATEGORY)),
        specific_service_requested=one_text(fields.value(details, FieldName.SPECIFIC_SERVICE_REQUESTED)),
        zip_code=zip_code,
        county=place.county if place else None,
        state=place.state if place else None,
        is_new=is_new_lead(details.tags),
    )
