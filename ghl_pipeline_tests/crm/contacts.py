"""Contacts for tests of the rules: what a test does not say is absent."""

from collections.abc import Mapping

from ghl_pipeline.crm.custom_fields import FieldIds, FieldKeys, FieldName
from ghl_pipeline.ghl.contact_details import ContactDetails, FieldValue
from ghl_pipeline.ghl.location_payloads import CustomField
from ghl_pipeline.ghl.payloads import Contact

CONTACT_ID = "contactAda0000000001"
REGION = "US"
# A location that has every field under our own name, and ids that say nothing.
FIELDS = FieldIds.find(
    FieldKeys.of(), [CustomField(f"id{n}", f"contact.{name}", None, None) for n, name in enumerate(FieldName)]
)


def contact(
    contact_id: str = CONTACT_ID,
    *,
    email: str | None = None,
    others: tuple[str, ...] = (),
    phone: str | None = None,
    first_name: str | None = None,
    last_name: str | None = None,
    company_name: str | None = None,
    names_are_whole: bool = True,
    details: ContactDetails | None = None,
) -> Contact:
    return Contact(
        contact_id,
        email=email,
        additional_emails=others,
        phone=phone,
        first_name=first_name,
        last_name=last_name,
        company_name=company_name,
        names_are_whole=names_are_whole,
        details=details or ContactDetails(),
    )


def holding(values: Mapping[FieldName, FieldValue], tags: tuple[str, ...] = ()) -> ContactDetails:
    """Details whose custom fields hold these values."""
    return ContactDetails(tags=tags, custom_fields={FIELDS.ids[name]: value for name, value in values.items()})
