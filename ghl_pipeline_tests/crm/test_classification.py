"""Who a contact is: every contact is exactly one, whatever is known and whatever it says of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.crm.classification import Classified, ContactClass, Known, Reason, classify
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline_tests.crm.contacts import CONTACT_ID, REGION, contact

ADDRESS, OTHER_ADDRESS = "ada@example.com", "ada@example.org"
PHONE, E164 = "(305) 555-0123", "+13055550123"
NOBODY = Known()
VENDOR_BY_ID, VENDOR_BY_EMAIL = Known(vendor_ids={CONTACT_ID}), Known(vendor_emails={ADDRESS})
LEAD_BY_ID, LEAD_BY_EMAIL = Known(lead_ids={CONTACT_ID}), Known(lead_emails={ADDRESS})
V, L, S, O = ContactClass.VENDOR, ContactClass.LEAD, ContactClass.STAFF, ContactClass.OTHER  # noqa: E741


def tagged(*tags: str) -> ContactDetails:
    return ContactDetails(tags=tags)


def from_source(source: str) -> ContactDetails:
    return ContactDetails(source=source)


def classified(who: Contact, known: Known, *, discover: bool = True, opportunities: tuple[str, ...] = ()) -> Classified:
    return classify(who, known, discover=discover, default_region=REGION, opportunity_ids=opportunities)


@pytest.mark.parametrize(
    ("who", "known", "expected", "reason"),
    [
        pytest.param(contact(), VENDOR_BY_ID, V, Reason.VENDOR_ID, id="a vendor's id"),
        pytest.param(contact(email=" ADA@Example.com"), VENDOR_BY_EMAIL, V, Reason.VENDOR_EMAIL, id="vendor e-mail"),
        pytest.param(
            contact(email=OTHER_ADDRESS, others=(ADDRESS,)), VENDOR_BY_EMAIL, V, Reason.VENDOR_ADDITIONAL_EMAIL,
            id="a vendor's e-mail among the additional ones",
        ),
        pytest.param(contact(details=from_source("Vendor Application")), NOBODY, V, Reason.VENDOR_SOURCE, id="source"),
        pytest.param(
            contact(details=from_source("website: VENDOR  application form 2")), NOBODY, V, Reason.VENDOR_SOURCE,
            id="source in any case, with more around",
        ),
        pytest.param(contact(details=from_source("vendor")), NOBODY, O, Reason.UNKNOWN, id="another source"),
        pytest.param(contact(details=tagged("new vendor")), NOBODY, V, Reason.VENDOR_TAG, id="tag new vendor"),
        pytest.param(contact(details=tagged("new vendor application")), NOBODY, V, Reason.VENDOR_TAG, id="application"),
        pytest.param(contact(details=tagged("x", "manually approved")), NOBODY, V, Reason.VENDOR_TAG, id="approved"),
        pytest.param(contact(details=tagged("deactivated")), NOBODY, O, Reason.UNKNOWN, id="a status is no signal"),
        pytest.param(contact(), LEAD_BY_ID, L, Reason.LEAD_ID, id="a lead's id"),
        pytest.param(contact(email=ADDRESS), LEAD_BY_EMAIL, L, Reason.LEAD_EMAIL, id="a lead's e-mail"),
        pytest.param(
            contact(others=(ADDRESS,)), LEAD_BY_EMAIL, L, Reason.LEAD_ADDITIONAL_EMAIL,
            id="a lead's e-mail among the additional ones",
        ),
        pytest.param(
            contact(email=ADDRESS, others=(OTHER_ADDRESS,)),
            Known(lead_emails={ADDRESS}, vendor_emails={OTHER_ADDRESS}), L, Reason.LEAD_EMAIL,
            id="the own e-mail comes before an additional one",
        ),
        pytest.param(
            contact(), Known(vendor_ids={CONTACT_ID}, lead_ids={CONTACT_ID}), V, Reason.VENDOR_ID, id="both: a vendor",
        ),
        pytest.param(contact(details=tagged("new lead")), NOBODY, L, Reason.NEW_LEAD_TAG, id="unknown, new lead"),
        pytest.param(
            contact(details=tagged("new lead", "new vendor")), NOBODY, V, Reason.VENDOR_TAG, id="the vendor wins",
        ),
        pytest.param(contact(email=ADDRESS), NOBODY, O, Reason.UNKNOWN, id="nobody"),
        pytest.param(Contact("nobody", email=ADDRESS), LEAD_BY_EMAIL, L, Reason.LEAD_EMAIL, id="without details"),
    ],
)  # fmt: skip
def test_a_contact_is_what_the_first_rule_says(
    who: Contact, known: Known, expected: ContactClass, reason: Reason
) -> None:
    found = classified(who, known)
    assert (found.contact_class, found.reason) == (expected, reason)


@pytest.mark.parametrize(
    ("who", "known", "reason"),
    [
        (contact(details=ContactDetails(type="staff", tags=("new vendor",))), NOBODY, Reason.STAFF_TYPE),
        (contact(), Known(staff_ids={CONTACT_ID}, vendor_ids={CONTACT_ID}), Reason.STAFF_ID),
        (contact(email=ADDRESS.upper()), Known(staff_emails={ADDRESS}, lead_emails={ADDRESS}), Reason.STAFF_EMAIL),
        (contact(phone=PHONE, details=tagged("new lead")), Known(staff_phones={E164}), Reason.STAFF_PHONE),
    ],
)
def test_staff_is_neither_vendor_nor_lead_whatever_else_it_is(who: Contact, known: Known, reason: Reason) -> None:
    assert classified(who, known) == Classified(S, reason)


def test_who_has_a_user_among_the_additional_emails_is_no_staff() -> None:
    who = contact(email=ADDRESS, others=(OTHER_ADDRESS,))
    assert classified(who, Known(staff_emails={OTHER_ADDRESS}, lead_emails={ADDRESS})).contact_class is L


def test_a_lead_is_recognised_by_its_opportunity() -> None:
    known = Known(lead_opportunity_ids={"deal1"})
    assert classified(contact(), known, opportunities=("deal0", "deal1")) == Classified(L, Reason.LEAD_OPPORTUNITY)
    assert classified(contact(), known, opportunities=("deal0",)).contact_class is O


def test_without_discovery_a_new_lead_stays_unknown_and_a_vendor_is_one_all_the_same() -> None:
    assert classified(contact(details=tagged("new lead")), NOBODY, discover=False) == Classified(O, Reason.UNKNOWN)
    assert classified(contact(details=tagged("new vendor")), NOBODY, discover=False).contact_class is V


@pytest.mark.parametrize("known", [LEAD_BY_ID, LEAD_BY_EMAIL, Known(lead_emails={OTHER_ADDRESS})])
def test_a_lead_that_applies_as_a_vendor_is_reclassified_once(known: Known) -> None:
    who = contact(email=ADDRESS, others=(OTHER_ADDRESS,), details=tagged("new vendor"))
    assert classified(who, known) == Classified(V, Reason.VENDOR_TAG, is_reclassified=True)
    both = Known(lead_ids=known.lead_ids, lead_emails=known.lead_emails, vendor_ids={CONTACT_ID})
    assert classified(who, both) == Classified(V, Reason.VENDOR_ID)
    assert not classified(who, NOBODY).is_reclassified


def test_what_is_known_is_not_shown() -> None:
    assert ADDRESS not in repr(Known(vendor_emails={ADDRESS}, staff_phones={E164}))


A_SET = st.frozensets(st.sampled_from([CONTACT_ID, ADDRESS, OTHER_ADDRESS, E164, "deal1"]))


@given(
    st.builds(Known, A_SET, A_SET, A_SET, A_SET, A_SET, A_SET, A_SET, A_SET),
    st.builds(
        contact,
        email=st.sampled_from([None, ADDRESS, OTHER_ADDRESS]),
        others=st.sampled_from([(), (ADDRESS,), (OTHER_ADDRESS,), (OTHER_ADDRESS, ADDRESS)]),
        phone=st.sampled_from([None, PHONE]),
        details=st.builds(
            ContactDetails,
            type=st.sampled_from([None, "staff", "lead"]),
            source=st.sampled_from([None, "Vendor Application", "web"]),
            tags=st.lists(st.sampled_from(["new vendor", "new lead", "x"]), unique=True).map(tuple),
        ),
    ),
    st.booleans(),
)
def test_every_contact_is_exactly_one_for_a_reason_of_its_class(known: Known, who: Contact, discover: bool) -> None:
    found = classified(who, known, discover=discover, opportunities=("deal1",))
    of_its_own = {Reason.UNKNOWN: O, Reason.NEW_LEAD_TAG: L}
    assert found.contact_class is (of_its_own.get(found.reason) or ContactClass(found.reason.partition("_")[0]))
    assert not found.is_reclassified or found.contact_class is V
    details = who.details or ContactDetails()
    turned = ContactDetails(type=details.type, source=details.source, tags=details.tags[::-1])
    again = Contact(
        who.id, email=who.email, additional_emails=who.additional_emails[::-1], phone=who.phone, details=turned
    )
    assert classified(again, known, discover=discover, opportunities=("deal1",)) == found
