"""What one fetch has gathered so far: contacts, each once, and what GHL said of those that it does not have."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Literal, TypeAlias

from ghl_pipeline.crm.fetch_rules import FetchRules, Remembered
from ghl_pipeline.crm.fetched import FetchCalls
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side
from ghl_pipeline.crm.list_scan import ListWalk
from ghl_pipeline.crm.matching import is_free
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.contact_details import FieldValue
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.matching import addresses_of
from ghl_pipeline.hydration.resolve import askable_address

CallKind: TypeAlias = Literal[
    "groups_by_id", "groups_by_email", "survey", "list_pages", "changes", "discovery", "opportunities", "single"
]


class Gathering:
    """The state of one fetch.

    Attributes:
        client, knowledge, rules, remembered: as `fetch` was given them.
        rows: everybody known.
        contacts: by id.
        gone: links of which GHL said in this run that they are gone; `told_gone` of them one by one.
        unconfirmed: links that a scan did not bring, and that were not verified.
        failed_ids, failed_addresses, failed_opportunities: what could not be asked, with the error.
        scan: how far the list was gone through; None when it was not.
        is_whole: nothing that a whole pass needs was cut short.
        notes: what a person should know.
    """

    def __init__(
        self,
        client: LocationClient,
        knowledge: LocationKnowledge,
        identifiers: Identifiers,
        remembered: Remembered,
        rules: FetchRules,
    ) -> None:
        self.client, self.knowledge, self.remembered, self.rules = client, knowledge, remembered, rules
        self.rows = identifiers.rows
        self.contacts: dict[str, Contact] = {}
        self.gone: set[str] = set()
        self.told_gone: set[str] = set()
        self.unconfirmed: set[str] = set()
        self.failed_ids: dict[str, GhlError] = {}
        self.failed_addresses: dict[str, GhlError] = {}
        self.failed_opportunities: dict[str, GhlError] = {}
        self.scan: ListWalk | None = None
        self.is_whole = True
        self.notes: list[str] = []
        self._owners: dict[str, set[str]] = {}
        self._others: dict[str, set[str]] = {}
        self._asked: set[str] = set()
        self._linked: dict[str, set[tuple[Side, int]]] = {}
        for row in self.rows:
            if (link := link_of(row)) is not None:
                self._linked.setdefault(link, set()).add(row.key)
        self._opportunities = {row.opportunity_id for row in self.rows if row.opportunity_id}
        self._listed: dict[str, str] = {}
        self._named: dict[str, set[str]] = {}
        self._calls: Counter[str] = Counter()

    # --- contacts

    def add(self, contacts: Iterable[Contact]) -> None:
        """Keeps contacts that are not here yet. A search may still show one that a GET says is gone, not a scan."""
        for contact in contacts:
            if contact.id not in self.contacts and contact.id not in self.told_gone:
                self.gone.discard(contact.id)
                self.contacts[contact.id] = contact
                for address, is_additional in addresses_of(contact):
                    (self._others if is_additional else self._owners).setdefault(address, set()).add(contact.id)
                self._note_opportunities(contact)

    def note_asked(self, addresses: Iterable[str]) -> None:
        """Keeps that GHL was asked by these addresses and answered."""
        self._asked.update(addresses)

    def list_opportunity(self, opportunity_id: str, contact_id: str) -> None:
        """Keeps whose opportunity it is, if a known lead has it."""
        if opportunity_id in self._opportunities:
            self._listed[opportunity_id] = contact_id

    def _note_opportunities(self, contact: Contact) -> None:
        if contact.details is None or not self._opportunities:
            return
        for opportunity_id in contact.details.opportunity_ids:
            self.list_opportunity(opportunity_id, contact.id)
        for value in contact.details.custom_fields.values():
            for text in _texts(value):
                if text in self._opportunities:
                    self._named.setdefault(text, set()).add(contact.id)

    def contact_of(self, opportunity_id: str | None) -> str | None:
        """The contact that was gathered and has the opportunity. GHL's word goes before a custom field's.

        One that several contacts name in a custom field is nobody's.
        """
        if opportunity_id is None:
            return None
        listed = self._listed.get(opportunity_id)
        if listed in self.contacts:
            return listed
        named = self._named.get(opportunity_id, set())
        return next(iter(named)) if len(named) == 1 else None

    @property
    def contact_of_opportunity(self) -> dict[str, str]:
        """Contacts that were gathered, by the opportunities of known leads."""
        return {id_: contact for id_ in self._opportunities if (contact := self.contact_of(id_)) is not None}

    def owner_of(self, opportunity_id: str | None) -> str | None:
        """The contact id of an opportunity as GHL lists it, gathered or not."""
        return self._listed.get(opportunity_id or "")

    # --- rows

    def is_recent(self, row: KnownRow) -> bool:
        """Whether what the row's last lookup came to is still believed."""
        return row.looked_up is not None and row.looked_up > self.remembered.now - self.rules.look_up_again

    def is_believed_gone(self, row: KnownRow) -> bool:
        """Whether an earlier run was told that the row's contact is gone, so that it is not asked for one by one."""
        return row.outcome == "gone" and self.is_recent(row)

    def is_dead(self, row: KnownRow) -> bool:
        """Whether the row's link, if any, leads nowhere, and that is certain."""
        link = link_of(row)
        if link is None or link in self.gone:
            return True
        return self.is_believed_gone(row) and not (link in self.contacts or link in self.failed_ids)

    def is_found(self, row: KnownRow) -> bool:
        """Whether a contact of the row's was gathered: the one it is linked to, or one for a row without."""
        if link_of(row) in self.contacts:
            return True
        if not self.is_dead(row):
            return False
        by_address = self._owners.get(row.email or "", set()) | self._others.get(row.email or "", set())
        return self._has_free(by_address, row) or self.contact_of(row.opportunity_id) is not None

    def wants_address(self, row: KnownRow) -> bool:
        """Whether GHL has to be asked by the row's e-mail.

        A contact that came for another reason and has the address says nothing of who else has it, and who has it as
        its own goes before. Only after all of the list came it is known who that is.
        """
        if row.email in self._asked or not self.is_dead(row):
            return False
        all_came = self.scan is not None and self.scan.is_complete
        return not (all_came and self._has_free(self._owners.get(row.email or "", set()), row))

    def may_have_come(self, row: KnownRow) -> bool:
        """Whether somebody was gathered who would be given to the row, which has no living contact."""
        if link_of(row) in self.contacts or not is_free(row, self.gone):
            return False
        has_address = row.email in self._owners or row.email in self._others
        return has_address or self.contact_of(row.opportunity_id) is not None

    def _has_free(self, contact_ids: AbstractSet[str], row: KnownRow) -> bool:
        return any(self._is_free(contact_id, row) for contact_id in contact_ids)

    def _is_free(self, contact_id: str, row: KnownRow) -> bool:
        """Whether the contact is no other row's: of the same side, or a vendor's, who is no lead."""
        owners = self._linked.get(contact_id, set()) - {row.key}
        return not any(side in (row.side, Side.VENDOR) for side, _ in owners)

    def was_scanned_for(self, row: KnownRow) -> bool:
        """Whether the list was gone through for this row not long ago, for the same want of a contact."""
        return row.scanned and self.is_recent(row) and (row.outcome != "found" or link_of(row) is None)

    def wants_last_resort(self, row: KnownRow) -> bool:
        """Whether only opportunities or the list can still find the row's contact, and did not fail to lately.

        GHL answers with all who have an e-mail as their own, so that the list has nobody else.
        """
        is_others = row.email in self._asked and row.email in self._owners
        by_address = askable_address(row.email) is not None and not is_others
        can_be_found = by_address or row.opportunity_id is not None
        return can_be_found and self.is_dead(row) and not self.is_found(row) and not self.was_scanned_for(row)

    def error_of(self, row: KnownRow) -> GhlError | None:
        """Why it is not known whether the row has a contact."""
        link = link_of(row)
        if link in self.failed_ids:
            return self.failed_ids[link]
        if not self.is_dead(row):
            return None
        # Whoever came for another reason may not be the one whom the address would have found.
        if self.wants_address(row) and (row.email or "") in self.failed_addresses:
            return self.failed_addresses[row.email or ""]
        if self.is_found(row):
            return None
        failed = self.failed_opportunities.get(row.opportunity_id or "")
        unscanned = self.scan.error if self.scan is not None and self.wants_last_resort(row) else None
        return failed or unscanned

    # --- calls

    @contextmanager
    def counting(self, kind: CallKind) -> Iterator[None]:
        """Counts the requests that are made meanwhile."""
        before = self.client.usage.calls
        try:
            yield
        finally:
            self._calls[kind] += self.client.usage.calls - before

    @property
    def calls(self) -> FetchCalls:
        """What was spent so far."""
        return FetchCalls(**self._calls)


def link_of(row: KnownRow) -> str | None:
    """The contact that the row is linked to; None for none and for what cannot be a contact's id, which is not sent."""
    return row.contact_id if is_contact_id(row.contact_id) else None


def links_of(rows: Iterable[KnownRow]) -> list[str]:
    """The links of rows, each once."""
    return list(dict.fromkeys(link for row in rows if (link := link_of(row))))


def _texts(value: FieldValue) -> Sequence[str]:
    if isinstance(value, str):
        return (value.strip(),)
    if isinstance(value, list | tuple):
        return [each.strip() for each in value if isinstance(each, str)]
    return ()
