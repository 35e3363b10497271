"""What a pull brought, as a source of contacts: leads it covers cost no call, the others are looked up."""

from collections.abc import Sequence

from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.lookup import ContactLookup, Found
from ghl_pipeline.hydration.resolve import LeadKey, askable_address


class PulledContacts:
    """Contacts for one page of leads. A `resolve.ContactSource`.

    Args:
        keys: the leads of the page.
        contacts: what was pulled for them.
        lookup: for leads that the pull does not cover, and to verify links that it did not bring: a search lags behind
            writes.
    """

    def __init__(self, keys: Sequence[LeadKey], contacts: Sequence[Contact], lookup: ContactLookup) -> None:
        covered = [key for key in keys if key.is_covered]
        self._ids = {key.contact_id for key in covered}
        self._dead = {key.contact_id for key in covered if key.link_was_dead}
        # One address of two leads (they differ by odd white space) is asked for if it is for one of them.
        asked = {askable_address(key.email) for key in keys if not key.is_covered}
        self._addresses = {askable_address(key.email) for key in covered} - asked
        self._contacts = list(contacts)
        self._lookup = lookup

    async def find_ids(self, ids: Sequence[str]) -> Found:
        """Contacts with these ids. Raises as `ContactLookup.find`."""
        found = await self._lookup.find_ids([id_ for id_ in ids if id_ not in self._ids])
        return Found(self._contacts + found.contacts, found.failed)

    async def find_addresses(self, addresses: Sequence[str]) -> Found:
        """Contacts with these addresses. Raises as `ContactLookup.find`."""
        found = await self._lookup.find_addresses([a for a in addresses if a not in self._addresses])
        return Found(self._contacts + found.contacts, found.failed)

    async def get(self, contact_ids: Sequence[str]) -> tuple[dict[str, Contact | None], dict[str, GhlError]]:
        """Contacts by GET, but for those that the last lookup said are gone. Raises as `ContactLookup.get`."""
        contacts, failed = await self._lookup.get([id_ for id_ in contact_ids if id_ not in self._dead])
        return {**contacts, **{id_: None for id_ in contact_ids if id_ in self._dead}}, failed
