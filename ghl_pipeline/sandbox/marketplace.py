"""A sample marketplace in one location: vendors, leads, their opportunities, and staff who are contacts as well.

Everybody carries what a correct sync makes of them. Everything is drawn from the seed and the location's id; ids of
custom fields belong to the location.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal

import msgspec

from ghl_pipeline.sandbox.contacts import Contact, FieldValue
from ghl_pipeline.sandbox.custom_fields import CustomFields
from ghl_pipeline.sandbox.marketplace_words import (
    COVERAGES,
    FIELDS,
    LEAD_SOURCES,
    LEVELS,
    NEW_LEAD,
    OTHER_TAGS,
    PLACES,
    TRADES,
    VENDOR_SOURCES,
    VENDOR_TAGS,
    CoverageKind,
)
from ghl_pipeline.sandbox.opportunities import Opportunity
from ghl_pipeline.sandbox.people import EPOCH_OF_SAMPLES, ghl_id, person, seeded
from ghl_pipeline.sandbox.responses import iso_time
from ghl_pipeline.sandbox.world import Location

_PEOPLE_FROM: Final = 400_000
"""Numbers of people that no other sample reaches, so that e-mails are nobody else's."""
_STAFF_LINES: Final = 90
"""Phones that end in 90 and more belong to the office and its staff alone."""
_DAY: Final = 86_400_000
_SPAN: Final = 540 * _DAY


@dataclass(frozen=True)
class MarketVendor:
    """A vendor's contact. `status` is what its tags stand for, None when no tag tells; `coverage` what it wrote."""

    contact: Contact
    status: str | None
    coverage: CoverageKind | None
    coverage_text: str | None


@dataclass(frozen=True)
class MarketLead:
    """A lead's contact; `opportunity_in` says whether its opportunity is listed or only named in a custom field."""

    contact: Contact
    zip_code: str | None
    is_new: bool
    opportunity_id: str | None
    opportunity_in: Literal["list", "custom field"] | None


@dataclass(frozen=True)
class Marketplace:
    """What was put into the location. `field_ids` maps the usual key of a custom field to its id there."""

    field_ids: Mapping[str, str]
    vendors: tuple[MarketVendor, ...] = field(repr=False)
    leads: tuple[MarketLead, ...] = field(repr=False)
    staff: tuple[Contact, ...] = field(repr=False)

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """All contacts, vendors first."""
        return (*(each.contact for each in self.vendors), *(each.contact for each in self.leads), *self.staff)


def marketplace(
    location: Location,
    *,
    vendors: int,
    leads: int,
    seed: int,
    staff: int = 4,
    field_keys: Mapping[str, str] | None = None,
) -> Marketplace:
    """Puts a marketplace into a location, beside what is there.

    Args:
        location: of the sandbox. Its custom fields are defined as far as they are not yet.
        vendors: how many; from 17 on every way to write a coverage occurs, from 7 on every level of tags.
        leads: how many; from 5 on every way to tell a ZIP occurs, from 8 on every place of an opportunity.
        seed: equal numbers give an equal marketplace in a location of the same id that holds as many contacts.
        staff: contacts of staff, 9 at most: of type `staff`, or with the e-mail or the phone of a user.
        field_keys: usual key -> key in this location, where it differs.
    """
    maker = _Maker(location, seed, _field_ids(location.custom_fields, field_keys or {}))
    made = Marketplace(
        maker.field_ids,
        tuple(maker.vendor(number) for number in range(vendors)),
        tuple(maker.lead(number) for number in range(leads)),
        tuple(maker.staff_member(number) for number in range(staff)),
    )
    location.load(made.contacts)
    location.opportunities.load(maker.opportunities)
    return made


