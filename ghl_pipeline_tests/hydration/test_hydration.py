"""Whole locations, from their leads to their repaired leads: what a run leaves behind, however it went."""

import asyncio
from dataclasses import replace

import pytest
from pydantic import SecretStr

from ghl_pipeline.database.leases import LocationLeases
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration import hydration as hydration_module
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.hydration import RunResult
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.plan import Way
from ghl_pipeline.hydration.work_list import Scope
from ghl_pipeline.locations.clients import deactivate_client, set_token
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import FIELDS, SampleLocation, sample_agency
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place, strangers

DUPLICATE = "GET /contacts/search/duplicate"
SEARCH = "POST /contacts/search"
STEPS = [step.value for step in Step]


def assert_as_expected(agency: Agency, place: Place, sample: SampleLocation) -> None:
    """Every lead ended as the sample says, filled from its contact, and otherwise as it was."""
    contacts = {contact.id: contact for contact in sample.contacts}
    outcomes = {row["lead_id"]: row["outcome"] for row in agency.table("lead_lookups")}
    rows = {row["emailbison_lead_id"]: row for row in agency.rows() if row["client_id"] == place.client_id}
    assert len(rows) == len(sample.leads)
    for lead in sample.leads:
        row = rows[lead.emailbison_lead_id]
        assert outcomes.get(row["id"]) == lead.expected, lead.case
        for name in FIELDS:
            if name not in lead.fills:
                assert row[name] == getattr(lead, name), (lead.case, name)
                continue
            value = getattr(contacts[row["ghl_contact_id"]], name)
            assert row[name] == (storable_phone(value, "US") if name == "phone" else value.strip()), (lead.case, name)


def failure_texts(result: RunResult) -> dict[str, str]:
    return {failure.location_id: f"{failure.error_class}: {failure.text}" for failure in result.failures}


def way_told(history: RememberedHistory, place: Place) -> object:
    """How the place's contacts were found, as its history says."""
    resolved = history.last_done(Step.RESOLVED_CONTACTS, place.id)
    return resolved and resolved["way"]


# --- the whole job


@pytest.mark.parametrize("way", [Way.LOOKUP, Way.SCAN])
async def test_the_sample_agency_ends_as_each_lead_expects(agency: Agency, way: Way) -> None:
    samples = sample_agency(locations=3, leads=300, seed=11).locations
    places = agency.sample(*samples)
    if way is Way.LOOKUP:
        agency.prefer_lookups(*places)
    history = RememberedHistory()
    result = await agency.backfill(*places, history=history, page_size=120)
    assert result.failures == ()
    for place, sample, report in zip(places, samples, result.reports, strict=True):
        assert_as_expected(agency, place, sample)
        assert report.location == place.id
        assert {name: count for name, count in report.outcomes.items() if count} == sample.outcomes
        assert report.eligible == sum(report.outcomes.values()) == sample.eligible
        assert {name: report.fields[name] for name in FIELDS} == {name: sample.fills.get(name, 0) for name in FIELDS}
        assert report.requests == agency.requests(place)
        assert history.done_steps(place.id) == STEPS
        assert way_told(history, place) == way
        stats = agency.sandbox.stats(place.id)
        assert (stats["creates"], stats["updates"], stats["deletes"]) == (0, 0, 0)
        assert stats["lookups"]["email"]["repeated"] == stats["lookups"]["id"]["repeated"] == 0
    assert agency.count("resolved_contacts") == agency.count("pulled_contacts") == 0


@pytest.mark.parametrize(
    ("others", "way"),
    [(0, Way.SCAN), (8000, Way.LOOKUP)],
    ids=["hardly more contacts than leads", "many more contacts than leads"],
)
async def test_a_thousand_leads_cost_at_most_three_requests_for_a_hundred(
    agency: Agency, others: int, way: Way
) -> None:
    """On a location's first run, with everything that is found out about it."""
    (sample,) = sample_agency(locations=1, leads=1000, seed=5).locations
    crowded = replace(sample, contacts=(*sample.contacts, *strangers(others)))
    (place,) = agency.sample(crowded)
    history = RememberedHistory()
    result = await agency.backfill(place, history=history)
    assert result.failures == ()
    assert_as_expected(agency, place, sample)
    assert agency.requests(place) <= 0.03 * sample.eligible
    assert way_told(history, place) == way


