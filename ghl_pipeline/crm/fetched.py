"""What a fetch brought, and what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ghl_pipeline.crm.identifiers import Side
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.ghl.payloads import Contact


class FetchMode(StrEnum):
    """How the contacts were fetched."""

    NOTHING = "nothing"  # nobody is known, and nobody new is looked for
    FULL = "full"  # everybody who is known, and everybody new
    CHANGES = "changes"  # who changed since the last pass, and who was never looked up


@dataclass(frozen=True, slots=True)
class FetchCalls:
    """Requests by what they were for, each attempt counted.

    Attributes:
        groups_by_id, groups_by_email: searches for many at once.
        survey: searches that found out how large a group may be, and whether dates can be searched for.
        list_pages: pages of the location's whole list.
        changes: pages of contacts changed since.
        discovery: pages of contacts that only GHL knows.
        opportunities: pages of opportunities.
        single: one contact each.
    """

    groups_by_id: int = 0
    groups_by_email: int = 0
    survey: int = 0
    list_pages: int = 0
    changes: int = 0
    discovery: int = 0
    opportunities: int = 0
    single: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        looked_up = self.groups_by_id + self.groups_by_email + self.survey + self.single
        return looked_up + self.list_pages + self.changes + self.discovery + self.opportunities


@dataclass(frozen=True, slots=True)
class Fetched:
    """The contacts, and what GHL said of the rows that were looked up.

    Attributes:
        mode: how they were fetched.
        began_at: the database's clock before the first call.
        contacts: by id, each once, with details. Of a scan and of changes also those that nobody here knows.
        contact_of_opportunity: for opportunity ids of known leads.
        gone: contact ids of known rows of which GHL itself said in this run that they are gone.
        found, not_found: rows looked up in this run. One whose contact is gone may be found by its e-mail.
        failed: rows that could not be looked up; the result is partial.
        unconfirmed: contacts that a scan did not bring and that were not verified: left as they are.
        scanned: whether the location's list was gone through.
        scan_stopped_at_cap: it has more contacts than one scan brings.
        complete: nothing that a whole pass needs was cut short; failed rows are looked up again by the next.
        notes: what a person should know, with no person in it.
        calls: what it cost.
    """

    mode: FetchMode
    began_at: datetime
    contacts: Mapping[str, Contact] = field(default_factory=dict[str, Contact], repr=False)
    contact_of_opportunity: Mapping[str, str] = field(default_factory=dict[str, str])
    gone: frozenset[str] = frozenset()
    found: frozenset[tuple[Side, int]] = frozenset()
    not_found: frozenset[tuple[Side, int]] = frozenset()
    failed: Mapping[tuple[Side, int], GhlError] = field(default_factory=dict[tuple[Side, int], GhlError])
    unconfirmed: int = 0
    scanned: bool = False
    scan_stopped_at_cap: bool = False
    complete: bool = True
    notes: tuple[str, ...] = ()
    calls: FetchCalls = FetchCalls()
