"""What is to become of a location's vendors and leads, from the rows that are known and the contacts that came. Pure.

Each contact is one thing; each side's rows find their contacts; what a contact says is read only where it is needed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ghl_pipeline.crm.classification import Classified, ContactClass, Known, Reason, classify
from ghl_pipeline.crm.custom_fields import FieldIds, opportunity_ids_of
from ghl_pipeline.crm.fetched import Fetched
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow
from ghl_pipeline.crm.lead_fields import LeadValues, lead_values
from ghl_pipeline.crm.matching import Matches, match
from ghl_pipeline.crm.side_rules import Planned, Values
from ghl_pipeline.crm.vendor_fields import VendorValues, vendor_values
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import Contact, User
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration.matching import normal_address

V = TypeVar("V", bound=Values)

_VENDOR_SIGNALS = frozenset({Reason.VENDOR_TAG, Reason.VENDOR_SOURCE})


@dataclass(frozen=True, slots=True)
class SidePlan(Generic[V]):
    """One side: rows that have a contact or have lost it, contacts that want a row, and what was left alone."""

    rows: tuple[Planned[V], ...] = field(repr=False)
    new: tuple[V, ...] = field(repr=False)
    conflicts: int
    ambiguous: int

    @property
    def lost(self) -> frozenset[str]:
        """The contact ids of rows whose contact is gone."""
        return frozenset(each.row.contact_id or "" for each in self.rows if each.values is None)


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Both sides, and what the contacts are; `known_staff` vendors and leads are linked to contacts of staff."""

    vendors: SidePlan[VendorValues]
    leads: SidePlan[LeadValues]
    classes: Mapping[str, int]
    reasons: Mapping[str, int]
    reclassified: int
    known_staff: int

    @property
    def coverage_unread(self) -> int:
        """Vendors of whose coverage something was not understood."""
        return sum(bool(values.coverage.unread) for values in self._vendor_values())

    @property
    def unreadable_fields(self) -> Mapping[str, int]:
        """Vendors by the field that holds something other than it is for."""
        return dict(Counter(str(name) for values in self._vendor_values() for name in values.unreadable))

    def _vendor_values(self) -> list[VendorValues]:
        return [*(each.values for each in self.vendors.rows if each.values is not None), *self.vendors.new]


@dataclass(frozen=True, slots=True)
class Place:
    """What of a location decides how its contacts are read.

    Attributes:
        users: the location's staff.
        fields: which custom field is which.
        default_region: ISO 3166 alpha-2, for phone numbers without a country code.
        discover: whether rows are made of contacts that nobody here knows.
    """

    users: Sequence[User] = field(repr=False)
    fields: FieldIds
    default_region: str
    discover: bool


def make_plan(identifiers: Identifiers, fetched: Fetched, place: Place) -> SyncPlan:
    """Decides what is to become of everybody. Nothing is read or written for it."""
    known = _known(identifiers, place)
    classified = _classified(fetched, known, place)
    vendors = {id_: fetched.contacts[id_] for id_, each in classified.items() if each.contact_class == "vendor"}
    leads = {id_: fetched.contacts[id_] for id_, each in classified.items() if each.contact_class == "lead"}

    # What a row's old address made of a contact is nothing any more once the row has its new one, in this same run.
    def sign(contact: Contact) -> Reason:
        return classify(contact, Known(), discover=place.discover, default_region=place.default_region).reason

    def may_be_new_vendor(contact: Contact) -> bool:
        is_wanted = place.discover or classified[contact.id].is_reclassified
        return is_wanted and sign(contact) in _VENDOR_SIGNALS

    def may_be_new_lead(contact: Contact) -> bool:
        return sign(contact) is Reason.NEW_LEAD_TAG

    vendor_matches = match(
        identifiers.vendors, vendors, gone=fetched.gone, may_create=may_be_new_vendor, failed=fetched.failed.keys()
    )
    lead_matches = match(
        identifiers.leads,
        leads,
        gone=fetched.gone,
        may_create=may_be_new_lead,
        contact_of_opportunity=fetched.contact_of_opportunity,
        failed=fetched.failed.keys(),
    )

    def vendor(_: KnownRow | None, contact: Contact) -> VendorValues:
        return vendor_values(contact, place.fields, place.default_region)

    def lead(row: KnownRow | None, contact: Contact) -> LeadValues:
        values = lead_values(contact, place.fields, place.default_region)
        # The campaigns know the lead by the address it has; as one of the contact's it is right as it is.
        keeps = row is not None and row.email in map(normal_address, contact.additional_emails)
        return replace(values, email=None) if keeps else values

    return SyncPlan(
        _side(identifiers.vendors, vendors, vendor_matches, fetched, vendor),
        _side(identifiers.leads, leads, lead_matches, fetched, lead),
        {each.value: count for each, count in _counts(classified).items()},
        dict(Counter(each.reason.value for each in classified.values())),
        sum(each.is_reclassified for each in classified.values()),
        sum(_is_staff(classified.get(row.contact_id or "")) for row in identifiers.rows),
    )