@pytest.mark.parametrize("fresh", [False, True], ids=["what changed since", "everything anew"])
async def test_a_second_run_changes_nothing(agency: Agency, fresh: bool) -> None:
    (sample,) = sample_agency(locations=1, leads=100, seed=3).locations
    (place,) = agency.sample(sample)
    await agency.backfill(place)
    before = agency.table("leads")
    history = RememberedHistory()
    result = await agency.backfill(place, history=history, fresh=fresh)
    assert way_told(history, place) == (Way.LOOKUP if fresh else Way.DELTA)
    assert result.failures == ()
    assert result.reports[0].repaired == 0
    assert agency.table("leads") == before


async def test_a_dry_run_writes_nothing_and_tells_what_a_run_would_do(agency: Agency) -> None:
    (sample,) = sample_agency(locations=1, leads=120, seed=4).locations
    (place,) = agency.sample(sample)
    tables = (
        "leads", "lead_lookups", "work_lists", "work_items", "resolved_contacts", "pulled_contacts",
        "location_learning",
    )  # fmt: skip
    before = {name: agency.table(name) for name in tables}
    history = RememberedHistory()
    preview = (await agency.backfill(place, history=history, dry_run=True, page_size=50)).reports[0]
    assert {name: agency.table(name) for name in tables} == before
    assert history.done_steps(place.id) == []
    real = (await agency.backfill(place, page_size=50)).reports[0]
    assert preview.dry_run
    assert (preview.outcomes, preview.fields) == (real.outcomes, real.fields)


async def test_names_with_quotes_and_nul_bytes_reach_their_lead(agency: Agency) -> None:
    place = agency.place()
    place.ghl.add(email="ada@example.com", first_name='A\x00da "A"', last_name="O'Byron; --", company_name="\x00")
    lead_id = agency.lead(place, email="ada@example.com")
    assert (await agency.backfill(place)).failures == ()
    row = agency.row(lead_id)
    assert (row["first_name"], row["last_name"], row["company_name"]) == ('Ada "A"', "O'Byron; --", None)


async def test_two_clients_never_see_each_others_people(agency: Agency) -> None:
    places = [agency.place("First"), agency.place("Second")]
    for place in places:
        place.ghl.add(id="sharedContact0000001", email="ada@example.com", first_name=f"Ada of {place.id}")
    ids = [agency.lead(place, email="ada@example.com") for place in places]
    await agency.backfill(*places)
    assert [agency.row(lead_id)["first_name"] for lead_id in ids] == [f"Ada of {place.id}" for place in places]


async def test_a_location_without_leads_makes_no_call(agency: Agency) -> None:
    empty, complete = agency.place("Empty"), agency.place("Complete")
    agency.lead(complete, **COMPLETE, ghl_contact_id="contact0000000000001")
    history = RememberedHistory()
    result = await agency.backfill(empty, complete, history=history)
    assert [(report.eligible, report.requests) for report in result.reports] == [(0, 0), (0, 0)]
    assert agency.requests(empty) == agency.requests(complete) == 0
    assert history.done_steps(empty.id) == STEPS


async def test_a_location_without_contacts_finds_nobody(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(30)])
    (report,) = (await agency.backfill(place)).reports
    assert report.outcomes["not_found"] == report.eligible == 30


# --- what can be asked for


async def test_the_steps_can_be_run_one_by_one(agency: Agency) -> None:
    place = agency.place()
    place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, email="ada@example.com")
    history = RememberedHistory()
    for step in Step:
        assert agency.row(lead_id)["first_name"] is None
        await agency.backfill(place, history=history, steps=frozenset({step}))
    assert agency.row(lead_id)["first_name"] == "Ada"
    assert history.done_steps(place.id) == STEPS


async def test_a_step_without_a_list_says_which_step_makes_one(agency: Agency) -> None:
    place = agency.place()
    agency.lead(place, email="ada@example.com")
    result = await agency.backfill(place, steps=frozenset({Step.RESOLVED_CONTACTS, Step.HYDRATED_LEADS}))
    (failure,) = result.failures
    assert "Materialize eligible_leads" in failure.text
    assert agency.requests(place) == 0


async def test_only_so_many_leads_then_the_others(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(7)])
    for done in (3, 6, 7):
        await agency.backfill(place, history=RememberedHistory(), max_leads=3)
        assert agency.count("lead_lookups") == done


async def test_a_run_for_new_leads_asks_only_for_them(agency: Agency) -> None:
    place = agency.place()
    agency.lead(place, email="old@example.com")
    await agency.backfill(place)
    agency.lead(place, email="new@example.com")
    (report,) = (await agency.backfill(place, scope=Scope.NEVER_LOOKED_UP)).reports
    assert report.eligible == 1
    assert agency.sandbox.stats(place.id)["lookups"]["email"]["repeated"] == 0


