"""Which way a list is answered, by the calls it takes; and how far a pull has come. Rules without GHL or database."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.payloads import Contact, SearchPage
from ghl_pipeline.hydration.plan import Costs, Plan, Way, lookup_calls, pull_calls

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCAN = Plan(way=Way.SCAN, upto=10, began_at=NOW, pulled=False)
calls = st.none() | st.integers(0, 10_000)


def page(contacts: int, *, total: int | None, cursor: tuple[object, ...] | None) -> SearchPage:
    return SearchPage(tuple(Contact(f"contact{n}") for n in range(contacts)), total, cursor)


@pytest.mark.parametrize(
    ("lookup", "scan", "delta", "way"),
    [
        (500, 120, None, Way.SCAN),  # 50,000 leads among 60,000 contacts
        (5, 1200, None, Way.LOOKUP),
        (100, 120, 0, Way.DELTA),  # a night on which nothing changed: the page that told so is paid for
        (100, 120, 400, Way.LOOKUP),  # an import touched every contact
        (500, 120, 400, Way.SCAN),
        (3, None, 3, Way.DELTA),
        (3, 3, None, Way.LOOKUP),
    ],
)
def test_the_way_with_the_fewest_calls_is_chosen(lookup: int, scan: int | None, delta: int | None, way: Way) -> None:
    assert Costs(lookup=lookup, scan=scan, delta=delta).cheapest() is way


@given(st.integers(0, 10_000), calls, calls)
def test_no_way_is_cheaper_than_the_chosen_one(lookup: int, scan: int | None, delta: int | None) -> None:
    costs = Costs(lookup=lookup, scan=scan, delta=delta)
    chosen = {Way.LOOKUP: lookup, Way.SCAN: scan, Way.DELTA: delta}[costs.cheapest()]
    assert chosen is not None
    assert all(other is None or chosen <= other for other in (lookup, scan, delta))


def test_looking_up_takes_a_call_per_group_and_one_per_lead_where_letter_case_matters() -> None:
    assert lookup_calls(250, 100, case_matters=False) == 3
    assert lookup_calls(250, 1, case_matters=False) == 250
    assert lookup_calls(250, 100, case_matters=True) == 250
    assert lookup_calls(0, 100, case_matters=False) == 0


def test_a_pull_takes_a_page_per_500_contacts_and_one_to_learn_that_there_are_none() -> None:
    assert [pull_calls(contacts) for contacts in (0, 1, 500, 501, 60_000)] == [1, 1, 1, 2, 120]


def test_a_pull_is_through_when_as_many_came_as_there_are() -> None:
    first = SCAN.after_page(page(2, total=3, cursor=(1, "b")))
    assert (first.pulled, first.received, first.cursor) == (False, 2, '[1,"b"]')
    assert first.search_after == (1, "b")
    last = first.after_page(page(1, total=3, cursor=(2, "c")))
    assert last.pulled
    assert not last.came_short


@pytest.mark.parametrize("cursor", [None, (1, "b")])
def test_a_pull_whose_cursor_ends_or_comes_again_ends_and_tells_that_it_came_short(
    cursor: tuple[object, ...] | None,
) -> None:
    first = SCAN.after_page(page(2, total=9, cursor=(1, "b")))
    second = first.after_page(page(2, total=9, cursor=cursor))
    assert second.pulled
    assert second.came_short


def test_contacts_that_cannot_be_read_count_as_received() -> None:
    unreadable = SearchPage((), 3, (1, "b"), unreadable=3)
    assert SCAN.after_page(unreadable).pulled


def test_a_scan_covers_every_lead_that_was_listed_when_it_began() -> None:
    assert SCAN.covers(10, is_current=False)
    assert SCAN.covers(10, is_current=True)
    assert not SCAN.covers(11, is_current=False)


def test_a_delta_covers_current_leads_only_and_a_lookup_none() -> None:
    delta = Plan(way=Way.DELTA, upto=10, began_at=NOW)
    assert delta.covers(3, is_current=True)
    assert not delta.covers(3, is_current=False)
    assert not Plan(way=Way.LOOKUP, upto=10, began_at=NOW).covers(3, is_current=True)


def test_a_plan_given_up_is_a_lookup_and_says_why() -> None:
    plan = SCAN.after_page(page(2, total=9, cursor=(1, "b"))).by_lookups("the pull brought 2 of 9 contacts")
    assert plan.way is Way.LOOKUP
    assert not plan.covers(1, is_current=True)
    assert "given up: the pull brought 2 of 9 contacts" in plan.in_words()


def test_a_plan_survives_being_stored() -> None:
    plan = SCAN.after_page(page(2, total=9, cursor=(1764003536678, "abc")))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_the_choice_is_told_with_its_numbers() -> None:
    plan = Plan(way=Way.SCAN, upto=50, began_at=NOW, to_ask=40, current=10, costs=Costs(lookup=7, scan=3), total=1200)
    assert plan.in_words() == "scan for 50 leads (40 to ask); calls: lookup 7, scan 3"
    assert plan.values()["plan_calls_by_scan"] == 3
    assert "plan_calls_by_delta" not in plan.values()
