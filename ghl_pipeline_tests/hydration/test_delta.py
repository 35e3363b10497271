"""Nights after the first: leads looked up before cost nothing until a contact changes, and no change is missed."""

import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ghl_pipeline.hydration.options import Step
from ghl_pipeline.hydration.work_list import Scope
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place

FOUND, ABSENT = 60, 40


@pytest.fixture
def people() -> list[Contact]:
    return crowd(700, "delta")


@pytest.fixture
async def place(agency: Agency, people: list[Contact]) -> Place:
    """A location after its first night: 60 leads linked that still lack what their contacts lack, 40 of nobody."""
    poor = [Contact(id=c.id, date_added=c.date_added, date_updated=c.date_updated, email=c.email) for c in people]
    place = agency.place(contacts=poor)
    agency.leads(place, [{"email": contact.email} for contact in poor[:FOUND]])
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(ABSENT)])
    (report,) = (await agency.backfill(place, history=RememberedHistory())).reports
    assert (report.outcomes["linked_and_hydrated"], report.outcomes["not_found"]) == (FOUND, ABSENT)
    agency.sandbox.world.reset_statistics()
    return place


async def next_night(agency: Agency, place: Place, **options: Any) -> tuple[dict[str, int], dict[str, Any]]:
    """Runs the location again; its outcomes and the values of `resolved_contacts`."""
    history = RememberedHistory(attempt="next night")
    (report,) = (await agency.backfill(place, history=history, **options)).reports
    assert history.done_steps(place.id) == [step.value for step in Step]
    assert sum(report.outcomes.values()) == report.eligible
    events = [r for kind, asset, _, r in history.events if (kind, asset) == ("done", Step.RESOLVED_CONTACTS)]
    return dict(report.outcomes), dict(events[-1].values)


def id_of(agency: Agency, email: str) -> int:
    return int(next(row["id"] for row in agency.rows() if row["email"] == email))


async def test_a_night_on_which_nothing_changed_costs_one_call(agency: Agency, place: Place) -> None:
    before = agency.rows()
    outcomes, values = await next_night(agency, place)
    assert agency.requests(place) == values["requests"] == 1
    assert (outcomes["unchanged"], outcomes["not_found"]) == (FOUND, ABSENT)
    assert values["plan"] == "delta for 100 leads (0 to ask); calls: lookup 1, delta 0"
    assert agency.rows() == before


async def test_contacts_that_changed_or_came_are_found_with_the_same_call(agency: Agency, place: Place) -> None:
    touched = agency.rows()[7]
    place.ghl.change(touched["ghl_contact_id"], phone="+13055550177", first_name="Ada")
    new = place.ghl.add(email="Nobody.3@example.net", phone="+13055550178")
    outcomes, values = await next_night(agency, place)
    assert agency.requests(place) == 1
    assert values["contacts_pulled"] == 2
    assert (outcomes["hydrated"], outcomes["linked_and_hydrated"]) == (1, 1)
    assert agency.row(touched["id"])["phone"] == "+13055550177"
    assert agency.row(id_of(agency, "nobody.3@example.net"))["ghl_contact_id"] == new.id
    assert (outcomes["unchanged"], outcomes["not_found"]) == (FOUND - 1, ABSENT - 1)


async def test_what_changed_before_an_unchanged_night_is_not_pulled_for_ever(agency: Agency, place: Place) -> None:
    with agency.engine.begin() as connection:  # the first pass is longer ago than the overlap
        connection.execute(text("UPDATE location_learning SET changes_seen_until = now() - interval '1 hour'"))
    place.ghl.change(agency.rows()[7]["ghl_contact_id"], phone="+13055550177")
    await next_night(agency, place)
    (learned,) = agency.table("location_learning")
    with agency.engine.connect() as connection:
        ago = connection.execute(text("SELECT now() - changes_seen_until FROM location_learning")).scalar_one()
    assert ago < timedelta(minutes=5)
    assert learned["changes_seen_until"] is not None


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_lead_never_looked_up_is_asked_for(
    agency: Agency, place: Place, people: list[Contact], scope: Scope
) -> None:
    agency.lead(place, email=people[FOUND].email)
    outcomes, _ = await next_night(agency, place, scope=scope)
    assert outcomes["linked_and_hydrated"] == 1


