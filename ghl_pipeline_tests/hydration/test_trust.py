"""What a location's GHL says is tried, or read with care, before a lead counts as not found because of it."""

import time
from typing import Any

import pytest

from ghl_pipeline.hydration.options import Step
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place, strangers

SEARCH = "POST /contacts/search"
ADA, PHONE = "ada@example.com", "+13055550188"


async def run(agency: Agency, place: Place, *, night: int = 1) -> tuple[dict[str, int], dict[str, Any]]:
    """One run; its outcomes and the values of `resolved_contacts`."""
    history = RememberedHistory(attempt=f"night {night}")
    result = await agency.backfill(place, history=history)
    assert result.failures == ()
    events = [r for kind, asset, _, r in history.events if (kind, asset) == ("done", Step.RESOLVED_CONTACTS)]
    return dict(result.reports[0].outcomes), dict(events[-1].values)


# --- the total of a search


async def test_contacts_deleted_during_a_scan_do_not_end_it_too_early(agency: Agency) -> None:
    """They lower the total: at 1,500 of 1,503 received it says 1,500, and three are still to come."""
    people = sorted(crowd(1_503, "scan"), key=lambda contact: (contact.date_added, contact.id))
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[3:]])
    history = RememberedHistory()
    deleted: list[bool] = []

    def delete(_asset: str, report: Report) -> None:
        if report.values.get("contacts_pulled") == 500 and not deleted:
            deleted.extend(place.ghl.remove(contact.id) for contact in people[:3])

    history.before_progress = delete
    (report,) = (await agency.backfill(place, history=history)).reports
    assert deleted == [True] * 3
    assert (report.outcomes["linked_and_hydrated"], report.outcomes["not_found"]) == (1_500, 0)


async def test_a_total_that_stops_counting_does_not_end_a_scan(agency: Agency) -> None:
    people = crowd(1_503, "scan")
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people])
    agency.sandbox.faults(total_at_most=1_000)
    outcomes, values = await run(agency, place)
    assert (values["way"], values["contacts_pulled"]) == ("scan", 1_503)
    assert outcomes["linked_and_hydrated"] == 1_503


# --- the search by date


async def test_a_range_that_silently_finds_nobody_is_not_used_for_a_delta(agency: Agency) -> None:
    place = agency.place(contacts=strangers(1_100))
    agency.sandbox.faults(ranges_find_nothing=True)
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(300)])
    await run(agency, place)
    (learned,) = agency.table("location_learning")
    assert learned["searches_by_date"] is False
    place.ghl.add(email="nobody.7@example.net", phone=PHONE)
    outcomes, values = await run(agency, place, night=2)
    assert values["way"] == "lookup"
    assert outcomes["linked_and_hydrated"] == agency.linked() == 1


async def test_a_clock_that_is_ahead_of_ghls_hides_no_change(agency: Agency) -> None:
    """By a quarter of an hour, which is more than the overlap: what comes after midnight, GHL dates 23:45."""
    shift = -900.0
    place = agency.place(contacts=strangers(700))
    agency.sandbox.faults(clock_shift_seconds=shift)
    lead = agency.lead(place, email=ADA)
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(300)])
    await run(agency, place)
    ada = place.ghl.add(email=ADA, phone=PHONE)
    assert abs(ada.date_updated / 1000 - time.time() - shift) < 60
    _, values = await run(agency, place, night=2)
    assert values["way"] == "delta"
    assert agency.row(lead)["ghl_contact_id"] == ada.id


# --- addresses that the database and Python read differently


@pytest.mark.parametrize(
    "email",
    ["\tada@example.com", "ada@example.com\u00a0", "ada@example.com\r\n", "JÖRG@example.com", " Ada@Example.com "],
    ids=["tab", "no-break space", "CRLF", "umlaut", "spaces and capitals"],
)
async def test_an_oddly_written_address_is_recognised_in_a_delta(agency: Agency, email: str) -> None:
    place = agency.place(contacts=strangers(700))
    lead = agency.lead(place, email=email)
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(300)])
    await run(agency, place)
    contact = place.ghl.add(email=email.strip().lower(), phone=PHONE)
    _, values = await run(agency, place, night=2)
    assert values["way"] == "delta"
    assert agency.row(lead)["ghl_contact_id"] == contact.id


async def test_a_pull_for_one_lead_does_not_answer_for_another_with_the_same_oddly_written_address(
    agency: Agency,
) -> None:
    place = agency.place(contacts=strangers(700))
    elsewhere = place.ghl.add(email="elsewhere@example.com")
    linked = agency.lead(place, email=ADA, ghl_contact_id=elsewhere.id)
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(300)])
    ada = place.ghl.add(email=ADA, phone=PHONE, date_updated=int((time.time() - 3600) * 1000))
    await run(agency, place)
    place.ghl.change(elsewhere.id, company_name="Engines")
    odd = agency.lead(place, email=f"\t{ADA}\r\n")
    _, values = await run(agency, place, night=2)
    assert values["way"] == "delta"
    assert agency.row(linked)["company_name"] == "Engines"
    assert agency.row(odd)["ghl_contact_id"] == ada.id


# --- one question is not answered while others are


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("leads", [150, 700], ids=["before a survey", "before a scan"])
async def test_where_contacts_cannot_be_listed_leads_are_looked_up(agency: Agency, status: int, leads: int) -> None:
    people = crowd(1_100, "scan")
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:leads]])
    agency.sandbox.faults(unfiltered_status=status)
    outcomes, values = await run(agency, place)
    assert (values["way"], outcomes["linked_and_hydrated"]) == ("lookup", leads)


async def test_where_groups_of_every_size_fail_leads_are_asked_for_one_by_one(agency: Agency) -> None:
    people = crowd(1_100, "groups")
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:12]])
    absent = agency.lead(place, **{**COMPLETE, "email": "nobody@example.net"})
    agency.sandbox.faults(max_or_leaves=1, or_refusal_status=500)
    outcomes, values = await run(agency, place)
    assert (outcomes["linked_and_hydrated"], outcomes["not_found"]) == (12, 1)
    assert values["groups"] == "up to 1 at a time"
    assert agency.row(absent)["ghl_contact_id"] is None
