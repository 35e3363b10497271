"""The merge rule: what a contact may write into a lead. Pure; a value of a person is never overwritten."""

from dataclasses import dataclass

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration.outcomes import LeadField

# A longer e-mail is no address (RFC 5321 4.5.3.1: 64 octets before the @ and 255 behind it): it is neither asked for
# nor taken over. Some thousand letters more would not even fit into the unique index.
MAX_EMAIL = 320
# The dashboard's word for leads that nobody has to enrich; hydration leaves that decision alone.
NOT_NEEDED = "not_needed"


@dataclass(frozen=True, slots=True)
class LeadRow:
    """The part of a lead that hydration reads and may fill."""

    id: int
    contact_id: str | None
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    company_name: str | None
    enrichment_status: str | None = None


@dataclass(frozen=True, slots=True)
class ContactFields:
    """What a found contact offers, as GHL gave it."""

    contact_id: str
    email: str | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    company_name: str | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """A lead after the merge: the new values of all fields, which are new, and whether it counts as enriched."""

    lead: LeadRow
    filled: LeadField
    enriched: bool


def merge(lead: LeadRow, contact: ContactFields, default_region: str, *, relink: bool = False) -> Merged:
    """Fills what is empty in `lead` from `contact`; links it when it has no link.

    Args:
        lead: the lead as it is in the database now.
        contact: the contact that was found for it.
        default_region: ISO 3166 alpha-2, for phone numbers without a country code.
        relink: the lead's own link is known to be dead (contact deleted, or no contact id at all), so that it may be
            replaced. The only value that hydration ever replaces.

    A lead counts as enriched when its phone was filled, unless the dashboard marked it as not needing that.
    """
    filled = LeadField(0)
    new_link = contact.contact_id if is_blank(lead.contact_id) or relink else lead.contact_id
    if new_link != lead.contact_id:
        filled |= LeadField.CONTACT_LINK

    def fill(flag: LeadField, mine: str | None, theirs: str | None) -> str | None:
        nonlocal filled
        if not is_blank(mine) or theirs is None or is_blank(theirs):
            return mine
        filled |= flag
        return theirs.strip()

    email = fill(LeadField.EMAIL, lead.email, contact.email if len(contact.email or "") <= MAX_EMAIL else None)
    # Reading a number is the dearest part of a merge (some 60 us), so only for a lead that lacks one.
    offered_phone = storable_phone(contact.phone, default_region) if is_blank(lead.phone) else None
    phone = fill(LeadField.PHONE, lead.phone, offered_phone)
    first_name = fill(LeadField.FIRST_NAME, lead.first_name, contact.first_name)
    last_name = fill(LeadField.LAST_NAME, lead.last_name, contact.last_name)
    company_name = fill(LeadField.COMPANY_NAME, lead.company_name, contact.company_name)
    merged = LeadRow(lead.id, new_link, email, phone, first_name, last_name, company_name, lead.enrichment_status)
    enriched = LeadField.PHONE in filled and lead.enrichment_status != NOT_NEEDED
    return Merged(merged, filled, enriched)
