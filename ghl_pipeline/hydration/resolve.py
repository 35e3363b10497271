"""A page of leads -> one resolution each: which contact is the lead's, or why there is none. Searches only.

Reads and writes no table, so that a backfill, a preview and a single lead are resolved by the very same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.lookup import Found
from ghl_pipeline.hydration.matching import Ambiguous, match_addresses, normal_address
from ghl_pipeline.hydration.merge import MAX_EMAIL, ContactFields
from ghl_pipeline.hydration.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class LeadKey:
    """What a lead is looked up by. `position` is its place in the work list, any number outside one.

    `is_covered`: a pull has brought every contact that can be the lead's. `link_was_dead`: its link led nowhere when it
    was last asked.
    """

    position: int
    lead_id: int
    contact_id: str | None
    email: str | None
    needs_names: bool = False
    is_covered: bool = False
    link_was_dead: bool = False


class ContactSource(Protocol):
    """Where contacts come from: lookups, or what a pull brought."""

    async def find_ids(self, ids: Sequence[str]) -> Found:
        """Contacts with these ids, as far as they are known there."""

    async def find_addresses(self, addresses: Sequence[str]) -> Found:
        """Contacts with these normalised addresses."""

    async def get(self, contact_ids: Sequence[str]) -> tuple[dict[str, Contact | None], dict[str, GhlError]]:
        """Contacts as GHL has them now; None where it says that there is none; and the errors."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of one lead's lookup.

    With a `contact`, `outcome` is `UNCHANGED` until the write-back knows better; without one it is final.
    `asked_contact_id` and `asked_email` are what the lead said when it was looked up: the write-back leaves the lead
    alone when they have changed meanwhile. `link_is_dead`: the lead's own link leads nowhere, which was verified, or
    cannot be a contact id, so that it may be replaced.
    """

    key: LeadKey
    outcome: Outcome
    contact: ContactFields | None = None
    asked_email: str | None = None
    link_is_dead: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedPage:
    """One resolution per lead of the page, in its order, and the errors behind the failed ones."""

    resolutions: tuple[Resolution, ...]
    errors: tuple[GhlError, ...] = ()


async def resolve_page(leads: Sequence[LeadKey], source: ContactSource) -> ResolvedPage:
    """Looks up the contacts of a page of leads, in groups.

    A lead's own link is asked first; only if GHL has no such contact, or the link cannot be one, its e-mail is asked.

    Args:
        leads: any number; a page of some hundred keeps memory flat and loses little to a kill.
        source: the location's lookups, or what was pulled of it.

    Raises:
        PermanentGhlError: the location as a whole refuses (token, access, scope, daily quota).
        TransientGhlError: GHL is down. Nothing of the page is resolved then.
    """
    page = _Page(source)
    await page.ask_links([lead for lead in leads if is_contact_id(lead.contact_id)])
    await page.ask_addresses([lead for lead in leads if page.needs_address(lead)])
    resolutions = tuple(page.resolution(lead) for lead in leads)
    return ResolvedPage(resolutions, tuple(page.errors.values()))


class _Page:
    """The answers gathered for one page. Keys are contact ids and normalised addresses."""

    def __init__(self, source: ContactSource) -> None:
        self._source = source
        self._by_id: dict[str, Contact | None] = {}
        self._by_address: dict[str, Contact | Ambiguous | None] = {}
        self.errors: dict[str, GhlError] = {}

    async def ask_links(self, leads: Sequence[LeadKey]) -> None:
        """Asks for the contacts that leads are linked to: by group, then singly for those no group answered."""
        ids = list(dict.fromkeys(lead.contact_id for lead in leads if lead.contact_id))
        if not ids:
            return
        found = await self._source.find_ids(ids)
        wanted = set(ids)
        self._by_id.update({contact.id: contact for contact in found.contacts if contact.id in wanted})
        # A search lags behind writes, so a link that it does not know is verified before it counts as deleted; and
        # items that carry only lower-cased names are asked again where a name is wanted.
        unsure = [id_ for id_ in ids if id_ not in self._by_id and id_ not in found.failed]
        unsure += [
            lead.contact_id
            for lead in leads
            if lead.contact_id and lead.needs_names and (contact := self._by_id.get(lead.contact_id))
            and not contact.names_are_whole
        ]  # fmt: skip
        contacts, errors = await self._source.get(list(dict.fromkeys(unsure)))
        self._by_id.update(contacts)
        self.errors.update(found.failed)
        self.errors.update(errors)

    def needs_address(self, lead: LeadKey) -> bool:
        """Whether the lead is to be found by its e-mail: its link, if any, leads nowhere, and that is certain."""
        return is_blank(lead.contact_id) or self.link_is_dead(lead)

    def link_is_dead(self, lead: LeadKey) -> bool:
        """Whether the lead has a link that cannot be a contact id, or of which GHL said that there is no contact."""
        if lead.contact_id is None or is_blank(lead.contact_id):
            return False
        if not is_contact_id(lead.contact_id):
            return True
        return lead.contact_id in self._by_id and self._by_id[lead.contact_id] is None

    async def ask_addresses(self, leads: Sequence[LeadKey]) -> None:
        """Asks for the contacts of e-mail addresses."""
        addresses = {lead.lead_id: address for lead in leads if (address := askable_address(lead.email))}
        unique = list(dict.fromkeys(addresses.values()))
        found = await self._source.find_addresses(unique)
        self.errors.update(found.failed)
        self._by_address.update(match_addresses(unique, found.contacts))
        await self._whole_names([lead for lead in leads if lead.needs_names], addresses)

    async def _whole_names(self, leads: Sequence[LeadKey], addresses: dict[int, str]) -> None:
        """Asks by GET for contacts of which the search gave only lower-cased names. One that is gone was deleted."""
        asked = dict.fromkeys(addresses[lead.lead_id] for lead in leads if lead.lead_id in addresses)
        partial = {
            address: contact.id
            for address in asked
            if isinstance(contact := self._by_address.get(address), Contact) and not contact.names_are_whole
        }
        contacts, errors = await self._source.get(list(dict.fromkeys(partial.values())))
        for address, contact_id in partial.items():
            if contact_id in errors:
                self.errors[address] = errors[contact_id]
            else:
                self._by_address[address] = contacts[contact_id]

    def resolution(self, lead: LeadKey) -> Resolution:
        """The lead's resolution from what was gathered."""
        address = askable_address(lead.email)
        asked, dead = normal_address(lead.email), self.link_is_dead(lead)
        if lead.contact_id in self.errors or (self.needs_address(lead) and address in self.errors):
            return Resolution(lead, Outcome.FAILED, None, asked, dead)
        contact = self._by_id.get(lead.contact_id) if lead.contact_id else None
        answer = contact or (self._by_address.get(address) if address and self.needs_address(lead) else None)
        if isinstance(answer, Contact):
            return Resolution(lead, Outcome.UNCHANGED, _fields(answer), asked, dead)
        if isinstance(answer, Ambiguous):
            outcome = Outcome.AMBIGUOUS
        elif is_contact_id(lead.contact_id):
            outcome = Outcome.CONTACT_DELETED
        elif not is_blank(lead.contact_id):
            outcome = Outcome.INVALID_CONTACT_ID
        else:
            outcome = Outcome.NOT_FOUND
        return Resolution(lead, outcome, None, asked, dead)


def askable_address(email: str | None) -> str | None:
    """The address to ask GHL for, None when it cannot be one."""
    address = normal_address(email)
    if address is None or "@" not in address or len(address) > MAX_EMAIL:
        return None
    return address


def _fields(contact: Contact) -> ContactFields:
    return ContactFields(
        contact.id, contact.email, contact.phone, contact.first_name, contact.last_name, contact.company_name
    )