async def test_a_location_named_twice_is_worked_on_once(agency: Agency) -> None:
    place = agency.place()
    result = await agency.backfill(place, place)
    assert [report.location for report in result.reports] == [place.id]
    assert result.failures == ()


async def test_the_settings_put_the_same_capability_together(agency: Agency) -> None:
    place = agency.place()
    place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, email="ada@example.com")
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    settings = Settings.model_validate({"GHL_API_URL": agency.sandbox.url, "GHL_PIPELINE_TOKEN_KEYS": key})
    with agency.engine.begin() as connection:
        set_token(connection, TokenCipher.from_settings(settings), place.id, SecretStr(place.ghl.token))
    hydration = build_hydration(settings, agency.engine)
    result = await hydration.run([place.id], RememberedHistory(), Options())
    assert result.failures == ()
    assert agency.row(lead_id)["first_name"] == "Ada"
    assert place.ghl.token not in repr(hydration)


@pytest.mark.parametrize("surveyed", [True, False], ids=["by a survey", "by lookups that are refused"])
async def test_what_a_location_takes_is_learned_once(agency: Agency, surveyed: bool) -> None:
    place = agency.place()
    agency.sandbox.faults(place.id, max_or_leaves=12)
    if surveyed:
        # With addresses that it is known to have, the location can be surveyed before leads are looked up.
        for n in range(2):
            place.ghl.add(email=f"known{n}@example.com")
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(60)])
    await agency.backfill(place)
    refused = agency.sandbox.stats(place.id)["by_route"][SEARCH]["400"]
    await agency.backfill(place, fresh=True)
    assert agency.sandbox.stats(place.id)["by_route"][SEARCH]["400"] == refused
    (learned,) = agency.table("location_learning")
    assert learned["group_size"] <= learned["group_ceiling"] <= 12
    assert (learned["surveyed_at"] is not None) is surveyed


# --- a location that fails


async def test_one_failing_location_does_not_stop_the_rest_and_says_what_to_do(agency: Agency) -> None:
    good, other = agency.place("Good"), agency.place("Other")
    revoked, scope = agency.place("Revoked"), agency.place("Scope")
    swapped = agency.place("Swapped", token=other.ghl.token)
    without, inactive = agency.place("Without", token=None), agency.place("Inactive")
    agency.sandbox.faults(revoked.id, token_revoked=True)
    agency.sandbox.faults(scope.id, missing_scopes=("contacts.readonly",))
    with agency.engine.begin() as connection:
        deactivate_client(connection, inactive.id)
    places = [revoked, scope, swapped, without, inactive, good, other]
    agency.leads(good, [{"email": "ada@example.com"}])
    for place in places:
        agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(20)])
    history = RememberedHistory()
    unknown = "unknownLocation00001"
    result = await agency.hydration().run([*(p.id for p in places), unknown], history, Options())
    assert {report.location for report in result.reports} == {good.id, other.id}
    assert all(failure.permanent for failure in result.failures)
    texts = failure_texts(result)
    expected = {
        revoked.id: ("TokenRejected", "clients set-token"),
        scope.id: ("ScopeMissing", "contacts.readonly"),
        swapped.id: ("LocationAccessDenied", "same sub-account"),
        without.id: ("TokenMissing", "ghl-pipeline clients"),
        inactive.id: ("ClientInactive", "ghl-pipeline clients"),
        unknown: ("UnknownClient", "ghl-pipeline clients add"),
    }
    assert texts.keys() == expected.keys()
    for location_id, (name, advice) in expected.items():
        assert texts[location_id].startswith(name)
        assert location_id in texts[location_id]
        assert advice in texts[location_id]
    states = {row["location_id"]: (row["state"], row["error_class"]) for row in agency.table("location_attempts")}
    assert states[good.id] == ("succeeded", None)
    assert {location_id: states[location_id] for location_id in expected} == {
        location_id: ("failed", name) for location_id, (name, _) in expected.items()
    }
    assert agency.count("location_leases") == 0


async def test_a_bug_at_one_location_does_not_stop_the_rest_and_shows_nobody(agency: Agency) -> None:
    broken, good = agency.place("Broken"), agency.place("Good")
    for place in (broken, good):
        agency.lead(place, email="ada@example.com")
    history = RememberedHistory()

    def bug(_asset: str, report: Report) -> None:
        if report.values["work_list"] == 1:
            raise ValueError("cannot cope with ada@example.com")

    history.before_progress = bug
    result = await agency.backfill(broken, good, history=history, concurrency=1)
    assert [report.location for report in result.reports] == [good.id]
    (failure,) = result.failures
    assert (failure.location_id, failure.error_class, failure.permanent) == (broken.id, "ValueError", False)
    assert "ada@example.com" not in str(agency.table("location_attempts"))


