"""The merge rule: empty fields are filled, nothing a person wrote is replaced, and a second time changes nothing."""

from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.hydration.merge import NOT_NEEDED, ContactFields, LeadRow, merge
from ghl_pipeline.hydration.outcomes import LeadField

CONTACT = ContactFields("contact0000000000001", "ada@example.com", "(305) 555-0123", "Ada", "Byron", "Engines")
EMPTY = LeadRow(1, None, None, None, None, None, None)
FULL = LeadRow(1, CONTACT.contact_id, "own@example.com", "+12125550100", "Own", "Name", "Own Ltd")
EVERYTHING = (
    LeadField.CONTACT_LINK | LeadField.EMAIL | LeadField.PHONE | LeadField.FIRST_NAME | LeadField.LAST_NAME
    | LeadField.COMPANY_NAME
)  # fmt: skip

texts = st.none() | st.sampled_from(["", " ", "\t", "\xa0", "x"]) | st.text(max_size=8)
leads = st.builds(
    LeadRow,
    id=st.just(1),
    contact_id=texts,
    email=texts,
    phone=texts,
    first_name=texts,
    last_name=texts,
    company_name=texts,
    enrichment_status=st.sampled_from([None, NOT_NEEDED, "pending", "enriched"]),
)
contacts = st.builds(
    ContactFields,
    contact_id=st.sampled_from(["contact0000000000001", "contact0000000000002"]),
    email=texts,
    phone=texts | st.sampled_from(["+1 305 555 0123", "305.555.0124", "12345"]),
    first_name=texts,
    last_name=texts,
    company_name=texts,
)


@pytest.mark.parametrize(
    ("lead", "contact", "expected", "filled"),
    [
        pytest.param(
            EMPTY, CONTACT,
            LeadRow(1, CONTACT.contact_id, "ada@example.com", "+13055550123", "Ada", "Byron", "Engines"),
            EVERYTHING, id="an empty lead takes everything",
        ),
        pytest.param(FULL, CONTACT, FULL, LeadField(0), id="a full lead takes nothing"),
        pytest.param(
            replace(FULL, first_name="  ", company_name="\xa0"), CONTACT,
            replace(FULL, first_name="Ada", company_name="Engines"),
            LeadField.FIRST_NAME | LeadField.COMPANY_NAME, id="white space counts as empty",
        ),
        pytest.param(
            replace(FULL, last_name=None), replace(CONTACT, last_name=" \t"), replace(FULL, last_name=None),
            LeadField(0), id="white space of the contact fills nothing",
        ),
        pytest.param(
            replace(FULL, last_name=""), replace(CONTACT, last_name=" de la Cruz\n"),
            replace(FULL, last_name="de la Cruz"), LeadField.LAST_NAME, id="values are trimmed, not rewritten",
        ),
        pytest.param(
            replace(FULL, phone=None), replace(CONTACT, phone="call the office"), replace(FULL, phone=None),
            LeadField(0), id="a phone in letters is none",
        ),
        pytest.param(
            replace(FULL, phone=None), replace(CONTACT, phone="0044 20 7946 0958"),
            replace(FULL, phone="+442079460958"), LeadField.PHONE, id="a leading 00 is a plus",
        ),
        pytest.param(
            replace(FULL, contact_id=""), CONTACT, FULL, LeadField.CONTACT_LINK, id="a blank link is no link",
        ),
        pytest.param(
            replace(FULL, contact_id="another0000000000001"), CONTACT,
            replace(FULL, contact_id="another0000000000001"), LeadField(0), id="another link stays",
        ),
    ],
)  # fmt: skip
def test_what_a_contact_writes_into_a_lead(
    lead: LeadRow, contact: ContactFields, expected: LeadRow, filled: LeadField
) -> None:
    merged = merge(lead, contact, "US")
    assert merged.lead == expected
    assert merged.filled == filled


def test_a_dead_link_is_replaced_only_when_it_is_known_to_be_dead() -> None:
    lead = replace(FULL, contact_id="test_contact_1")
    merged = merge(lead, CONTACT, "US", relink=True)
    assert merged.lead == FULL
    assert merged.filled == LeadField.CONTACT_LINK


def test_the_clients_region_reads_local_numbers() -> None:
    contact = replace(CONTACT, phone="020 7946 0958")
    assert merge(EMPTY, contact, "GB").lead.phone == "+442079460958"


@pytest.mark.parametrize(
    ("status", "own_phone", "enriched"),
    [
        (None, None, True),
        ("pending", None, True),
        ("enriched", " ", True),
        (NOT_NEEDED, None, False),
        (None, "+12125550100", False),
    ],
)
def test_a_filled_phone_makes_a_lead_enriched_unless_the_dashboard_said_not_needed(
    status: str | None, own_phone: str | None, enriched: bool
) -> None:
    merged = merge(replace(EMPTY, enrichment_status=status, phone=own_phone), CONTACT, "US")
    assert merged.enriched is enriched
    assert (LeadField.PHONE in merged.filled) is is_blank(own_phone)


@given(leads, contacts, st.booleans())
def test_hydrating_twice_changes_nothing(lead: LeadRow, contact: ContactFields, relink: bool) -> None:
    once = merge(lead, contact, "US", relink=relink).lead
    again = merge(once, contact, "US", relink=relink)
    assert again.lead == once
    assert again.filled == LeadField(0)
    assert again.enriched is False


@given(leads, contacts)
def test_a_field_with_a_value_never_changes(lead: LeadRow, contact: ContactFields) -> None:
    merged = merge(lead, contact, "US").lead
    for before, after in zip(astuple(lead), astuple(merged), strict=True):
        assert after == before or is_blank(before)


@given(leads, contacts, st.booleans())
def test_filled_names_exactly_the_fields_that_differ(lead: LeadRow, contact: ContactFields, relink: bool) -> None:
    merged = merge(lead, contact, "US", relink=relink)
    differing = {
        field
        for field, name in zip(
            LeadField, ("contact_id", "email", "phone", "first_name", "last_name", "company_name"), strict=True
        )
        if getattr(lead, name) != getattr(merged.lead, name)
    }
    assert set(merged.filled) == differing
