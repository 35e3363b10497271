"""An answer is for the question that was asked: once the lead, or who stands in its way, is another, it is asked anew.

In each test the contact that the lead should get did not change for an hour, so that no delta shows it: a lead that
wrongly counts as looked up would wait for it for a month.
"""

import time
from typing import Any

import pytest
from sqlalchemy import text

from ghl_pipeline.hydration.options import Step
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.sync import sync_lead
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import Agency, Place, before_statement, strangers

ADA, PHONE = "ada@example.com", "+13055550188"
NOBODIES = 300
LOOK_UP = frozenset({Step.ELIGIBLE_LEADS, Step.RESOLVED_CONTACTS})
WRITE = frozenset({Step.HYDRATED_LEADS})


@pytest.fixture
def place(agency: Agency) -> Place:
    """300 leads of nobody beside the one that a test is about: enough that later nights are deltas."""
    place = agency.place(contacts=strangers(700))
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(NOBODIES)])
    return place


def known_for_an_hour(place: Place, **fields: object) -> Contact:
    """A contact that did not change in the last hour."""
    return place.ghl.add(**{"phone": PHONE, "date_updated": int((time.time() - 3600) * 1000), **fields})


async def night(agency: Agency, *places: Place, number: int = 1, **options: Any) -> dict[str, int]:
    """One run for all leads; what became of those of the last place."""
    history = RememberedHistory(attempt=f"night {number}")
    result = await agency.backfill(*places, history=history, **options)
    assert result.failures == ()
    events = [r for kind, asset, _, r in history.events if (kind, asset) == ("done", Step.RESOLVED_CONTACTS)]
    assert (events[-1].values["way"] == "delta") is (number > 1)
    return dict(result.reports[-1].outcomes)


async def test_an_address_typed_between_lookup_and_write_is_asked_for_in_the_next_night(
    agency: Agency, place: Place
) -> None:
    ada = known_for_an_hour(place, email=ADA)
    lead = agency.lead(place, first_name="Ada")
    history = RememberedHistory()
    await agency.backfill(place, history=history, steps=LOOK_UP)
    agency.edit(lead, email=ADA)
    (report,) = (await agency.backfill(place, history=history, steps=WRITE)).reports
    assert report.outcomes["not_found"] == NOBODIES
    await night(agency, place, number=2)
    assert agency.row(lead)["ghl_contact_id"] == ada.id


async def test_an_address_typed_while_a_single_lead_is_synced_is_asked_for_in_the_next_night(
    agency: Agency, place: Place
) -> None:
    ada = known_for_an_hour(place, email=ADA)
    lead = agency.lead(place, first_name="Ada")
    await night(agency, place)

    def is_write_back(statement: str, _values: object) -> bool:
        return statement.startswith("SELECT id, ghl_contact_id") and "FOR NO KEY UPDATE" in statement

    with before_statement(agency.engine, is_write_back, lambda: agency.edit(lead, email=ADA)):
        synced = await sync_lead(agency.hydration(), lead)
    assert (synced.outcome, synced.lead_updated) == (Outcome.UNCHANGED, False)
    await night(agency, place, number=2)
    assert agency.row(lead)["ghl_contact_id"] == ada.id


async def test_a_lead_edited_during_a_run_and_changed_back_is_asked_for(agency: Agency, place: Place) -> None:
    """Its record from before would be true again, but does not know of what changed at GHL since."""
    lead = agency.lead(place, email=ADA)
    await night(agency, place)
    agency.sql("UPDATE location_learning SET changes_seen_until = now() - interval '2 hours'")
    ada = known_for_an_hour(place, email=ADA)
    history = RememberedHistory(attempt="night 2")
    await agency.backfill(place, history=history, steps=LOOK_UP)
    agency.edit(lead, email="typo@example.com")
    await agency.backfill(place, history=history, steps=WRITE)
    assert agency.row(lead)["ghl_contact_id"] is None
    agency.edit(lead, email=ADA)
    await night(agency, place, number=3)
    assert agency.row(lead)["ghl_contact_id"] == ada.id


async def test_a_contact_is_linked_once_the_lead_that_held_it_is_gone(agency: Agency, place: Place) -> None:
    ada = known_for_an_hour(place, email=ADA)
    holder = agency.lead(place, ghl_contact_id=ada.id, email="other@example.com")
    lead = agency.lead(place, email=ADA)
    assert (await night(agency, place))["ambiguous"] == 1
    agency.sql("DELETE FROM leads WHERE id = :id", id=holder)
    await night(agency, place, number=2)
    assert agency.row(lead)["ghl_contact_id"] == ada.id


async def test_an_address_is_filled_once_the_lead_that_had_it_is_gone(agency: Agency, place: Place) -> None:
    ada = known_for_an_hour(place, email=ADA)
    elsewhere = place.ghl.add(email="elsewhere@example.com")
    holder = agency.lead(place, email=ADA, ghl_contact_id=elsewhere.id)
    lead = agency.lead(place, ghl_contact_id=ada.id)
    await night(agency, place)
    assert (agency.row(lead)["phone"], agency.row(lead)["email"]) == (PHONE, None)
    agency.sql("DELETE FROM leads WHERE id = :id", id=holder)
    await night(agency, place, number=2)
    assert agency.row(lead)["email"] == ADA


async def test_a_lead_that_moved_to_another_client_is_asked_for_there(agency: Agency, place: Place) -> None:
    other = agency.place("Other", contacts=strangers(300))
    ada = known_for_an_hour(place, email=ADA)
    lead = agency.lead(other, email=ADA)
    await night(agency, place, other)
    agency.edit(lead, client_id=place.client_id)
    assert (await night(agency, place, number=2))["linked_and_hydrated"] == 1
    assert agency.row(lead)["ghl_contact_id"] == ada.id


async def test_an_edit_in_a_transaction_older_than_the_pull_is_seen(agency: Agency) -> None:
    """Its row says that it was edited when the transaction began: before the list was made."""
    people = crowd(1_100, "scan")
    oldest_first = sorted(people, key=lambda contact: (contact.date_added, contact.id))
    meant = oldest_first[0]  # on the first page, which is pulled before the edit is to be seen
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in oldest_first[1:700]])
    lead = agency.lead(place, email="typo@example.net")
    history = RememberedHistory()
    with agency.engine.connect() as dashboard:
        dashboard.execute(text("UPDATE leads SET email = :email WHERE id = :id"), {"email": meant.email, "id": lead})

        def commit(_asset: str, report: Report) -> None:
            if report.values.get("contacts_pulled") == 500:
                dashboard.commit()

        history.before_progress = commit
        (report,) = (await agency.backfill(place, history=history)).reports
        assert not dashboard.in_transaction(), "the pull told nothing of its first page"
    assert report.outcomes["linked_and_hydrated"] == 700
    assert agency.row(lead)["ghl_contact_id"] == meant.id
