"""Which row is which contact: links before addresses before opportunities, and nobody twice."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghl_pipeline.crm.fetched import Fetched, FetchMode
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side
from ghl_pipeline.crm.matching import Matches, match
from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.crm.sync_plan import Place, SyncPlan, make_plan
from ghl_pipeline.ghl.contact_details import ContactDetails
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline_tests.crm.contacts import FIELDS, contact

A, B, C = (f"Contact{letter:0>13}" for letter in "ABC")
ADA, BEN = "ada@example.com", "ben@example.com"
PLACE = Place((), FIELDS, "US", True)


def row(
    number: int = 1,
    *,
    link: str | None = None,
    email: str | None = None,
    deal: str | None = None,
    status: str = "active",
    outcome: str | None = None,
    side: Side = Side.LEAD,
) -> KnownRow:
    return KnownRow(side, number, link, email, deal, status, outcome=outcome)


def matched(
    *rows: KnownRow, contacts: tuple[Contact, ...], gone: frozenset[str] = frozenset(), **more: object
) -> Matches:
    by_id = {each.id: each for each in contacts}
    return match(rows, by_id, gone=gone, may_create=lambda _: True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "contacts", "expected"),
    [
        # The link counts, whoever has the e-mail.
        ([row(link=A, email=BEN)], [contact(A, email=ADA), contact(B, email=BEN)], {1: A}),
        ([row(email=ADA)], [contact(A, email="ADA@example.com ")], {1: A}),
        ([row(link="junk", email=ADA)], [contact(A, email=ADA)], {1: A}),
        ([row(email=ADA)], [contact(A, email=BEN, others=(ADA,))], {1: A}),
        ([row(email=ADA)], [contact(A, others=(ADA,)), contact(B, email=ADA)], {1: B}),
        ([row(email=ADA)], [contact(A, email=ADA), contact(B, email=ADA, phone="1")], {1: B}),
        ([row(email=ADA)], [contact(A, email=ADA), contact(B, email=ADA)], {}),
        ([row(link=C, email=ADA)], [contact(A, email=ADA)], {}),
        ([row(link=C, email=ADA, status=MISSING_STATUS)], [contact(A, email=ADA)], {1: A}),
        ([row(link=C, email=ADA, outcome="gone")], [contact(A, email=ADA)], {1: A}),
        ([row(deal="deal")], [contact(A)], {1: A}),
        ([row(deal="deal", email=BEN)], [contact(A), contact(B, email=BEN)], {1: B}),
        # One contact is one row's: the one whose own address it has.
        ([row(1, email=ADA), row(2, email=BEN)], [contact(A, email=BEN, others=(ADA,))], {2: A}),
    ],
)
def test_a_row_finds_its_contact(rows: list[KnownRow], contacts: list[Contact], expected: dict[int, str]) -> None:
    found = matched(*rows, contacts=tuple(contacts), contact_of_opportunity={"deal": A})
    assert dict(found.contact_of) == expected


def test_a_row_whose_contact_is_gone_is_found_by_its_email() -> None:
    rows, contacts = (row(link=C, email=ADA),), (contact(A, email=ADA),)
    assert matched(*rows, contacts=contacts).conflicts == 1
    assert dict(matched(*rows, contacts=contacts, gone=frozenset({C})).contact_of) == {1: A}


def test_a_new_contact_whose_address_is_a_rows_gets_no_row() -> None:
    found = matched(row(link=C, email=ADA), contacts=(contact(A, email=ADA), contact(B, email=BEN)))
    assert (found.new, found.conflicts) == ((B,), 1)


def test_an_address_that_a_row_gives_up_is_free() -> None:
    found = matched(row(link=A, email=BEN), contacts=(contact(A, email=ADA), contact(B, email=BEN)))
    assert (found.new, found.conflicts) == ((B,), 0)


def test_of_several_new_contacts_with_one_address_one_gets_a_row() -> None:
    older, newer = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    twins = [msgspec.structs.replace(contact(id_, email=ADA), date_updated=at) for id_, at in ((A, older), (B, newer))]
    assert matched(contacts=tuple(twins)) == Matches({}, (B,), 1, 0)
    equal = [contact(A, email=ADA), contact(B, email=ADA)]
    assert matched(contacts=tuple(equal)) == Matches({}, (), 0, 1)


# --- over small worlds

IDS = [f"Contact{number:013}" for number in range(5)]
EMAILS = [f"p{number}@example.com" for number in range(4)]
TAGS = ["new vendor", "new lead", "manual approval", "deactivated", "vip"]
people = st.lists(
    st.builds(
        lambda id_, email, others, phone, tags: contact(
            id_, email=email, others=tuple(others), phone=phone, details=ContactDetails(tags=tuple(tags))
        ),
        st.sampled_from(IDS),
        st.sampled_from([*EMAILS, None]),
        st.lists(st.sampled_from(EMAILS), max_size=2, unique=True),
        st.sampled_from([None, "305-555-0123"]),
        st.lists(st.sampled_from(TAGS), max_size=3, unique=True),
    ),
    unique_by=lambda each: each.id,
)


@st.composite
def sides(draw: st.DrawFn, side: Side) -> tuple[KnownRow, ...]:
    links = draw(st.lists(st.sampled_from([*IDS, None, "junk"]), max_size=4))
    emails = draw(st.permutations([*EMAILS, None, None]))
    rows, seen = [], set()
    for number, (link, email) in enumerate(zip(links, emails, strict=False), 1):
        if link not in seen or link is None:
            rows.append(row(number, link=link, email=email, side=side))
            seen.add(link)
    return tuple(rows)


worlds = st.tuples(sides(Side.VENDOR), sides(Side.LEAD), people, st.frozensets(st.sampled_from(IDS), max_size=2))


def planned(
    vendors: tuple[KnownRow, ...], leads: tuple[KnownRow, ...], all_: list[Contact], gone: frozenset[str]
) -> SyncPlan:
    here = {each.id: each for each in all_ if each.id not in gone}
    fetched = Fetched(FetchMode.FULL, datetime(2026, 1, 1, tzinfo=UTC), here, gone=gone)
    return make_plan(Identifiers(vendors, leads), fetched, PLACE)


@settings(max_examples=150, deadline=None)
@given(worlds)
def test_a_contact_is_one_rows_of_one_side_and_a_row_has_one(
    world: tuple[tuple[KnownRow, ...], tuple[KnownRow, ...], list[Contact], frozenset[str]],
) -> None:
    plan = planned(*world)
    ids: list[str] = []
    for side in (plan.vendors, plan.leads):
        ids += [each.values.contact_id for each in side.rows if each.values] + [each.contact_id for each in side.new]
        rows = [each.row.id for each in side.rows]
        assert len(rows) == len(set(rows))
        assert side.lost <= world[3]
    assert len(ids) == len(set(ids))
    assert sum(plan.classes.values()) == sum(plan.reasons.values()) == len({each.id for each in world[2]} - world[3])


@settings(max_examples=100, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_tags_contacts_and_additional_emails_does_not_matter(
    world: tuple[tuple[KnownRow, ...], tuple[KnownRow, ...], list[Contact], frozenset[str]], random: object
) -> None:
    vendors, leads, all_, gone = world
    shuffled = []
    for each in all_:
        tags, others = list(each.details.tags if each.details else ()), list(each.additional_emails)
        random.shuffle(tags)  # type: ignore[attr-defined]
        random.shuffle(others)  # type: ignore[attr-defined]
        shuffled.append(
            msgspec.structs.replace(each, additional_emails=tuple(others), details=ContactDetails(tags=tuple(tags)))
        )
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert planned(vendors, leads, shuffled, gone) == planned(*world)