async def test_a_location_in_use_is_left_alone_and_its_user_named(agency: Agency) -> None:
    busy, free = agency.place("Busy"), agency.place("Free")
    with LocationLeases(agency.engine) as leases:
        leases.acquire(busy.id, "backfill on worker-1")
        result = await agency.backfill(busy, free)
    assert [report.location for report in result.reports] == [free.id]
    (failure,) = result.failures
    assert failure.error_class == "LocationBusy"
    assert "backfill on worker-1" in failure.text
    assert not failure.permanent


async def test_a_location_in_use_can_be_waited_for(agency: Agency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydration_module, "BUSY_POLL_SECONDS", 0.02)
    place = agency.place()
    with LocationLeases(agency.engine) as leases:
        leases.acquire(place.id, "somebody")
        run = asyncio.create_task(agency.backfill(place, busy_wait_seconds=10))
        await asyncio.sleep(0.1)
        assert not run.done()
        leases.release(place.id)
        assert (await run).failures == ()


# --- lookups that fail


@pytest.fixture
def with_one_long_address(agency: Agency) -> tuple[Place, int]:
    """A location of which one lead is looked up by a call of its own, which a test can let fail."""
    place = agency.place()
    long_address = f"{'x' * 80}@example.com"
    for address in (long_address, *(f"p{n}@example.com" for n in range(10))):
        place.ghl.add(email=address, first_name="Found")
    (lead_id, *_) = agency.leads(
        place, [{"email": address} for address in (long_address, *(f"p{n}@example.com" for n in range(10)))]
    )
    return place, lead_id


async def test_a_failed_lookup_is_tried_again_at_the_end(
    agency: Agency, with_one_long_address: tuple[Place, int]
) -> None:
    place, _ = with_one_long_address
    agency.sandbox.faults(place.id, routes=(DUPLICATE,), error_rate=1.0, times=2)
    (report,) = (await agency.backfill(place)).reports
    assert report.outcomes["linked_and_hydrated"] == 11
    assert report.requests == agency.requests(place)


async def test_what_failed_is_on_record_the_others_are_written_and_the_next_run_asks_only_for_it(
    agency: Agency, with_one_long_address: tuple[Place, int]
) -> None:
    place, lead_id = with_one_long_address
    history = RememberedHistory()
    agency.sandbox.faults(place.id, routes=(DUPLICATE,), error_rate=1.0)
    result = await agency.backfill(place, history=history)
    (failure,) = result.failures
    assert failure.error_class == "LookupsFailed"
    assert "1 of 11 leads" in failure.text
    assert not failure.permanent
    assert history.done_steps(place.id) == ["eligible_leads"]
    assert [row["first_name"] for row in agency.rows()] == [None, *["Found"] * 10]
    assert lead_id not in {row["lead_id"] for row in agency.table("lead_lookups")}
    agency.sandbox.faults()
    searches, singles = agency.requests(place, SEARCH), agency.requests(place, DUPLICATE)
    (report,) = (await agency.backfill(place, history=history)).reports
    assert (agency.requests(place, SEARCH), agency.requests(place, DUPLICATE)) == (searches, singles + 1)
    assert report.outcomes["linked_and_hydrated"] == report.eligible == 11
    assert report.requests == agency.requests(place)
    assert agency.row(lead_id)["first_name"] == "Found"
    assert history.done_steps(place.id)[-2:] == ["resolved_contacts", "hydrated_leads"]


async def test_an_outage_in_the_middle_keeps_what_was_found(agency: Agency) -> None:
    (sample,) = sample_agency(locations=1, leads=150, seed=6).locations
    (place,) = agency.sample(sample)
    agency.prefer_lookups(place)
    history = RememberedHistory()

    def outage(_asset: str, report: Report) -> None:
        if report.values.get("position") == 80:
            agency.sandbox.faults(place.id, error_rate=1.0, error_status=503)

    history.before_progress = outage
    (failure,) = (await agency.backfill(place, history=history, page_size=40)).failures
    assert failure.error_class == "GhlServerError"
    assert not failure.permanent
    agency.sandbox.faults(place.id)
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history, page_size=40)).reports
    assert_as_expected(agency, place, sample)
    assert report.requests == agency.requests(place)
    stats = agency.sandbox.stats(place.id)
    assert stats["lookups"]["email"]["repeated"] == stats["lookups"]["id"]["repeated"] == 0
