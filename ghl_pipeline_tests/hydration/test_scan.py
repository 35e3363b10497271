"""Locations with many leads and not too many contacts are scanned: every contact is pulled once and joined locally."""

from typing import Any

import pytest

from ghl_pipeline.hydration.options import Step
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import Agency, Place

SEARCH = "POST /contacts/search"
CONTACTS = 1_100
LEADS = 700


@pytest.fixture
def people() -> list[Contact]:
    return crowd(CONTACTS, "scan")


@pytest.fixture
def place(agency: Agency, people: list[Contact]) -> Place:
    """700 leads, each with the address of a contact, among 1,100 contacts: 3 pages to scan, 7 groups to look up."""
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:LEADS]])
    return place


def resolved(history: RememberedHistory) -> dict[str, Any]:
    """The values of the last materialization of `resolved_contacts`."""
    events = [r for kind, asset, _, r in history.events if (kind, asset) == ("done", Step.RESOLVED_CONTACTS)]
    return dict(events[-1].values)


def linked(agency: Agency) -> int:
    return sum(row["ghl_contact_id"] is not None and row["phone"] is not None for row in agency.rows())


async def test_the_contacts_are_pulled_once_when_that_takes_fewer_calls(agency: Agency, place: Place) -> None:
    history = RememberedHistory()
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == LEADS
    # The three pages, and the search by date that later nights will rely on, tried once.
    assert agency.requests(place) == agency.requests(place, SEARCH) == report.requests == 3 + 1
    assert linked(agency) == LEADS
    values = resolved(history)
    assert values["plan"] == "scan for 700 leads (700 to ask); calls: lookup 7, scan 3"
    assert (values["way"], values["contacts_pulled"]) == ("scan", CONTACTS)
    assert agency.count("pulled_contacts") == 0


async def test_few_leads_among_many_contacts_are_looked_up(agency: Agency, people: list[Contact]) -> None:
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:150]])
    history = RememberedHistory()
    await agency.backfill(place, history=history)
    assert resolved(history)["way"] == "lookup"
    # The survey's page of contacts, group of a hundred and search by date, then two groups.
    assert agency.requests(place, SEARCH) == 5
    assert linked(agency) == 150


async def test_a_lead_is_found_by_its_link_and_by_an_additional_address(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email="own@example.com", additional_emails=("second@example.com",), phone="+13055550188")
    linked_lead = agency.lead(place, ghl_contact_id=contact.id)
    other = place.ghl.add(email="other@example.com", additional_emails=("third@example.com",), phone="+13055550189")
    by_additional = agency.lead(place, email="Third@Example.com ")
    await agency.backfill(place)
    assert agency.row(linked_lead)["email"] == "own@example.com"
    assert agency.row(by_additional)["ghl_contact_id"] == other.id
    assert agency.requests(place) == 3 + 1


async def test_a_link_that_the_scan_did_not_bring_is_verified(agency: Agency, place: Place) -> None:
    """The search lags behind writes: a contact can exist that no page holds."""
    agency.sandbox.faults(index_lag_seconds=3600)
    fresh = place.ghl.add(phone="+13055550188", first_name="Ada")
    lead = agency.lead(place, ghl_contact_id=fresh.id)
    gone = agency.lead(place, ghl_contact_id="A" * 20)
    (report,) = (await agency.backfill(place)).reports
    assert agency.row(lead)["phone"] == "+13055550188"
    assert agency.row(gone)["phone"] is None
    assert report.outcomes["contact_deleted"] == 1
    assert agency.requests(place, "GET /contacts/{id}") == 2


async def test_an_address_in_other_letter_case_is_found_even_where_the_search_minds_it(agency: Agency) -> None:
    people = [
        Contact(id=f"{n:020d}", date_added=n, date_updated=n, email=f"Person.{n}@Example.COM", phone="+13055550188")
        for n in range(300)
    ]
    place = agency.place(contacts=people)
    agency.sandbox.faults(case_sensitive_email=True)
    agency.leads(place, [{"email": f"person.{n}@example.com"} for n in range(300)])
    await agency.backfill(place)
    assert linked(agency) == 300
    assert agency.requests(place) == 1 + 1


