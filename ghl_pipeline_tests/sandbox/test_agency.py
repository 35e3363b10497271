"""The sample agency: the same everywhere, harmless, and its expectations are what the rules say."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict

import msgspec
import phonenumbers
import pytest

from ghl_pipeline.sandbox.agency import FIELDS, SampleLead, SampleLocation, sample_agency
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd, phone_number

_DIGEST = """
import hashlib, json, sys
from dataclasses import asdict
import msgspec
from ghl_pipeline.sandbox.agency import sample_agency
agency = sample_agency(locations=2, leads=60, seed=7)
rows = [[l.id, l.token, list(map(asdict, l.leads)), msgspec.to_builtins(l.contacts)] for l in agency.locations]
print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def sample() -> SampleLocation:
    return sample_agency(locations=1, leads=2000, seed=7).locations[0]


def test_two_processes_make_the_same_agency() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    agency = sample_agency(locations=2, leads=60, seed=7)
    rows = [[x.id, x.token, list(map(asdict, x.leads)), msgspec.to_builtins(x.contacts)] for x in agency.locations]
    assert digests == {hashlib.sha256(json.dumps(rows).encode()).hexdigest() + "\n"}


def test_another_seed_makes_other_people() -> None:
    one, other = (sample_agency(locations=1, leads=20, seed=seed).locations[0] for seed in (1, 2))
    assert one.id != other.id
    assert one.token != other.token
    assert [lead.email for lead in one.leads] != [lead.email for lead in other.leads]


@pytest.mark.parametrize("leads", [0, 1, 7, 20, 150])
def test_a_location_has_the_leads_asked_for_and_some_more_contacts(leads: int) -> None:
    location = sample_agency(locations=1, leads=leads, seed=3).locations[0]
    assert len(location.leads) == leads
    assert len(location.contacts) > leads


def test_from_twenty_leads_on_every_case_occurs(sample: SampleLocation) -> None:
    few = sample_agency(locations=1, leads=20, seed=7).locations[0]
    assert {lead.case for lead in few.leads} == {lead.case for lead in sample.leads}


def test_the_mix_of_a_location(sample: SampleLocation) -> None:
    assert sample.eligible == 1600
    assert sample.outcomes == {
        "linked_and_hydrated": 1125,
        "hydrated": 240,
        "unchanged": 60,
        "not_found": 161,
        "ambiguous": 6,
        "contact_deleted": 4,
        "invalid_contact_id": 4,
    }
    assert sum(sample.outcomes.values()) == sample.eligible
    assert 2000 < len(sample.contacts) <= 2200


def test_nothing_in_it_can_reach_anybody(sample: SampleLocation) -> None:
    emails = [c.email for c in sample.contacts] + [lead.email for lead in sample.leads]
    emails += [email for contact in sample.contacts for email in contact.additional_emails]
    assert all(re.search(r"@example\.(com|org|net)$", email.strip().lower()) for email in emails if email)
    phones = {c.phone for c in sample.contacts} | {lead.phone for lead in sample.leads}
    digits = [re.sub(r"\D", "", phone) for phone in phones if phone]
    assert all(re.search(r"55501\d\d$", text) for text in digits if len(text) >= 7)


def test_its_phones_are_valid_american_numbers() -> None:
    numbers = [phonenumbers.parse(phone_number(number)) for number in range(200)]
    assert all(phonenumbers.is_valid_number_for_region(number, "US") for number in numbers)
    assert phonenumbers.format_number(numbers[0], phonenumbers.PhoneNumberFormat.E164) == phone_number(0)


def test_the_unique_indexes_of_a_leads_table_take_its_rows(sample: SampleLocation) -> None:
    for values in (
        [lead.email.lower() for lead in sample.leads if lead.email],
        [lead.ghl_contact_id for lead in sample.leads if lead.ghl_contact_id],
        [lead.emailbison_lead_id for lead in sample.leads if lead.emailbison_lead_id],
    ):
        assert len(values) == len(set(values)) > 0


