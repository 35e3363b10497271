"""Which contact belongs to an address, whatever a search answers and in whatever order."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.matching import Ambiguous, match_addresses, normal_address

ADDRESS = "ada@example.com"
OLD, NEW = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)


def contact(
    name: str,
    email: str | None = ADDRESS,
    *,
    others: tuple[str, ...] = (),
    phone: str | None = None,
    at: datetime | None = OLD,
) -> Contact:
    return Contact(name, email=email, additional_emails=others, phone=phone, date_updated=at)


@pytest.mark.parametrize(
    ("contacts", "winner"),
    [
        pytest.param([contact("only")], "only", id="one contact"),
        pytest.param(
            [contact("own"), contact("other", "b@example.com", others=(ADDRESS,), phone="1", at=NEW)], "own",
            id="the contact's own e-mail beats an additional one, even with a phone and newer",
        ),
        pytest.param(
            [contact("new", at=NEW), contact("phone", phone="1")], "phone", id="a phone beats a later update",
        ),
        pytest.param([contact("old"), contact("new", at=NEW)], "new", id="the one updated last"),
        pytest.param([contact("undated", at=None), contact("dated")], "dated", id="any date beats none"),
        pytest.param(
            [contact("additional", "b@example.com", others=("c@example.com", ADDRESS))], "additional",
            id="an additional e-mail is enough",
        ),
        pytest.param(
            [contact("both", others=(ADDRESS, ADDRESS.upper()))], "both", id="one contact twice is one contact",
        ),
        pytest.param(
            [contact("twice", "b@example.com", others=(ADDRESS, ADDRESS.upper()))], "twice",
            id="an additional e-mail listed twice is no second contact",
        ),
        pytest.param([contact("same"), contact("same")], "same", id="the same contact on two pages"),
        pytest.param([contact("case", " ADA@Example.COM\n")], "case", id="letter case and space do not matter"),
        pytest.param(
            [contact("east", at=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))), contact("utc", at=NEW)],
            "utc", id="times of different zones",
        ),
    ],
)  # fmt: skip
def test_the_contact_with_the_best_claim_wins(contacts: list[Contact], winner: str) -> None:
    (found,) = match_addresses([ADDRESS], contacts).values()
    assert isinstance(found, Contact)
    assert found.id == winner


@pytest.mark.parametrize(
    ("contacts", "claims"),
    [
        ([contact("a"), contact("b")], 2),
        ([contact("a", phone="1"), contact("b", phone="2"), contact("c", phone="3"), contact("d", at=NEW)], 3),
        ([contact("a", at=None), contact("b", at=None)], 2),
        ([contact("a", None, others=(ADDRESS,)), contact("b", "b@example.com", others=(ADDRESS,))], 2),
    ],
)
def test_equal_claims_are_left_to_a_person(contacts: list[Contact], claims: int) -> None:
    assert match_addresses([ADDRESS], contacts) == {ADDRESS: Ambiguous(claims)}


def test_a_contact_that_the_search_should_not_have_answered_is_ignored() -> None:
    stranger, nobody = contact("stranger", "stranger@example.com", phone="1"), contact("nobody", None)
    assert match_addresses([ADDRESS], [stranger, nobody]) == {}
    assert match_addresses([ADDRESS], [stranger, contact("ada"), nobody])[ADDRESS].id == "ada"  # type: ignore[union-attr] # of one contact


def test_one_contact_may_answer_two_addresses() -> None:
    both = contact("both", others=("b@example.com",))
    assert match_addresses([ADDRESS, "b@example.com"], [both]) == {ADDRESS: both, "b@example.com": both}


def test_an_address_without_contacts_has_no_entry() -> None:
    assert match_addresses([], [contact("a")]) == {}
    assert match_addresses([ADDRESS], []) == {}


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        (" Ada@Example.com\t", ADDRESS),
        ("a\x00da@example.com", ADDRESS),
        ("\xa0ADA@EXAMPLE.COM", ADDRESS),
        (" \x00 ", None),
        ("", None),
        (None, None),
    ],
)
def test_how_addresses_are_compared(written: str | None, compared: str | None) -> None:
    assert normal_address(written) == compared


emails = st.sampled_from(["ada@example.com", "ADA@example.com ", "bob@example.com", None])
some_contacts = st.lists(
    st.builds(
        Contact,
        id=st.text("abcdef", min_size=1, max_size=2),
        email=emails,
        additional_emails=st.lists(emails.filter(bool), max_size=2).map(tuple),
        phone=st.sampled_from([None, "1"]),
        date_updated=st.sampled_from([None, OLD, NEW]),
    ),
    max_size=8,
    unique_by=lambda found: found.id,
)


@settings(max_examples=50)
@given(some_contacts, st.randoms(use_true_random=False))
def test_the_order_of_the_answer_does_not_matter(contacts: list[Contact], random: object) -> None:
    addresses = ["ada@example.com", "bob@example.com"]
    shuffled = list(contacts)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random of hypothesis
    assert match_addresses(addresses, shuffled) == match_addresses(addresses, contacts)


@settings(max_examples=50)
@given(some_contacts)
def test_whoever_is_matched_has_the_address(contacts: list[Contact]) -> None:
    addresses = ["ada@example.com", "bob@example.com"]
    owners = {a: [c for c in contacts if a in map(normal_address, (c.email, *c.additional_emails))] for a in addresses}
    matched = match_addresses(addresses, contacts)
    assert matched.keys() == {address for address, having in owners.items() if having}
    for address, found in matched.items():
        if isinstance(found, Ambiguous):
            assert 2 <= found.contacts <= len(owners[address])
        else:
            assert found in owners[address]