class _Maker:
    """Makes the members of one marketplace, and collects the opportunities of its leads."""

    def __init__(self, location: Location, seed: int, field_ids: Mapping[str, str]) -> None:
        self.location = location
        self.field_ids = field_ids
        self.opportunities: list[Opportunity] = []
        self.rng = seeded("marketplace", seed, location.id, len(location.contacts))
        self.numbers = count(_PEOPLE_FROM + len(location.contacts))

    def vendor(self, number: int) -> MarketVendor:
        level = number % (len(LEVELS) + 1)  # one more than there are: no tag tells
        lower = [tag for tag, _ in LEVELS[:level] if self.rng.random() < 0.4]
        tags = ([LEVELS[level][0], *lower] if level < len(LEVELS) else []) + self.rng.sample(OTHER_TAGS, k=number % 2)
        source = self.rng.choice((*VENDOR_SOURCES, None))
        if source is None and not VENDOR_TAGS & set(tags):
            tags.append("new vendor")
        self.rng.shuffle(tags)
        coverage, text = COVERAGES[number % len(COVERAGES)]
        values = self._vendor_fields(number, text)
        _, city, state, _ = self.rng.choice(PLACES)
        contact = self._contact(tags=tuple(tags), source=source, custom_fields=values, city=city, state=state)
        status = next((status for tag, status in reversed(LEVELS) if tag in tags), None)
        return MarketVendor(contact, status, coverage, text)

    def lead(self, number: int) -> MarketLead:
        zip_code, where = self._whereabouts(number)
        is_new = self.rng.random() < 0.3
        tags = ([NEW_LEAD] if is_new else []) + self.rng.sample(OTHER_TAGS, k=self.rng.randrange(2))
        category, services = self.rng.choice(TRADES)
        fields: dict[str, FieldValue] = {
            "contact.primary_service_category": category,
            "contact.specific_service_requested": self.rng.choice(services) if number % 3 else None,
        }
        opportunity_id = ghl_id(self.rng) if number % 4 == 0 else None
        listed = number % 8 == 0
        if opportunity_id and not listed:
            fields["contact.opportunity_id"] = opportunity_id
        contact = self._contact(
            tags=tuple(tags), source=self.rng.choice(LEAD_SOURCES), custom_fields=self._values(fields), **where
        )
        if opportunity_id is None:
            return MarketLead(contact, zip_code, is_new, None, None)
        if listed:
            self.opportunities.append(self._opportunity(opportunity_id, contact))
        return MarketLead(contact, zip_code, is_new, opportunity_id, "list" if listed else "custom field")

    def staff_member(self, number: int) -> Contact:
        """By turns of type `staff`, with a user's e-mail in other letters, with a user's phone."""
        phone = f"+12025550{100 + _STAFF_LINES + number % 10}"
        tags = ("new vendor",) if number % 2 else ()  # staff try the vendors' form out
        if number % 3 == 0:
            return self._contact(type="staff", phone=phone, tags=tags)
        contact = self._contact(phone=phone, tags=tags)
        names = {"first_name": contact.first_name, "last_name": contact.last_name}
        if number % 3 == 1:
            self.location.add_user(**names, email=contact.email, phone="+12125550199")
            return msgspec.structs.replace(contact, email=(contact.email or "").title(), phone=None)
        self.location.add_user(**names, email=f"team.{contact.email}", phone=phone)
        return contact

    def _contact(self, **fields: object) -> Contact:
        number = next(self.numbers)
        owner = person(self.rng, number)
        added = EPOCH_OF_SAMPLES + int(self.rng.random() * _SPAN)
        contact = Contact(
            id=ghl_id(self.rng),
            date_added=added,
            date_updated=added + int(self.rng.random() * 10 * _DAY),
            first_name=owner.first_name,
            last_name=owner.last_name,
            email=owner.email if number % 10 else owner.email.title(),
            phone=_own_phone(owner.phone),
            company_name=owner.company_name,
            country="US",
        )
        return msgspec.structs.replace(contact, **fields)

    def _whereabouts(self, number: int) -> tuple[str | None, dict[str, object]]:
        """A ZIP and the fields of the contact that tell it, each in one of five ways."""
        zip_code, city, state, _ = self.rng.choice(PLACES)
        street = f"{self.rng.randrange(10_000, 99_999)} Harbor Street"  # a house number that looks like a ZIP
        known: dict[str, object] = {"city": city, "state": state, "postal_code": zip_code}
        match number % 5:
            case 0:
                return zip_code, known
            case 1:
                return zip_code, {**known, "address1": street}
            case 2:
                return zip_code, {**known, "postal_code": f"{zip_code}-{self.rng.randrange(1000, 9999)}"}
            case 3:
                address = f"{street}, {city}, {state} {zip_code}"
                return zip_code, {"city": None, "state": None, "postal_code": None, "address1": address}
            case _:
                return None, {"city": None, "state": None, "postal_code": None, "address1": street}

    def _vendor_fields(self, number: int, coverage: str | None) -> tuple[tuple[str, FieldValue], ...]:
        trades = self.rng.sample(TRADES, k=1 + number % 3)
        assigned_at = 20_454 * _DAY + self.rng.randrange(200) * _DAY  # from 2026-01-01 on
        # A date comes as a number, or as the text that a person or a form wrote.
        assigned = (assigned_at, iso_time(assigned_at), iso_time(assigned_at)[:10])[number % 3]
        return self._values(
            {
                "contact.service_categories": tuple(category for category, _ in trades),
                "contact.services_offered": ", ".join(service for _, services in trades for service in services),
                "contact.service_zip_codes": coverage,
                "contact.taking_new_work": ("Yes", "No", None)[number % 3],
                "contact.last_lead_assigned": assigned,
                "contact.lead_close_percentage": (37, 12.5, "45", None)[number % 4],
                "contact.primary_service_category": trades[0][0],
                "contact.ghl_user_id": ghl_id(self.rng) if number % 4 == 0 else None,
                "contact.insurance_certificate": _file(ghl_id(self.rng)) if number % 5 == 0 else None,
            }
        )

    def _values(self, fields: Mapping[str, FieldValue]) -> tuple[tuple[str, FieldValue], ...]:
        return tuple((self.field_ids[key], value) for key, value in fields.items() if value is not None)

    def _opportunity(self, opportunity_id: str, contact: Contact) -> Opportunity:
        at = contact.date_added + self.rng.randrange(_DAY)
        return Opportunity(
            id=opportunity_id,
            contact_id=contact.id,
            name=f"{contact.name} - request",
            created_at=at,
            updated_at=at,
            pipeline_id=self.location.opportunities.pipeline_id,
            pipeline_stage_id=self.location.opportunities.stage_id,
            status=self.rng.choice(("open", "open", "won", "lost")),
            monetary_value=self.rng.randrange(50) * 100,
        )


def _field_ids(definitions: CustomFields, keys: Mapping[str, str]) -> dict[str, str]:
    """Usual key -> id in the location, where each is defined under its own key."""
    defined = {definition.field_key: definition.id for definition in definitions}
    ids = {}
    for usual, kind in FIELDS.items():
        key = keys.get(usual, usual)
        model, _, name = key.partition(".")
        if key not in defined:
            made = definitions.add(
                name.replace("_", " ").title(), field_key=key, model=model, data_type=kind, options=_options(usual)
            )
            defined[key] = made.id
        ids[usual] = defined[key]
    return ids


def _options(key: str) -> tuple[str, ...]:
    if key in {"contact.service_categories", "contact.primary_service_category"}:
        return tuple(category for category, _ in TRADES)
    return ("Yes", "No") if key == "contact.taking_new_work" else ()


def _own_phone(phone: str) -> str:
    """The phone, or one beside it where it is kept for staff."""
    if int(phone[-2:]) < _STAFF_LINES:
        return phone
    return f"{phone[:-2]}{int(phone[-2:]) - 50}"


def _file(file_id: str) -> FieldValue:
    return {file_id: {"meta": {"originalname": "certificate.pdf"}, "url": f"https://example.com/{file_id}"}}
