"""The hashes by which an event about a stranger is found once they are a lead."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.webhooks.person_keys import person_keys

CONTACT = "GKBhT6BfwY9mjzXAU3sq"


def test_there_is_a_key_for_each_thing_the_person_is_known_by() -> None:
    whole = person_keys(NewLead(contact_id=CONTACT, emailbison_lead_id=4711, email="ann@example.com", phone="5550123"))

    assert whole == (
        *person_keys(NewLead(contact_id=CONTACT)),
        *person_keys(NewLead(emailbison_lead_id=4711)),
        *person_keys(NewLead(email="ann@example.com")),
    )
    assert len(set(whole)) == 3


def test_the_keys_of_rows_that_are_stored_stay_what_they_are() -> None:
    assert person_keys(NewLead(contact_id=CONTACT, emailbison_lead_id=4711, email="ann@example.com")) == (
        UUID("276fdf39-aeb7-5fa9-a844-c0a69cec3c8d"),
        UUID("af1e7485-ff8f-5a98-9056-8a4465478279"),
        UUID("16bab0e6-6ea6-502c-a8ab-ab001e883df9"),
    )


@pytest.mark.parametrize("nothing", [NewLead(), NewLead(phone="+13055550123"), NewLead(email=" ", contact_id="\x00 ")])
def test_who_is_known_by_nothing_has_no_key(nothing: NewLead) -> None:
    assert person_keys(nothing) == ()


@given(st.emails(domains=st.just("example.com")), st.sampled_from(["", " ", "\t", "\x00", "\ud83d"]))
def test_case_and_surrounding_space_of_an_address_make_no_other_person(email: str, around: str) -> None:
    assert person_keys(NewLead(email=f"{around}{email.upper()}{around}")) == person_keys(NewLead(email=email))


def test_a_number_that_is_an_id_of_two_kinds_makes_two_keys() -> None:
    assert set(person_keys(NewLead(contact_id="4711"))).isdisjoint(person_keys(NewLead(emailbison_lead_id=4711)))


def test_ids_of_contacts_are_told_apart_by_their_case() -> None:
    assert person_keys(NewLead(contact_id=CONTACT)) != person_keys(NewLead(contact_id=CONTACT.lower()))