def test_ids_and_people_of_a_crowd_are_distinct() -> None:
    contacts = crowd(3000, seed=1)
    assert len({contact.id for contact in contacts}) == len({contact.email for contact in contacts}) == 3000
    assert all(re.fullmatch(r"[A-Za-z0-9]{20}", contact.id) for contact in contacts)
    names = [f"{contact.first_name} {contact.last_name}" for contact in contacts]
    assert any('"' in name for name in names)
    assert any(not name.isascii() for name in names)
    assert max(map(len, names)) > 150


def test_a_token_is_not_in_the_repr(sample: SampleLocation) -> None:
    assert sample.token not in repr(sample)


class _Repair:
    """The rules of resolving and filling, once more and as plainly as possible, to check the expectations by."""

    def __init__(self, location: SampleLocation) -> None:
        self.by_id = {contact.id: contact for contact in location.contacts}
        self.by_email: dict[str, list[Contact]] = defaultdict(list)
        self.by_additional: dict[str, list[Contact]] = defaultdict(list)
        for contact in location.contacts:
            self.by_email[(contact.email or "").strip().lower()].append(contact)
            for email in contact.additional_emails:
                self.by_additional[email.strip().lower()].append(contact)

    def outcome(self, lead: SampleLead) -> tuple[str | None, set[str]]:
        missing = {name for name in FIELDS if not (getattr(lead, name) or "").strip()}
        if lead.ghl_contact_id and not missing:
            return None, set()
        if lead.ghl_contact_id:
            if not re.fullmatch(r"[A-Za-z0-9]{15,64}", lead.ghl_contact_id):
                return self._fallen_back(lead, "invalid_contact_id")
            if lead.ghl_contact_id not in self.by_id:
                return self._fallen_back(lead, "contact_deleted")
            filled = self._fills(missing, self.by_id[lead.ghl_contact_id])
            return ("hydrated" if filled else "unchanged"), filled
        return self._by_email(lead, missing)

    def _by_email(self, lead: SampleLead, missing: set[str]) -> tuple[str, set[str]]:
        def rank(contact: Contact) -> tuple[bool, int]:
            return contact.phone is not None, contact.date_updated

        best = sorted(self._matches(lead), key=rank, reverse=True)
        if not best:
            return "not_found", set()
        if len(best) > 1 and rank(best[0]) == rank(best[1]):
            return "ambiguous", set()
        return "linked_and_hydrated", self._fills(missing, best[0])

    def _matches(self, lead: SampleLead) -> list[Contact]:
        email = (lead.email or "").strip().lower()
        return self.by_email.get(email) or self.by_additional.get(email) or []

    def _fallen_back(self, lead: SampleLead, outcome: str) -> tuple[str, set[str]]:
        assert not self._matches(lead), "the outcome of such a lead would be a matter of taste"
        return outcome, set()

    def _fills(self, missing: set[str], contact: Contact) -> set[str]:
        filled = {name for name in missing if (getattr(contact, name) or "").strip()}
        if sum(char.isdigit() for char in contact.phone or "") < 7:
            filled.discard("phone")
        return filled


def test_every_expectation_is_what_the_rules_say(sample: SampleLocation) -> None:
    repair = _Repair(sample)
    for lead in sample.leads:
        outcome, filled = repair.outcome(lead)
        assert (lead.expected, set(lead.fills)) == (outcome, filled), lead.case


def test_no_two_leads_belong_to_one_contact(sample: SampleLocation) -> None:
    repair = _Repair(sample)
    claimed = [lead.ghl_contact_id for lead in sample.leads if lead.ghl_contact_id]
    claimed += [contact.id for lead in sample.leads if not lead.ghl_contact_id for contact in repair._matches(lead)]
    assert len(claimed) == len(set(claimed))
