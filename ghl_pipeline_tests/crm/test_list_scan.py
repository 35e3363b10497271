"""When a list counts as gone through to its end."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.list_scan import ListWalk
from ghl_pipeline_tests.crm.fetching import Market
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@pytest.mark.parametrize(
    ("walk", "is_complete"),
    [
        (ListWalk(received=800, first_total=800, last_total=800, ended=True), True),
        (ListWalk(received=801, first_total=800, last_total=801, ended=True), True),
        # Ten were deleted meanwhile: before they came, or after.
        (ListWalk(received=790, first_total=800, last_total=790, ended=True), True),
        (ListWalk(received=800, first_total=800, last_total=790, ended=True), True),
        # So many at once are rather lost than deleted, though the last page's total agrees.
        (ListWalk(received=789, first_total=800, last_total=789, ended=True), False),
        (ListWalk(received=9_900, first_total=10_000, last_total=9_900, ended=True), True),
        (ListWalk(received=9_899, first_total=10_000, last_total=9_899, ended=True), False),
        (ListWalk(received=0, first_total=800, last_total=0, ended=True), False),
        (ListWalk(received=799, first_total=800, last_total=800, ended=True), False),
        (ListWalk(received=800, first_total=800, last_total=800, ended=False), False),
        (ListWalk(received=800, first_total=800, last_total=800, at_cap=True), False),
        (ListWalk(received=799, unreadable=1, first_total=800, last_total=800, ended=True), False),
        (ListWalk(received=800, ended=True), False),
        (ListWalk(received=0, first_total=0, last_total=0, ended=True), True),
    ],
)
def test_a_list_is_complete_only_when_as_many_came_as_there_are(walk: ListWalk, is_complete: bool) -> None:
    assert walk.is_complete is is_complete


async def test_a_total_that_stops_counting_does_not_end_a_scan(engine: Engine, sandbox: Sandbox) -> None:
    market = Market(engine, sandbox)
    people = market.crowd(1_200)
    market.survey()
    market.leads([{"email": "nobody.knows@example.com"}])
    market.faults(total_at_most=1_000)
    fetched = await market.run()
    assert fetched.contacts.keys() == {person.id for person in people}
    assert fetched.calls.list_pages == 3
