"""Which lead has which contact and address, so that none is given to two."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.hydration.matching import normal_address
from ghl_pipeline.hydration.merge import ContactFields, LeadRow, Merged
from ghl_pipeline.hydration.outcomes import LeadField
from ghl_pipeline.hydration.resolve import Resolution


class Claims:
    """Which contacts and addresses of the client are taken, in the database and by leads decided before.

    A contact belongs to one lead and an address to one lead; without this a single clash would undo the whole page.
    """

    def __init__(self) -> None:
        self._contacts: dict[str, int] = {}
        self._emails: dict[str | None, int] = {}

    def read(self, connection: Connection, client_id: int, page: Sequence[Resolution]) -> None:
        """Adds who in the database has the page's contacts and addresses."""
        contact_ids = [r.contact.contact_id for r in page if r.contact]
        # A lead that has an address keeps it; only one that was looked up without can be given its contact's.
        emails = {r.contact.email.strip() for r in page if r.contact and r.contact.email and r.asked_email is None}
        by_contact = text("""
            SELECT ghl_contact_id, id FROM leads
            WHERE client_id = :client_id AND ghl_contact_id <> ''
              AND ghl_contact_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:contact_ids AS json))))
        """)
        # Compared as the unique index compares: the database's idea of lower case, not Python's.
        by_address = text("""
            SELECT email, id FROM leads
            WHERE client_id = :client_id AND btrim(email) <> ''
              AND lower(btrim(email)) = ANY(ARRAY(
                  SELECT lower(asked) FROM json_array_elements_text(CAST(:emails AS json)) AS asked))
        """)
        values = {
            "client_id": client_id,
            "contact_ids": as_json_list(contact_ids),
            "emails": as_json_list(sorted(emails)),
        }
        self._contacts |= {str(r.ghl_contact_id): int(r.id) for r in connection.execute(by_contact, values)}
        if emails:
            self._emails |= {normal_address(r.email): int(r.id) for r in connection.execute(by_address, values)}

    def may_link(self, lead: LeadRow, contact_id: str) -> bool:
        """Whether no other lead has the contact."""
        return self._contacts.get(contact_id, lead.id) == lead.id

    def without_taken_email(self, lead: LeadRow, contact: ContactFields) -> ContactFields:
        """The contact's fields, without its address when another lead has that."""
        address = normal_address(contact.email)
        if not is_blank(lead.email) or address is None or self._emails.get(address, lead.id) == lead.id:
            return contact
        return replace(contact, email=None)

    def take(self, merged: Merged) -> None:
        """Counts what the lead got as taken."""
        if merged.lead.contact_id:
            self._contacts[merged.lead.contact_id] = merged.lead.id
        if LeadField.EMAIL in merged.filled and merged.lead.email:
            self._emails[normal_address(merged.lead.email)] = merged.lead.id