async def test_a_lead_whose_address_was_corrected_is_asked_for_though_no_contact_changed(
    agency: Agency, place: Place, people: list[Contact]
) -> None:
    lead = id_of(agency, "nobody.3@example.net")
    agency.edit(lead, email=people[FOUND].email)
    outcomes, _ = await next_night(agency, place)
    assert agency.row(lead)["ghl_contact_id"] == people[FOUND].id
    assert outcomes["linked_and_hydrated"] == 1


async def test_a_lead_that_was_unlinked_is_linked_again(agency: Agency, place: Place) -> None:
    lead = agency.rows()[5]
    agency.edit(lead["id"], ghl_contact_id=None)
    await next_night(agency, place)
    assert agency.row(lead["id"])["ghl_contact_id"] == lead["ghl_contact_id"]


async def test_a_field_that_is_emptied_again_is_asked_for(agency: Agency) -> None:
    place = agency.place()
    contact = place.ghl.add(**{name: value for name, value in COMPLETE.items() if name != "company_name"})
    lead = agency.lead(place, email="ada@example.com")
    await agency.backfill(place, history=RememberedHistory())
    assert agency.row(lead)["ghl_contact_id"] == contact.id
    agency.edit(lead, phone=" ")
    outcomes, _ = await next_night(agency, place)
    assert agency.row(lead)["phone"] == "+13055550123"
    assert outcomes["hydrated"] == 1


async def test_a_change_while_a_lead_was_complete_is_not_missed_when_it_no_longer_is(agency: Agency) -> None:
    """The lead is off the lists while it lacks nothing, so the nights' changes pass it by."""
    place = agency.place()
    contact = place.ghl.add(**{name: value for name, value in COMPLETE.items() if name != "company_name"})
    lead = agency.lead(place, email="ada@example.com")
    await agency.backfill(place, history=RememberedHistory())
    agency.edit(lead, company_name="Typed")
    place.ghl.change(contact.id, company_name="Engines")
    await next_night(agency, place)
    with agency.engine.begin() as connection:  # those changes lie behind the overlap by now
        connection.execute(text("UPDATE location_learning SET changes_seen_until = now() + interval '1 hour'"))
    agency.edit(lead, company_name=None)
    await next_night(agency, place)
    assert agency.row(lead)["company_name"] == "Engines"


async def test_an_ambiguous_lead_is_decided_by_all_its_contacts_when_one_of_them_changes(agency: Agency) -> None:
    place = agency.place(allow_duplicates=True)
    moment = 1_750_000_000_000
    twins = [place.ghl.add(email="twin@example.com", date_updated=moment, phone=None) for _ in range(2)]
    lead = agency.lead(place, email="twin@example.com")
    (report,) = (await agency.backfill(place, history=RememberedHistory())).reports
    assert report.outcomes["ambiguous"] == 1
    place.ghl.change(twins[0].id, first_name="Ada", phone=None)
    place.ghl.change(twins[1].id, phone="+13055550188", date_updated=moment)  # a change that no delta shows
    await next_night(agency, place)
    assert agency.row(lead)["ghl_contact_id"] == twins[1].id


async def test_a_lead_whose_dead_link_was_found_out_before_costs_no_call_until_its_address_is_somebodys(
    agency: Agency, place: Place
) -> None:
    gone = place.ghl.add(email="gone@example.com")
    lead = agency.lead(place, email="moved@example.com", ghl_contact_id=gone.id)
    place.ghl.remove(gone.id)
    await next_night(agency, place)
    agency.sandbox.world.reset_statistics()
    outcomes, _ = await next_night(agency, place)
    assert (agency.requests(place), outcomes["contact_deleted"]) == (1, 1)
    successor = place.ghl.add(email="moved@example.com")
    outcomes, _ = await next_night(agency, place)
    assert (agency.requests(place), outcomes["linked_and_hydrated"]) == (2, 1)
    assert agency.row(lead)["ghl_contact_id"] == successor.id


