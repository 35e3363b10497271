"""A lead's own values, and which of them its contact is given. The rules are pure."""

import re
import unicodedata
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact, clean_text
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.ghl.standard_fields import StandardFields
from ghl_pipeline.hydration.resolve import askable_address

# One address and nothing else, with a domain that can have mail; GHL's own rule is not documented. A typing mistake
# must not become a contact.
_ADDRESS = re.compile(r"[^@\s,;<>\"()]+@[^@\s,;<>\"()]+\.[^@\s,;<>\"().]{2,}")

# A person asked not to be written to: by an event, or because somebody set that status in the dashboard. SQL on `lead`.
HAS_OPTED_OUT = """
    (lead.opted_out_at IS NOT NULL OR coalesce(lower(btrim(lead.status)) IN ('unsubscribed', 'do_not_contact'), false))
"""


@dataclass(frozen=True, slots=True)
class OwnLead:
    """A lead as it was before its contact gave it anything. Its `repr` shows ids only."""

    id: int
    contact_id: str | None
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    first_name: str | None = field(default=None, repr=False)
    last_name: str | None = field(default=None, repr=False)
    company_name: str | None = field(default=None, repr=False)
    opted_out: bool = False

    @property
    def address(self) -> str | None:
        """The address to look it up by, normalised; None when it has none."""
        return askable_address(_visible(self.email))

    @property
    def sendable_email(self) -> str | None:
        """Its e-mail as GHL may be given it; None when it is not one address that can have mail."""
        is_one = self.address is not None and _ADDRESS.fullmatch(self.address) is not None
        return clean_text(_visible(self.email)) if is_one else None

    @property
    def may_be_created(self) -> bool:
        """Whether a contact may be made of it: it did not opt out, and has one e-mail address that can be one."""
        return not self.opted_out and self.sendable_email is not None

    @property
    def was_linked(self) -> bool:
        """Whether it has had a contact, whose values may be among its own."""
        return is_contact_id(self.contact_id or "")


def read_own_lead(connection: Connection, client_id: int, lead_id: int) -> OwnLead:
    """The client's lead as it is now.

    Raises:
        UnknownClient: the client has no such lead (any more).
    """
    query = text(f"""
        SELECT id, ghl_contact_id, email, phone, first_name, last_name, company_name, {HAS_OPTED_OUT} AS opted_out
        FROM leads AS lead WHERE id = :lead_id AND client_id = :client_id
    """)  # noqa: S608 - a constant of ours
    row = connection.execute(query, {"lead_id": lead_id, "client_id": client_id}).one_or_none()
    if row is None:
        raise UnknownClient(
            f"UnknownClient: client {client_id} has no lead {lead_id}. Check the id in the dashboard's leads table."
        )
    return OwnLead(
        row.id, row.ghl_contact_id, row.email, row.phone, row.first_name, row.last_name, row.company_name, row.opted_out
    )


def sendable_phone(phone: str | None, default_region: str) -> str | None:
    """The number as E.164; None when it is no valid number, because GHL refuses a contact for those."""
    number = storable_phone(phone, default_region)
    return number if number is not None and number.startswith("+") else None


def fields_of_new(lead: OwnLead, default_region: str) -> StandardFields:
    """What a contact that is created for the lead is given: all that the lead has, the phone only as E.164."""
    return StandardFields(
        first_name=lead.first_name,
        last_name=lead.last_name,
        email=lead.sendable_email,
        phone=sendable_phone(lead.phone, default_region),
        company_name=lead.company_name,
    )


def fields_to_change(lead: OwnLead, contact: Contact, default_region: str) -> StandardFields:
    """What the lead's contact is given: names and company where the lead's own differ, if this is its first link.

    What a lead that has had a contact calls its own may be what GHL said once, and GHL's of today is newer: it gives
    only what the contact has none of.

    A contact's phone and e-mail are never replaced: they are given only when the contact has none, the e-mail only when
    it has no additional one either, and only if it is one address that can have mail.
    """
    own = _if_missing if lead.was_linked else _if_different
    has_email = contact.email is not None or bool(contact.additional_emails)
    return StandardFields(
        first_name=own(lead.first_name, contact.first_name),
        last_name=own(lead.last_name, contact.last_name),
        email=lead.sendable_email if not has_email else None,
        phone=sendable_phone(lead.phone, default_region) if contact.phone is None else None,
        company_name=own(lead.company_name, contact.company_name),
    )


def _visible(email: str | None) -> str | None:
    """Without characters that nobody sees (zero-width space, soft hyphen), which come along when text is copied."""
    if email is None or email.isascii():
        return email
    return "".join(character for character in email if unicodedata.category(character) != "Cf")


def _if_missing(own: str | None, theirs: str | None) -> str | None:
    return own if is_blank(theirs) and not is_blank(own) else None


def _if_different(own: str | None, theirs: str | None) -> str | None:
    if own is None or is_blank(own) or clean_text(own) == clean_text(theirs):
        return None
    return own
