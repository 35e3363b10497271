"""A sample agency: clients with a location each, their contacts in GHL, and the dashboard's leads with planned gaps.

Every lead carries what a correct repair makes of it: its outcome and the fields that get filled. The rows are plain
values; putting them into a database is the caller's. Equal numbers give an equal agency in every process.

The cases keep clear of what is a matter of taste: no lead here has a deleted contact *and* an address that leads to
another one, no two leads belong to one contact, no complete lead merely lacks its link.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

import msgspec

from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import Person, contact_of, ghl_id, person, phone_number, private_token, seeded

FIELDS: Final = ("email", "phone", "first_name", "last_name", "company_name")
LONGEST_SEARCHABLE_EMAIL: Final = 75
_TIME_ZONES: Final = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "UTC")
_CLIENTS: Final = ("Harbor Dental", "Cobalt Roofing", "Juniper Legal", "Delta Fitness", "Granite Solar", "Lumen Realty")
_NAMELESS: Final = {"first_name": None, "last_name": None, "company_name": None}


@dataclass(frozen=True)
class SampleLead:
    """A row of the dashboard's `leads` and what should become of it.

    `expected` is the outcome (`linked_and_hydrated`, `hydrated`, `unchanged`, `not_found`, `ambiguous`,
    `invalid_contact_id`, `contact_deleted`), or None for a lead that needs nothing. `fills` names the fields a repair
    fills. `case` says what is special about it.
    """

    case: str
    expected: str | None
    email: str | None = None
    ghl_contact_id: str | None = None
    emailbison_lead_id: int | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    company_name: str | None = None
    status: str = "new"
    enrichment_status: str | None = None
    fills: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleLocation:
    """A client of the agency. The token opens nothing but the sandbox, and yet stays out of the `repr`."""

    id: str
    name: str
    token: str = field(repr=False)
    time_zone: str
    default_region: str
    contacts: tuple[Contact, ...] = field(repr=False)
    leads: tuple[SampleLead, ...] = field(repr=False)

    @property
    def eligible(self) -> int:
        """How many leads need a look."""
        return sum(lead.expected is not None for lead in self.leads)

    @property
    def outcomes(self) -> dict[str, int]:
        """Expected outcome -> number of leads."""
        return dict(Counter(lead.expected for lead in self.leads if lead.expected is not None))

    @property
    def fills(self) -> dict[str, int]:
        """Field -> number of leads in which it gets filled."""
        return dict(Counter(name for lead in self.leads for name in lead.fills))


@dataclass(frozen=True)
class SampleAgency:
    """All clients of the sample agency."""

    locations: tuple[SampleLocation, ...]


@dataclass
class _Maker:
    """Makes the leads and contacts of one location. Each case adds its contacts to `contacts`."""

    seed: int
    position: int
    time_zone: str
    contacts: list[Contact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = seeded("agency", self.seed, self.position)
        self.numbers = count(1)

    def person(self) -> Person:
        return person(self.rng, next(self.numbers))

    def contact(self, owner: Person, **differences: object) -> Contact:
        contact = msgspec.structs.replace(contact_of(owner, self.rng, time_zone=self.time_zone), **differences)
        self.contacts.append(contact)
        return contact

    # --- leads without a link

    def email_first(self, **differences: object) -> SampleLead:
        """Made from an e-mail address alone; the contact has the rest."""
        owner = self.person()
        contact = self.contact(owner, **differences)
        return SampleLead("email_first", "linked_and_hydrated", owner.email, fills=_fillable(contact))

    def letter_case(self) -> SampleLead:
        owner = self.person()
        contact = self.contact(owner, email=owner.email.title())
        return SampleLead("letter_case", "linked_and_hydrated", owner.email.upper(), fills=_fillable(contact))

    def spaces(self) -> SampleLead:
        owner = self.person()
        contact = self.contact(owner)
        return SampleLead("spaces", "linked_and_hydrated", f"  {owner.email} ", fills=_fillable(contact))

    def additional_email(self) -> SampleLead:
        owner, other = self.person(), self.person()
        contact = self.contact(owner, additional_emails=(other.email,))
        return SampleLead("additional_email", "linked_and_hydrated", other.email, fills=_fillable(contact))

    def one_of_two_has_a_phone(self) -> SampleLead:
        owner = self.person()
        contact = self.contact(owner)
        later = contact.date_updated + 86_400_000
        self.contact(owner, phone=None, date_updated=later, **_NAMELESS)
        return SampleLead("one_of_two_has_a_phone", "linked_and_hydrated", owner.email, fills=_fillable(contact))

    def one_of_two_is_newer(self) -> SampleLead:
        owner = self.person()
        older = self.contact(owner, **_NAMELESS)
        contact = self.contact(owner, date_updated=older.date_updated + 86_400_000)
        return SampleLead("one_of_two_is_newer", "linked_and_hydrated", owner.email, fills=_fillable(contact))

    def ambiguous(self) -> SampleLead:
        owner = self.person()
        first = self.contact(owner)
        self.contact(owner, date_updated=first.date_updated)
        return SampleLead("ambiguous", "ambiguous", owner.email)

    def not_found(self) -> SampleLead:
        return SampleLead("not_found", "not_found", self.person().email)

    def long_email(self) -> SampleLead:
        email = _long(self.person().email)
        contact = self.contact(self.person(), email=email)
        return SampleLead("long_email", "linked_and_hydrated", email, fills=_fillable(contact))

    def long_email_not_found(self) -> SampleLead:
        return SampleLead("long_email_not_found", "not_found", _long(self.person().email))

    def phone_in_letters(self) -> SampleLead:
        text = self.rng.choice(("call the office", "n/a", "ask Jo", "-"))
        return _named("phone_in_letters", self.email_first(phone=text))

    def short_phone(self) -> SampleLead:
        return _named("short_phone", self.email_first(phone="555-01"))

    def odd_phone(self) -> SampleLead:
        digits = phone_number(next(self.numbers))[2:]
        area, rest = digits[:3], digits[3:]
        formats = (
            f"({area}) {rest[:3]}-{rest[3:]}",
            f"{area}.{rest[:3]}.{rest[3:]}",
            f"001{digits}",
            f"1-{area}-{rest}",
            f" +1 {area} {rest} ",
            digits,
        )
        return _named("odd_phone", self.email_first(phone=self.rng.choice(formats)))

    def not_needed(self) -> SampleLead:
        return _named("not_needed", self.email_first(), enrichment_status="not_needed")

    def typed(self) -> SampleLead:
        """A person typed other values than GHL has; they stay, and only the rest is filled."""
        lead = _named("typed", self.email_first(), first_name="Typed", company_name="Typed by Hand Ltd")
        return _named("typed", lead, fills=("phone", "last_name"))

    # --- leads with a link

    def linked(self) -> SampleLead:
        """Linked, but lacks some of what the contact has."""
        missing = self.rng.choice((("phone",), ("phone", "company_name"), ("first_name", "last_name"), ("email",)))
        contact = self.contact(self.person())
        lead = _named("linked", _complete(contact), expected="hydrated", fills=missing)
        return _named("linked", lead, **dict.fromkeys(missing))

    def linked_contact_lacks_it(self) -> SampleLead:
        contact = self.contact(self.person(), phone=None)
        return _named("linked_contact_lacks_it", _complete(contact), expected="unchanged", phone=None)

    def complete(self) -> SampleLead:
        return _complete(self.contact(self.person()))

    def contact_deleted(self) -> SampleLead:
        return SampleLead("contact_deleted", "contact_deleted", self.person().email, ghl_id(self.rng))

    def invalid_contact_id(self) -> SampleLead:
        junk = f"test_contact_{next(self.numbers)}"
        return SampleLead("invalid_contact_id", "invalid_contact_id", self.person().email, junk)


_SHARES: Final[Mapping[Callable[[_Maker], SampleLead], float]] = {
    _Maker.complete: 0.20,
    _Maker.linked: 0.12,
    _Maker.not_found: 0.08,
    _Maker.letter_case: 0.04,
    _Maker.odd_phone: 0.03,
    _Maker.typed: 0.03,
    _Maker.linked_contact_lacks_it: 0.03,
    _Maker.additional_email: 0.015,
    _Maker.one_of_two_has_a_phone: 0.01,
    _Maker.spaces: 0.01,
    _Maker.not_needed: 0.01,
    _Maker.one_of_two_is_newer: 0.005,
    _Maker.phone_in_letters: 0.005,
    _Maker.ambiguous: 0.003,
    _Maker.short_phone: 0.003,
    _Maker.contact_deleted: 0.002,
    _Maker.invalid_contact_id: 0.002,
    _Maker.long_email: 0.0,
    _Maker.long_email_not_found: 0.0,
}
"""Share of the leads that are of a case, at least one each; all others are `email_first`."""


def sample_agency(*, locations: int, leads: int, seed: int) -> SampleAgency:
    """The sample agency.

    Args:
        locations: how many clients it has.
        leads: lead rows of each client; its location has some more contacts than that. From 20 leads on, every case
            occurs.
        seed: equal numbers give an equal agency.
    """
    return SampleAgency(tuple(_location(position, leads, seed) for position in range(locations)))


def _location(position: int, leads: int, seed: int) -> SampleLocation:
    time_zone = _TIME_ZONES[position % len(_TIME_ZONES)]
    maker = _Maker(seed, position, time_zone)
    location_id, token = ghl_id(maker.rng), private_token(maker.rng)
    rows = [make(maker) for make in _cases(leads)]
    strangers = max(0, leads + max(1, leads // 20) - len(maker.contacts))
    for _ in range(strangers):
        maker.contact(maker.person())
    maker.rng.shuffle(rows)
    maker.rng.shuffle(maker.contacts)
    rows = [_named(row.case, row, emailbison_lead_id=number + 1) for number, row in enumerate(rows)]
    name = f"{_CLIENTS[position % len(_CLIENTS)]} {position + 1}"
    return SampleLocation(location_id, name, token, time_zone, "US", tuple(maker.contacts), tuple(rows))


def _cases(leads: int) -> list[Callable[[_Maker], SampleLead]]:
    one_of_each = [_Maker.email_first, *_SHARES]
    more = [make for make, share in _SHARES.items() for _ in range(round(share * leads) - 1)]
    cases = [*one_of_each, *more][:leads]
    return cases + [_Maker.email_first] * (leads - len(cases))


def _named(case: str, lead: SampleLead, **differences: object) -> SampleLead:
    changes: dict[str, Any] = {"case": case, **differences}
    return replace(lead, **changes)


def _complete(contact: Contact) -> SampleLead:
    return SampleLead(
        "complete",
        None,
        email=contact.email,
        ghl_contact_id=contact.id,
        phone=contact.phone,
        first_name=contact.first_name,
        last_name=contact.last_name,
        company_name=contact.company_name,
        status="contacted",
    )


def _fillable(contact: Contact) -> tuple[str, ...]:
    """What a lead that has only an e-mail gets from the contact. A phone of under 7 digits is none."""
    digits = sum(char.isdigit() for char in contact.phone or "")
    values = {
        "phone": digits >= 7,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "company_name": contact.company_name,
    }
    return tuple(name for name, value in values.items() if value)


def _long(email: str) -> str:
    local, _, domain = email.partition("@")
    return f"{local}{'x' * (LONGEST_SEARCHABLE_EMAIL + 5 - len(email))}.long@{domain}"