def _is_staff(classified: Classified | None) -> bool:
    return classified is not None and classified.contact_class is ContactClass.STAFF


def _side(
    rows: Sequence[KnownRow],
    contacts: Mapping[str, Contact],
    matches: Matches,
    fetched: Fetched,
    read: Callable[[KnownRow | None, Contact], V],
) -> SidePlan[V]:
    planned: list[Planned[V]] = []
    for row in rows:
        contact_id = matches.contact_of.get(row.id)
        if contact_id is not None:
            planned.append(Planned(row, read(row, contacts[contact_id])))
        # A row of which a lookup failed may have another contact, by its e-mail.
        elif row.contact_id in fetched.gone and row.key not in fetched.failed:
            planned.append(Planned(row, None))
    new = tuple(read(None, contacts[id_]) for id_ in matches.new)
    return SidePlan(tuple(planned), new, matches.conflicts, matches.ambiguous)


def _known(identifiers: Identifiers, place: Place) -> Known:
    phones = (storable_phone(user.phone, place.default_region) for user in place.users)
    return Known(
        vendor_ids=_links(identifiers.vendors),
        vendor_emails=frozenset(row.email for row in identifiers.vendors if row.email),
        lead_ids=_links(identifiers.leads),
        lead_emails=frozenset(row.email for row in identifiers.leads if row.email),
        lead_opportunity_ids=frozenset(row.opportunity_id for row in identifiers.leads if row.opportunity_id),
        staff_ids=frozenset(user.id for user in place.users),
        staff_emails=frozenset(address for user in place.users if (address := normal_address(user.email))),
        staff_phones=frozenset(phone for phone in phones if phone),
    )


def _links(rows: Sequence[KnownRow]) -> frozenset[str]:
    return frozenset(row.contact_id for row in rows if row.contact_id and is_contact_id(row.contact_id))


def _classified(fetched: Fetched, known: Known, place: Place) -> dict[str, Classified]:
    # An opportunity that GHL lists need not be listed with its contact.
    listed: dict[str, list[str]] = {}
    for opportunity_id, contact_id in fetched.contact_of_opportunity.items():
        listed.setdefault(contact_id, []).append(opportunity_id)
    return {
        contact.id: classify(
            contact,
            known,
            discover=place.discover,
            default_region=place.default_region,
            opportunity_ids=(
                *listed.get(contact.id, ()),
                *opportunity_ids_of(contact.details or ContactDetails(), place.fields),
            ),
        )
        for contact in fetched.contacts.values()
    }


def _counts(classified: Mapping[str, Classified]) -> dict[ContactClass, int]:
    counts = Counter(each.contact_class for each in classified.values())
    return {each: counts[each] for each in ContactClass}
