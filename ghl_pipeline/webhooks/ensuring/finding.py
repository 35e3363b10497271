"""Finding one lead's contact for certain, whatever it costs: what is decided here may create a contact or link one.

A backfill trusts a search; here each contact is asked for by GET before it counts, because a search lags behind writes,
and an address counts as unknown only when the duplicate lookup does not know it either. Reads only.
"""

from collections.abc import Sequence

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.matching import Ambiguous, addresses_of, match_addresses
from ghl_pipeline.webhooks.ensuring.creations import Creation, CreationState
from ghl_pipeline.webhooks.ensuring.own_fields import OwnLead


class ContactFinder:
    """Finds contacts of one location. Every method raises GhlError when anything could not be asked."""

    def __init__(self, client: LocationClient, lookup: ContactLookup) -> None:
        self._client = client
        self._lookup = lookup

    async def of_lead(
        self, lead: OwnLead, notes: Sequence[Creation]
    ) -> tuple[Contact | Ambiguous | None, Creation | None]:
        """The lead's contact: by its link, by its address, and else what was created for it.

        Args:
            lead: as it is now.
            notes: of creations, as `find_creations` gives them.

        Returns:
            The contact, and the note that it has to do with, if any.
        """
        noted = next((note for note in notes if note.address == lead.address), None)
        if linked := await self.by_id(lead.contact_id):
            return linked, noted
        created = await self.by_id(noted.contact_id) if noted is not None else None
        if created is not None and has_address(created, lead.address):
            return created, noted
        if lead.address is not None and (found := await self.by_address(lead.address)):
            return found, noted
        # Its address was corrected since, here or at GHL. What was created for this very lead is still its contact.
        for note in notes:
            contact = created if note is noted else await self._made_under(note)
            if contact is not None and note.state is not CreationState.FOUND and note.lead_id == lead.id:
                return contact, note
        return None, noted

    async def _made_under(self, note: Creation) -> Contact | None:
        """What was created under another address than the lead's of now."""
        if note.state is CreationState.CREATED:
            return await self.by_id(note.contact_id)
        found = await self.by_address(note.address) if note.state is CreationState.STARTED else None
        # The address may have been a typing mistake, and be somebody else's.
        return found if isinstance(found, Contact) and note.may_have_made(found.date_added) else None

    async def by_id(self, contact_id: str | None) -> Contact | None:
        """The contact with this id; None when there is none, or the text cannot be an id and is not sent."""
        if contact_id is None or not is_contact_id(contact_id):
            return None
        contacts, errors = await self._lookup.get([contact_id])
        for error in errors.values():
            raise error
        return contacts.get(contact_id)

    async def by_address(self, address: str) -> Contact | Ambiguous | None:
        """The contact of a normalised address, as an additional one too; None: GHL knows of none."""
        found = await self._lookup.find_addresses([address])
        for error in found.failed.values():
            raise error
        candidates = found.contacts
        while isinstance(best := match_addresses([address], candidates).get(address), Contact):
            contact = await self.by_id(best.id)
            if contact is not None and has_address(contact, address):
                return contact
            # Deleted or changed, and the search does not know yet.
            candidates = [candidate for candidate in candidates if candidate.id != best.id]
        if best is not None:
            return best
        duplicate = await self._client.duplicate_of(address)
        contact = await self.by_id(duplicate.id) if duplicate is not None else None
        if contact is None or has_address(contact, address):
            return contact
        # GHL says that it is the same person, and shows other addresses: nothing for a program to decide.
        return Ambiguous(1)


def has_address(contact: Contact, address: str | None) -> bool:
    """Whether the contact has the normalised address, as its own or as an additional one."""
    return any(address == known for known, _ in addresses_of(contact))
