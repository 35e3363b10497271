"""Which row of one side is which contact, when ids, addresses and opportunities say so. Pure; nobody is guessed.

A row's own link comes first, then its e-mail, then its opportunity. Of several contacts for one address one is chosen
as everywhere in the project (`hydration/matching.py`), or none.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import msgspec

from ghl_pipeline.crm.identifiers import KnownRow, Side
from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.matching import Ambiguous, addresses_of, match_addresses, normal_address


@dataclass(frozen=True, slots=True)
class Matches:
    """What one side's rows and contacts have to do with each other.

    Attributes:
        contact_of: row id to contact id.
        new: ids of contacts for which a row is to be made.
        conflicts: contacts that are left alone, because what they are known by is a row's that has another contact.
        ambiguous: addresses with several contacts of which none is the likelier one; those are left alone.
    """

    contact_of: Mapping[int, str]
    new: tuple[str, ...]
    conflicts: int
    ambiguous: int


def is_free(row: KnownRow, gone: AbstractSet[str]) -> bool:
    """Whether the row may be given another contact: it has none, one that is gone, or what can be no contact's id."""
    was_gone = row.outcome == "gone" or row.status == MISSING_STATUS
    return not is_contact_id(row.contact_id) or row.contact_id in gone or was_gone


def match(
    rows: Sequence[KnownRow],
    contacts: Mapping[str, Contact],
    *,
    gone: AbstractSet[str],
    may_create: Callable[[Contact], bool],
    contact_of_opportunity: Mapping[str, str] | None = None,
    failed: Collection[tuple[Side, int]] = (),
) -> Matches:
    """Finds each row's contact, and the contacts that want a row.

    A row that is linked to another contact keeps it, whoever has its e-mail: only GHL's word that the contact is gone
    sets the row free. A contact is made a row of only when nobody has its own e-mail.

    Args:
        rows: of one side, all of them.
        contacts: of the same side, by id.
        gone: contacts that GHL said are gone.
        may_create: whether a contact that has no row gets one.
        contact_of_opportunity: the contact of each opportunity that is known.
        failed: rows that could not be looked up, so that somebody else may be their contact: they get none.
    """
    matching = _Matching(rows, contacts, gone, frozenset(failed))
    matching.by_link()
    matching.by_address()
    matching.by_opportunity(contact_of_opportunity or {})
    new = matching.newcomers(may_create)
    still_ambiguous = [row_id for row_id in matching.ambiguous_rows if row_id not in matching.contact_of]
    return Matches(matching.contact_of, new, matching.conflicts, len(still_ambiguous) + matching.ambiguous_newcomers)


@dataclass(slots=True)
class _Matching:
    rows: Sequence[KnownRow]
    contacts: Mapping[str, Contact]
    gone: AbstractSet[str]
    failed: AbstractSet[tuple[Side, int]]
    contact_of: dict[int, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    ambiguous_rows: dict[int, str] = field(default_factory=dict)
    ambiguous_newcomers: int = 0
    conflicts: int = 0

    def by_link(self) -> None:
        """Rows that are linked to a contact that is there."""
        for row in self.rows:
            if row.contact_id is not None and row.contact_id in self.contacts:
                self._pair(row, row.contact_id)

    def by_address(self) -> None:
        """Rows without a living link, by their e-mail: a contact's own address before additional ones."""
        free = {row.email: row for row in self._free_rows() if row.email}
        found = match_addresses(free.keys(), self._free_contacts()) if free else {}
        chosen: list[tuple[bool, int, KnownRow, Contact]] = []
        for address, contact in found.items():
            row = free[address]
            if isinstance(contact, Ambiguous):
                self.ambiguous_rows[row.id] = address
            else:
                chosen.append((normal_address(contact.email) != address, row.id, row, contact))
        for _, _, row, contact in sorted(chosen, key=lambda each: each[:2]):
            self._take(row, contact.id)

    def by_opportunity(self, contact_of_opportunity: Mapping[str, str]) -> None:
        """Rows that are known by an opportunity alone."""
        for row in self._free_rows():
            contact_id = contact_of_opportunity.get(row.opportunity_id) if row.opportunity_id else None
            if contact_id is not None and contact_id in self.contacts:
                self._take(row, contact_id)

    def newcomers(self, may_create: Callable[[Contact], bool]) -> tuple[str, ...]:
        """The contacts to make rows of, each address once."""
        held = self._addresses_afterwards()
        unclear = {address for row_id, address in self.ambiguous_rows.items() if row_id not in self.contact_of}
        by_address: dict[str, list[Contact]] = {}
        new: list[str] = []
        for contact in self._free_contacts():
            own = normal_address(contact.email)
            if unclear and any(address in unclear for address, _ in addresses_of(contact)):
                continue  # counted as ambiguous
            if own in held:
                self.conflicts += 1
            elif not may_create(contact):
                # Known by an additional address whose row has another contact, or to nobody at all.
                self.conflicts += any(address in held for address, _ in addresses_of(contact))
            elif own is None:
                new.append(contact.id)
            else:
                by_address.setdefault(own, []).append(contact)
        new += self._one_each(by_address)
        return tuple(sorted(new))

    def _one_each(self, by_address: Mapping[str, Sequence[Contact]]) -> Collection[str]:
        """Of several new contacts with one e-mail, the one that `match_addresses` would choose."""
        chosen = [contacts[0].id for contacts in by_address.values() if len(contacts) == 1]
        several = {address: contacts for address, contacts in by_address.items() if len(contacts) > 1}
        doubles = [
            msgspec.structs.replace(contact, additional_emails=()) for group in several.values() for contact in group
        ]
        for address, contact in match_addresses(several.keys(), doubles).items() if several else ():
            if isinstance(contact, Ambiguous):
                self.ambiguous_newcomers += 1
            else:
                chosen.append(contact.id)
                self.conflicts += len(several[address]) - 1
        return chosen

    def _addresses_afterwards(self) -> set[str]:
        """The addresses that rows will have: of one whose contact has another e-mail now, that one.

        Else somebody new who has a row's old address would be left out now and taken the next time.
        """
        addresses = set()
        for row in self.rows:
            contact = self.contacts.get(self.contact_of.get(row.id, ""))
            own = normal_address(contact.email) if contact else None
            if address := own or row.email:
                addresses.add(address)
        return addresses

    def _free_rows(self) -> list[KnownRow]:
        free = [row for row in self.rows if row.id not in self.contact_of and is_free(row, self.gone)]
        return [row for row in free if row.key not in self.failed]

    def _free_contacts(self) -> list[Contact]:
        return [each for each in self.contacts.values() if each.id not in self.taken and is_contact_id(each.id)]

    def _take(self, row: KnownRow, contact_id: str) -> None:
        if contact_id in self.taken:
            self.conflicts += 1
        else:
            self._pair(row, contact_id)

    def _pair(self, row: KnownRow, contact_id: str) -> None:
        self.contact_of[row.id] = contact_id
        self.taken.add(contact_id)