async def test_an_outage_in_the_middle_of_a_scan_costs_no_page_twice(agency: Agency, place: Place) -> None:
    history = RememberedHistory()

    def outage(_asset: str, report: Report) -> None:
        if report.values.get("contacts_pulled") == 500:
            agency.sandbox.faults(place.id, error_rate=1.0, error_status=503)

    history.before_progress = outage
    (failure,) = (await agency.backfill(place, history=history)).failures
    assert failure.error_class == "GhlServerError"
    assert not failure.permanent
    answered = agency.sandbox.stats(place.id)["by_route"][SEARCH]["200"]
    assert answered in {1, 2}  # the second page may have been asked for while the first was stored
    agency.sandbox.faults(place.id)
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == LEADS
    assert agency.sandbox.stats(place.id)["by_route"][SEARCH]["200"] == 3


async def test_leads_that_came_or_changed_during_the_scan_are_looked_up(
    agency: Agency, place: Place, people: list[Contact]
) -> None:
    """One is edited while the first page is stored; one comes before an interrupted run is taken up again."""
    history = RememberedHistory()
    edited = agency.rows()[0]["id"]
    meant, newcomer = people[-1], people[-2]

    def in_the_meantime(_asset: str, report: Report) -> None:
        if report.values.get("contacts_pulled") == 500:
            agency.edit(edited, email=meant.email)
            agency.sandbox.faults(place.id, error_rate=1.0, error_status=503)

    history.before_progress = in_the_meantime
    await agency.backfill(place, history=history)
    agency.sandbox.faults(place.id)
    history.before_progress = None
    late = agency.lead(place, email=newcomer.email)
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == LEADS + 1
    assert agency.row(edited)["ghl_contact_id"] == meant.id
    assert agency.row(late)["ghl_contact_id"] == newcomer.id


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"cursors_refused": True}, "the pull failed at contact 500"),
        ({"total_surplus": 7}, "the pull brought 1100 of 1107 contacts"),
    ],
)
async def test_a_scan_that_cannot_be_finished_is_given_up_for_lookups(
    agency: Agency, place: Place, fault: dict[str, Any], why: str
) -> None:
    agency.sandbox.faults(**fault)
    history = RememberedHistory()
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == LEADS
    assert resolved(history)["way"] == "lookup"
    assert f"given up: {why}" in resolved(history)["plan"]


async def test_pages_that_fail_now_and_then_are_asked_again(agency: Agency, place: Place) -> None:
    agency.sandbox.faults(error_rate=0.5, seed=4)
    (report,) = (await agency.backfill(place)).reports
    assert report.outcomes["linked_and_hydrated"] == LEADS


async def test_a_location_without_a_contact_is_known_after_one_call(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"nobody.{n}@example.com"} for n in range(300)])
    (report,) = (await agency.backfill(place)).reports
    assert report.outcomes["not_found"] == 300
    assert agency.requests(place) == 1


async def test_another_clients_leads_with_the_same_addresses_are_left_alone(
    agency: Agency, place: Place, people: list[Contact]
) -> None:
    other = agency.place("Other")
    theirs = agency.leads(other, [{"email": contact.email} for contact in people[:5]])
    await agency.backfill(place)
    assert all(agency.row(lead)["ghl_contact_id"] is None for lead in theirs)


async def test_groups_that_answer_for_their_first_address_only_are_noticed_and_not_used(
    agency: Agency, people: list[Contact]
) -> None:
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:40]])
    agency.sandbox.faults(or_answers_first_leaf_only=True)
    history = RememberedHistory()
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == 40
    assert resolved(history)["groups"] == "one by one: GHL answered groups wrongly"
    (learned,) = agency.table("location_learning")
    assert learned["groups_are_wrong"]