async def test_every_lead_is_looked_up_again_after_a_month(agency: Agency, place: Place) -> None:
    """Not every change moves a contact's date, and a deletion leaves none."""
    deleted = agency.rows()[5]
    place.ghl.remove(deleted["ghl_contact_id"])
    outcomes, _ = await next_night(agency, place)
    assert outcomes["contact_deleted"] == 0
    with agency.engine.begin() as connection:
        connection.execute(text("UPDATE lead_lookups SET looked_up_at = looked_up_at - interval '31 days'"))
    outcomes, values = await next_night(agency, place)
    assert outcomes["contact_deleted"] == 1
    assert values["plan_leads_to_ask"] == FOUND + ABSENT


async def test_a_fresh_start_looks_everything_up(agency: Agency, place: Place) -> None:
    _, values = await next_night(agency, place, fresh=True)
    assert values["plan_leads_to_ask"] == FOUND + ABSENT


async def test_after_an_import_that_touched_every_contact_looking_up_is_cheaper(agency: Agency, place: Place) -> None:
    for contact_id in list(place.ghl.contacts.by_id):
        place.ghl.change(contact_id, company_name="Engines")
    outcomes, values = await next_night(agency, place)
    # 2 pages of changes, one of them paid for, against one group of a hundred.
    assert values["plan"].endswith("calls: lookup 1, delta 1")
    assert outcomes["hydrated"] == FOUND


async def test_contacts_that_the_search_did_not_show_yet_are_found_the_next_time(agency: Agency) -> None:
    place = agency.place()
    agency.sandbox.faults(index_lag_seconds=3600)
    lead = agency.lead(place, email="ada@example.com")
    place.ghl.add(**COMPLETE)
    (report,) = (await agency.backfill(place, history=RememberedHistory())).reports
    assert report.outcomes["not_found"] == 1
    agency.sandbox.faults()
    await next_night(agency, place)
    assert agency.row(lead)["phone"] == "+13055550123"


async def test_a_limited_run_does_not_count_as_a_pass_over_all_leads(agency: Agency, people: list[Contact]) -> None:
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:20]])
    await agency.backfill(place, max_leads=10)
    assert [row["changes_seen_until"] for row in agency.table("location_learning")] in ([None], [])
    outcomes, _ = await next_night(agency, place)
    assert outcomes["linked_and_hydrated"] == 10


async def test_leads_whose_lookup_failed_are_asked_for_again_and_hold_nobody_else_back(
    agency: Agency, place: Place
) -> None:
    refused = agency.lead(place, email=f"{'x' * 80}@example.com")  # too long for a search: by the duplicate lookup
    agency.sandbox.faults(error_rate=1.0, routes=["GET /contacts/search/duplicate"])
    (failure,) = (await agency.backfill(place, history=RememberedHistory(attempt="2"))).failures
    assert failure.error_class == "LookupsFailed"
    agency.sandbox.faults()
    place.ghl.add(email=agency.row(refused)["email"], phone="+13055550188")
    agency.sandbox.world.reset_statistics()
    await next_night(agency, place)
    assert agency.row(refused)["phone"] == "+13055550188"


async def test_a_location_that_does_not_search_by_date_is_looked_up(agency: Agency, place: Place) -> None:
    agency.sandbox.faults(ranges_refused=True)
    outcomes, values = await next_night(agency, place)
    assert values["way"] == "lookup"
    assert (outcomes["unchanged"], outcomes["not_found"]) == (FOUND, ABSENT)


async def test_a_delta_goes_on_where_it_was_stopped(agency: Agency, people: list[Contact]) -> None:
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(1600)])
    await agency.backfill(place, history=RememberedHistory())
    now = int(time.time() * 1000)
    for number in range(1600):
        place.ghl.add(email=f"nobody.{number}@example.net", date_updated=now + number, phone="+13055550188")
    history = RememberedHistory(attempt="2")
    agency.sandbox.world.reset_statistics()
    history.before_progress = lambda _asset, _report: agency.sandbox.faults(place.id, error_rate=1.0)
    (failure,) = (await agency.backfill(place, history=history)).failures
    assert failure.error_class == "GhlServerError"
    agency.sandbox.faults(place.id)
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == 1600
    # 4 pages; the one that was asked for while the first was stored may have come and been lost.
    assert agency.sandbox.stats(place.id)["by_route"]["POST /contacts/search"]["200"] in {4, 5}
