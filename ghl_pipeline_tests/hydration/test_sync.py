"""One lead at once, and all leads at once: the same rules, and whether anything was updated."""

import pytest

from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.errors import GhlServerError, TokenRejected
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.outcomes import Outcome
from ghl_pipeline.hydration.sync import LeadSync, sync_all, sync_lead
from ghl_pipeline.locations.clients import ClientInactive, TokenMissing, deactivate_client
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


async def test_one_lead_is_updated_from_its_contact(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email="ada@example.com", phone="(305) 555-0123", first_name="Ada")
    lead_id, other = agency.lead(place, email="ada@example.com"), agency.lead(place, email="bob@example.com")
    result = await sync_lead(agency.hydration(), lead_id)
    assert result == LeadSync(
        lead_id, place.id, Outcome.LINKED_AND_HYDRATED, True, ("contact_link", "phone", "first_name"), 1
    )  # fmt: skip
    row = agency.row(lead_id)
    assert (row["ghl_contact_id"], row["phone"], row["enrichment_status"]) == (contact.id, "+13055550123", "enriched")
    assert [row["lead_id"] for row in agency.table("lead_lookups")] == [lead_id]
    assert agency.row(other)["ghl_contact_id"] is None
    assert agency.sandbox.stats(place.id)["creates"] == 0


async def test_a_lead_that_has_everything_is_unchanged(agency: Agency, place: Place) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Someone else")
    lead_id = agency.lead(place, **COMPLETE, ghl_contact_id=contact.id)
    before = agency.row(lead_id)
    result = await sync_lead(agency.hydration(), lead_id)
    assert (result.outcome, result.lead_updated, result.fields) == (Outcome.UNCHANGED, False, ())
    assert agency.row(lead_id) == before


async def test_a_lead_without_a_contact_is_not_found_and_none_is_made(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="nobody@example.com")
    result = await sync_lead(agency.hydration(), lead_id)
    assert (result.outcome, result.lead_updated, result.requests) == (Outcome.NOT_FOUND, False, 2)
    assert agency.sandbox.stats(place.id)["creates"] == 0


async def test_a_contact_that_the_search_does_not_know_yet_is_found_for_a_person_who_waits(
    agency: Agency, place: Place
) -> None:
    agency.sandbox.faults(index_lag_seconds=60)
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, email="ada@example.com")
    result = await sync_lead(agency.hydration(), lead_id)
    assert (result.outcome, result.requests) == (Outcome.LINKED_AND_HYDRATED, 2)
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id


async def test_an_unknown_lead_is_named(agency: Agency) -> None:
    with pytest.raises(UnknownClient, match="lead 4711"):
        await sync_lead(agency.hydration(), 4711)


async def test_a_lead_of_a_client_that_cannot_be_used_is_refused(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    tokenless = agency.lead(agency.place("Tokenless", token=None), email="ada@example.com")
    with agency.engine.begin() as connection:
        deactivate_client(connection, place.id)
    with pytest.raises(ClientInactive):
        await sync_lead(agency.hydration(), lead_id)
    with pytest.raises(TokenMissing):
        await sync_lead(agency.hydration(), tokenless)


async def test_a_failing_lookup_is_an_error_and_writes_nothing(agency: Agency, place: Place) -> None:
    lead_id = agency.lead(place, email="ada@example.com")
    before = agency.row(lead_id)
    agency.sandbox.faults(error_rate=1.0)
    with pytest.raises(GhlServerError):
        await sync_lead(agency.hydration(), lead_id)
    agency.sandbox.faults(token_revoked=True)
    with pytest.raises(TokenRejected):
        await sync_lead(agency.hydration(), lead_id)
    assert agency.row(lead_id) == before
    assert agency.count("lead_lookups") == 0


async def test_sync_all_leaves_the_rows_of_a_backfill_without_list_or_history(agency: Agency) -> None:
    samples = sample_agency(locations=2, leads=150, seed=21).locations
    places = agency.sample(*samples)
    ids = [place.id for place in places]
    originals = agency.rows()
    synced = await sync_all(agency.hydration(), ids, Options(page_size=60))
    after_sync = agency.rows()
    assert (agency.count("work_lists"), agency.count("work_items"), synced.failures) == (0, 0, ())
    for row in originals:
        fields = {name: value for name, value in row.items() if name != "id"}
        agency.edit(row["id"], **fields, enriched_at=None)
    backfilled = await agency.backfill(*places, page_size=60)
    assert agency.rows() == after_sync
    assert [report.outcomes for report in synced.reports] == [report.outcomes for report in backfilled.reports]
    assert [report.fields for report in synced.reports] == [report.fields for report in backfilled.reports]
    assert sum(report.repaired for report in synced.reports) > 0


async def test_sync_all_stops_at_the_number_of_leads_asked_for(agency: Agency, place: Place) -> None:
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(7)])
    (report,) = (await sync_all(agency.hydration(), [place.id], Options(page_size=2, max_leads=5))).reports
    assert report.eligible == 5


async def test_sync_all_reports_lookups_that_failed_and_writes_the_others(agency: Agency, place: Place) -> None:
    place.ghl.add(email="ada@example.com", first_name="Ada")
    found = agency.lead(place, email="ada@example.com")
    long_address = agency.lead(place, email=f"{'x' * 80}@example.com")
    agency.sandbox.faults(routes=("GET /contacts/search/duplicate",), error_rate=1.0)
    result = await sync_all(agency.hydration(), [place.id], Options())
    (failure,) = result.failures
    assert (failure.error_class, "1 of 2 leads" in failure.text) == ("LookupsFailed", True)
    assert agency.row(found)["first_name"] == "Ada"
    assert long_address not in {row["lead_id"] for row in agency.table("lead_lookups")}
