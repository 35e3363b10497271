"""Who a contact is to the client: staff, a vendor, a lead, or somebody else. Pure; every contact is exactly one."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from ghl_pipeline.crm.tags import has_vendor_tag, is_new_lead
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration.matching import addresses_of, normal_address

_NOTHING: frozenset[str] = frozenset()
_VENDOR_SOURCE = "vendor application"


class ContactClass(StrEnum):
    """What a contact is to the client."""

    VENDOR = "vendor"
    LEAD = "lead"
    STAFF = "staff"
    OTHER = "other"


class Reason(StrEnum):
    """Why a contact is what it is: the first of these that is true, in this order."""

    STAFF_TYPE = "staff_type"
    STAFF_ID = "staff_id"
    STAFF_EMAIL = "staff_email"
    STAFF_PHONE = "staff_phone"
    VENDOR_ID = "vendor_id"
    VENDOR_EMAIL = "vendor_email"
    VENDOR_TAG = "vendor_tag"
    VENDOR_SOURCE = "vendor_source"
    LEAD_ID = "lead_id"
    LEAD_EMAIL = "lead_email"
    LEAD_OPPORTUNITY = "lead_opportunity"
    VENDOR_ADDITIONAL_EMAIL = "vendor_additional_email"
    LEAD_ADDITIONAL_EMAIL = "lead_additional_email"
    NEW_LEAD_TAG = "new_lead_tag"
    UNKNOWN = "unknown"


_SIGNALS = frozenset({Reason.VENDOR_TAG, Reason.VENDOR_SOURCE})
_CLASS_OF = {
    reason: ContactClass.LEAD if reason is Reason.NEW_LEAD_TAG else ContactClass(reason.partition("_")[0])
    for reason in Reason
    if reason is not Reason.UNKNOWN
} | {Reason.UNKNOWN: ContactClass.OTHER}


@dataclass(frozen=True, slots=True)
class Known:
    """Who is known at a location: ids are GHL's contact ids, e-mails as `normal_address` gives them, phones E.164.

    `staff_ids` are contacts that are known to be staff, and the ids of the location's users.
    """

    vendor_ids: Collection[str] = field(default=_NOTHING, repr=False)
    vendor_emails: Collection[str] = field(default=_NOTHING, repr=False)
    lead_ids: Collection[str] = field(default=_NOTHING, repr=False)
    lead_emails: Collection[str] = field(default=_NOTHING, repr=False)
    lead_opportunity_ids: Collection[str] = field(default=_NOTHING, repr=False)
    staff_ids: Collection[str] = field(default=_NOTHING, repr=False)
    staff_emails: Collection[str] = field(default=_NOTHING, repr=False)
    staff_phones: Collection[str] = field(default=_NOTHING, repr=False)


@dataclass(frozen=True, slots=True)
class Classified:
    """A contact's class and why.

    `is_reclassified`: until now a lead, from now on a vendor. In the next run it is known as a vendor and no longer
    counts.
    """

    contact_class: ContactClass
    reason: Reason
    is_reclassified: bool = False


def classify(
    contact: Contact, known: Known, *, discover: bool, default_region: str, opportunity_ids: Collection[str] = ()
) -> Classified:
    """What a contact is, by the first rule that says something.

    1. Staff, by type, id, own e-mail or phone of a user: neither vendor nor lead, whatever else is true.
    2. A vendor by id or own e-mail, or by a signal of its own: a tag, or "Vendor Application" in its source.
    3. A lead by id, own e-mail or opportunity.
    4. Whose additional e-mail is known: a weaker match, because people share addresses; a vendor's before a lead's.
    5. With `discover`, whoever is tagged as a new lead and known to nobody is a lead. There is no other way for a lead
       to come into being here: whoever else is unknown could be anybody.
    6. Other.

    Whether contacts that nobody knows are fetched at all is not decided here: a vendor's signal counts always.

    Args:
        contact: with its details; without them it has no tags, no source and no type.
        known: who is known at its location.
        discover: whether leads may be created from contacts that nobody knows.
        default_region: ISO 3166 alpha-2, for the contact's phone number.
        opportunity_ids: the contact's opportunities (`custom_fields.opportunity_ids_of`).
    """
    details = contact.details or ContactDetails()
    own = normal_address(contact.email)
    additional = {address for address, is_additional in addresses_of(contact) if is_additional}
    lead = _lead(contact, own, opportunity_ids, known)
    reason = (
        _staff(contact, details, known, default_region)
        or _known_vendor(contact, own, known)
        or _vendor_signal(details)
        or lead
        or _by_additional_email(additional, known)
        or (Reason.NEW_LEAD_TAG if discover and is_new_lead(details.tags) else Reason.UNKNOWN)
    )
    was_lead = lead is not None or _any(additional, known.lead_emails)
    is_new_vendor = reason in _SIGNALS and not _any(additional, known.vendor_emails)
    return Classified(_CLASS_OF[reason], reason, is_reclassified=was_lead and is_new_vendor)


def _staff(contact: Contact, details: ContactDetails, known: Known, default_region: str) -> Reason | None:
    if details.type == "staff":
        return Reason.STAFF_TYPE
    if contact.id in known.staff_ids:
        return Reason.STAFF_ID
    # Only its own e-mail: somebody who has a member of the staff among the additional ones is a customer of theirs.
    if normal_address(contact.email) in known.staff_emails:
        return Reason.STAFF_EMAIL
    # Reading a number is dear (some 60 us), and few locations give their users' numbers.
    if known.staff_phones and storable_phone(contact.phone, default_region) in known.staff_phones:
        return Reason.STAFF_PHONE
    return None


def _known_vendor(contact: Contact, own_email: str | None, known: Known) -> Reason | None:
    if contact.id in known.vendor_ids:
        return Reason.VENDOR_ID
    return Reason.VENDOR_EMAIL if own_email in known.vendor_emails else None


def _vendor_signal(details: ContactDetails) -> Reason | None:
    if has_vendor_tag(details.tags):
        return Reason.VENDOR_TAG
    is_application = _VENDOR_SOURCE in " ".join((details.source or "").casefold().split())
    return Reason.VENDOR_SOURCE if is_application else None


def _lead(contact: Contact, own_email: str | None, opportunity_ids: Collection[str], known: Known) -> Reason | None:
    if contact.id in known.lead_ids:
        return Reason.LEAD_ID
    if own_email in known.lead_emails:
        return Reason.LEAD_EMAIL
    return Reason.LEAD_OPPORTUNITY if _any(opportunity_ids, known.lead_opportunity_ids) else None


def _by_additional_email(additional: Collection[str], known: Known) -> Reason | None:
    if _any(additional, known.vendor_emails):
        return Reason.VENDOR_ADDITIONAL_EMAIL
    return Reason.LEAD_ADDITIONAL_EMAIL if _any(additional, known.lead_emails) else None


def _any(values: Collection[str], known: Collection[str]) -> bool:
    return any(value in known for value in values)
