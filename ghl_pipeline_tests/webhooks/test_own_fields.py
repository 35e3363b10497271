"""Which of a lead's own values its contact is given."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.ghl.standard_fields import StandardFields
from ghl_pipeline.webhooks.ensuring.own_fields import OwnLead, fields_of_new, fields_to_change, sendable_phone

LEAD = OwnLead(1, None, "ada@example.com", "+13055550123", first_name="Ada", last_name="Byron", company_name="Engines")
ID = "ContactAAAAAAAAAAAAA"
SAME = Contact(ID, LEAD.email, (), LEAD.phone, LEAD.first_name, LEAD.last_name, LEAD.company_name)
TEXTS = st.none() | st.sampled_from(["", " ", "Ada", " Ada ", "Byron", "ada@example.com", "+13055550123", "5550123"])
LEADS = st.builds(
    OwnLead,
    st.just(1),
    TEXTS,
    TEXTS,
    TEXTS,
    first_name=TEXTS,
    last_name=TEXTS,
    company_name=TEXTS,
    opted_out=st.booleans(),
)
CLEAN = TEXTS.map(lambda text: (text or "").strip() or None)
CONTACTS = st.builds(
    Contact, st.just(ID), CLEAN, st.just(()), CLEAN, first_name=CLEAN, last_name=CLEAN, company_name=CLEAN
)


@pytest.mark.parametrize(
    ("contact", "given"),
    [
        (SAME, {}),
        (Contact(ID), {"firstName": "Ada", "lastName": "Byron", "companyName": "Engines", "phone": "+13055550123",
                       "email": "ada@example.com"}),
        (Contact(ID, "ada@example.com", (), "+13055550100", "ada", "Byron", "Engines"), {"firstName": "Ada"}),
        (Contact(ID, "other@example.com", (), "none", "Ada", "Byron", "Engines"), {}),
        (Contact(ID, None, ("other@example.com",), "none", "Ada", "Byron", None), {"companyName": "Engines"}),
        (Contact(ID, "ada@example.com", (), None, "Ada", "Byron", "Engines"), {"phone": "+13055550123"}),
    ],
)  # fmt: skip
def test_a_contact_is_given_what_differs_and_is_allowed(contact: Contact, given: dict[str, str]) -> None:
    assert fields_to_change(LEAD, contact, "US").as_body() == given


@pytest.mark.parametrize(
    ("contact", "given"),
    [
        (Contact(ID, "ada@example.com", (), "none", "Augusta", "King", "Looms"), {}),
        (
            Contact(ID, "ada@example.com", (), "none", "Augusta", None, " "),
            {"lastName": "Byron", "companyName": "Engines"},
        ),
    ],
)
def test_a_lead_that_has_had_a_contact_gives_only_what_the_contact_has_none_of(
    contact: Contact, given: dict[str, str]
) -> None:
    assert fields_to_change(replace(LEAD, contact_id=ID), contact, "US").as_body() == given
    # What is no id never was a link.
    assert len(fields_to_change(replace(LEAD, contact_id="test_contact_1"), contact, "US").as_body()) == 3


@pytest.mark.parametrize("email", ["ada@example.com, bob@example.com", "ada@example", "Ada <ada@example.com>", "@"])
def test_an_e_mail_that_is_not_one_address_is_given_to_nobody(email: str) -> None:
    lead = replace(LEAD, email=email)
    assert "email" not in fields_to_change(lead, Contact(ID), "US").as_body()


@given(lead=LEADS, contact=CONTACTS)
def test_a_phone_and_an_address_that_ghl_has_are_never_sent_and_nothing_is_emptied(
    lead: OwnLead, contact: Contact
) -> None:
    body = fields_to_change(lead, contact, "US").as_body()
    assert all(value.strip() for value in body.values())
    assert contact.phone is None or "phone" not in body
    assert contact.email is None or "email" not in body
    assert body.keys() <= {"firstName", "lastName", "email", "phone", "companyName"}


@given(lead=LEADS, contact=CONTACTS)
def test_what_was_given_is_not_given_again(lead: OwnLead, contact: Contact) -> None:
    body = fields_to_change(lead, contact, "US").as_body()
    after = Contact(
        ID,
        body.get("email", contact.email),
        (),
        body.get("phone", contact.phone),
        body.get("firstName", contact.first_name),
        body.get("lastName", contact.last_name),
        body.get("companyName", contact.company_name),
    )
    assert fields_to_change(lead, after, "US").as_body() == {}


@pytest.mark.parametrize(
    ("phone", "sent"),
    [
        ("+13055550123", "+13055550123"),
        ("(305) 555-0123", "+13055550123"),
        ("001 305 555 0123", "+13055550123"),
        ("+9995550123", None),
        ("5550123", None),
        ("call me", None),
        ("", None),
        (None, None),
    ],
)
def test_a_number_is_sent_as_e164_or_not_at_all(phone: str | None, sent: str | None) -> None:
    assert sendable_phone(phone, "US") == sent
    assert fields_of_new(replace(LEAD, phone=phone), "US").phone == sent


@pytest.mark.parametrize(
    ("email", "may"),
    [
        ("ada@example.com", True),
        (" Ada+tag@Mail.Example.ORG ", True),
        ("ada@example.com\u200b", True),
        ("\u200b", False),
        ("ada@example", False),
        ("ada@@example.com", False),
        ("Ada <ada@example.com>", False),
        ("ada@example.com;bob@example.com", False),
        ("a@example.com" + "m" * 320, False),
        (None, False),
    ],
)
def test_only_one_address_that_can_have_mail_becomes_a_contact(email: str | None, may: bool) -> None:
    assert replace(LEAD, email=email).may_be_created is may
    assert not replace(LEAD, email=email, opted_out=True).may_be_created


def test_no_person_is_shown() -> None:
    shown = repr((LEAD, fields_of_new(LEAD, "US")))
    assert [value for value in ("ada", "Byron", "Engines", "555") if value.lower() in shown.lower()] == []


def test_only_standard_fields_exist() -> None:
    assert {field.name for field in fields(StandardFields)} == {
        "first_name", "last_name", "email", "phone", "company_name",
    }  # fmt: skip
