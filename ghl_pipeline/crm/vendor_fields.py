"""What a contact says of a vendor. Pure; None and empty mean that GHL says nothing, which overwrites nothing."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from ghl_pipeline.crm.coverage import Coverage, CoverageKind, read_coverage
from ghl_pipeline.crm.custom_fields import FieldIds, FieldName
from ghl_pipeline.crm.field_values import Unread, Unreadable, moment, one_text, percentage, texts, yes_or_no
from ghl_pipeline.crm.tags import vendor_status
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration.matching import normal_address

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VendorValues:
    """A vendor as its contact describes it.

    Attributes:
        contact_id: GHL's id of the contact.
        name: first and last name, else the company's.
        email: as addresses are compared: lower-case.
        phone: E.164 when valid, else digits.
        company_name: as GHL has it.
        service_categories: each once.
        services_offered: each once.
        service_zip_codes: the field's own text, whether or not it could be read.
        coverage: what was read of it.
        taking_new_work: None when the field is empty or says neither yes nor no.
        last_lead_assigned_at: aware, in UTC.
        lead_close_percentage: 0 to 100, two decimals.
        primary_service_category: as GHL has it.
        ghl_user_id: the vendor's user at the location.
        status: by the tags; None when they say nothing of it.
        unreadable: fields that hold something, but not what they are for.
        name_is_companys: whether the company's had to do, which says nothing of what the person is called.
    """

    contact_id: str
    name: str | None
    email: str | None
    phone: str | None
    company_name: str | None
    service_categories: tuple[str, ...]
    services_offered: tuple[str, ...]
    service_zip_codes: str | None
    coverage: Coverage
    taking_new_work: bool | None
    last_lead_assigned_at: datetime | None
    lead_close_percentage: Decimal | None
    primary_service_category: str | None
    ghl_user_id: str | None
    status: str | None
    unreadable: tuple[FieldName, ...] = ()
    name_is_companys: bool = False


def vendor_values(contact: Contact, fields: FieldIds, default_region: str) -> VendorValues:
    """Reads a vendor's contact.

    Args:
        contact: with its details; without them it has neither tags nor custom fields.
        fields: which custom field of the location is which.
        default_region: ISO 3166 alpha-2, for phone numbers without a country code.
    """
    details = contact.details or ContactDetails()
    name = _name(contact)
    # Where the names are not whole there is one, in lower case; the company's would take its place.
    company = contact.company_name if contact.names_are_whole else None
    coverage = read_coverage(fields.value(details, FieldName.SERVICE_ZIP_CODES))
    taking_new_work = yes_or_no(fields.value(details, FieldName.TAKING_NEW_WORK))
    last_lead_assigned = moment(fields.value(details, FieldName.LAST_LEAD_ASSIGNED))
    close_percentage = percentage(fields.value(details, FieldName.LEAD_CLOSE_PERCENTAGE))
    is_unreadable = {
        FieldName.SERVICE_ZIP_CODES: coverage.kind is CoverageKind.UNREADABLE,
        FieldName.TAKING_NEW_WORK: isinstance(taking_new_work, Unreadable),
        FieldName.LAST_LEAD_ASSIGNED: isinstance(last_lead_assigned, Unreadable),
        FieldName.LEAD_CLOSE_PERCENTAGE: isinstance(close_percentage, Unreadable),
    }
    return VendorValues(
        contact_id=contact.id,
        name=name or company,
        name_is_companys=name is None and company is not None,
        email=normal_address(contact.email),
        phone=storable_phone(contact.phone, default_region),
        company_name=contact.company_name,
        service_categories=texts(fields.value(details, FieldName.SERVICE_CATEGORIES)),
        services_offered=texts(fields.value(details, FieldName.SERVICES_OFFERED)),
        service_zip_codes=coverage.text,
        coverage=coverage,
        taking_new_work=_read(taking_new_work),
        last_lead_assigned_at=_read(last_lead_assigned),
        lead_close_percentage=_read(close_percentage),
        primary_service_category=one_text(fields.value(details, FieldName.PRIMARY_SERVICE_CATEGORY)),
        ghl_user_id=one_text(fields.value(details, FieldName.GHL_USER_ID)),
        status=vendor_status(details.tags),
        unreadable=tuple(name for name, unreadable in is_unreadable.items() if unreadable),
    )


def _name(contact: Contact) -> str | None:
    if not contact.names_are_whole:
        return None
    return " ".join(part for part in (contact.first_name, contact.last_name) if part) or None


def _read(value: T | Unread | None) -> T | None:
    return None if isinstance(value, Unreadable) else value
