"""Whole locations, from their leads to their repaired leads: what a run leaves behind, however it went."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from ghl_pipeline.database.leases import LocationLeases
from ghl_pipeline.ghl.phones import storable_phone
from ghl_pipeline.hydration import hydration as hydration_module
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.hydration.hydration import RunResult
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.work_list import Scope
from ghl_pipeline.locations.clients import deactivate_client, set_token
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import FIELDS, SampleLocation, sample_agency
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import COMPLETE, Agency, Place

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


def comparable(agency: Agency, place: Place) -> list[dict[str, Any]]:
    """The place's leads without what differs between two clients, with how their lookup ended."""
    outcomes = {row["lead_id"]: row["outcome"] for row in agency.table("lead_lookups")}
    return [
        {name: value for name, value in row.items() if name not in {"id", "client_id"}}
        | {"outcome": outcomes.get(row["id"])}
        for row in agency.rows()
        if row["client_id"] == place.client_id
    ]


def failure_texts(result: RunResult) -> dict[str, str]:
    return {failure.location_id: f"{failure.error_class}: {failure.text}" for failure in result.failures}


# --- the whole job


async def test_the_sample_agency_ends_as_each_lead_expects(agency: Agency) -> None:
    samples = sample_agency(locations=3, leads=300, seed=11).locations
    places = agency.sample(*samples)
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
        stats = agency.sandbox.stats(place.id)
        assert (stats["creates"], stats["updates"], stats["deletes"]) == (0, 0, 0)
        assert stats["lookups"]["email"]["repeated"] == stats["lookups"]["id"]["repeated"] == 0
    assert agency.count("resolved_contacts") == 0


async def test_a_thousand_leads_cost_at_most_three_requests_for_a_hundred(agency: Agency) -> None:
    (sample,) = sample_agency(locations=1, leads=1000, seed=5).locations
    (place,) = agency.sample(sample)
    result = await agency.backfill(place)
    assert result.failures == ()
    assert agency.requests(place) <= 0.03 * sample.eligible


async def test_a_second_run_changes_nothing(agency: Agency) -> None:
    (sample,) = sample_agency(locations=1, leads=100, seed=3).locations
    (place,) = agency.sample(sample)
    await agency.backfill(place)
    before = agency.table("leads")
    result = await agency.backfill(place)
    assert result.failures == ()
    assert result.reports[0].repaired == 0
    assert agency.table("leads") == before


async def test_a_dry_run_writes_nothing_and_tells_what_a_run_would_do(agency: Agency) -> None:
    (sample,) = sample_agency(locations=1, leads=120, seed=4).locations
    (place,) = agency.sample(sample)
    tables = ("leads", "lead_lookups", "work_lists", "work_items", "resolved_contacts", "location_learning")
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


async def test_what_a_location_takes_is_learned_once(agency: Agency) -> None:
    place = agency.place()
    agency.sandbox.faults(place.id, max_or_leaves=12)
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(60)])
    await agency.backfill(place)
    refused = agency.sandbox.stats(place.id)["by_route"][SEARCH]["400"]
    await agency.backfill(place)
    assert agency.sandbox.stats(place.id)["by_route"][SEARCH]["400"] == refused
    (learned,) = agency.table("location_learning")
    assert learned["group_size"] <= 12


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


# --- interruptions


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing that catches errors may catch it."""


PAGE = 40


@pytest.fixture
def twins(agency: Agency) -> tuple[Place, Place]:
    """Two locations with equal contacts and leads: one is left in peace, the other interrupted."""
    (sample,) = sample_agency(locations=1, leads=200, seed=9).locations
    twin = replace(sample, id="twinLocation00000001", name="Twin", token="pit-twin")
    first, second = agency.sample(sample, twin)
    return first, second


async def assert_same_as_uninterrupted(
    agency: Agency, twins: tuple[Place, Place], history: RememberedHistory, *, interruptions: int
) -> None:
    """Finishes the interrupted twin and compares it with the other."""
    calm, interrupted = twins
    history.before_progress = None
    after = await agency.backfill(interrupted, history=history, page_size=PAGE)
    other = await agency.backfill(calm, page_size=PAGE)
    assert after.failures == other.failures == ()
    assert comparable(agency, interrupted) == comparable(agency, calm)
    assert after.reports[0].outcomes == other.reports[0].outcomes
    assert after.reports[0].fields == other.reports[0].fields
    looked_up = agency.sandbox.stats(interrupted.id)["lookups"]
    assert looked_up["email"]["repeated"] <= PAGE * interruptions
    assert looked_up["id"]["repeated"] <= PAGE * interruptions
    assert looked_up["email"]["distinct"] == agency.sandbox.stats(calm.id)["lookups"]["email"]["distinct"]
    assert agency.count("resolved_contacts") == 0
    lists = {row["client_id"]: row for row in agency.table("work_lists")}
    assert lists[interrupted.client_id]["written"] == lists[calm.client_id]["written"]


def at_event(number: int, act: Callable[[], object]) -> Callable[[str, Report], None]:
    """Acts at the progress event of this number."""
    seen: list[str] = []

    def hook(asset: str, _report: Report) -> None:
        seen.append(asset)
        if len(seen) == number:
            act()

    return hook


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("page", [1, 2, 4])
async def test_a_run_killed_after_a_page_resumes_without_asking_twice(
    agency: Agency, twins: tuple[Place, Place], page: int
) -> None:
    history = RememberedHistory(before_progress=at_event(page, kill))
    with pytest.raises(BaseExceptionGroup):
        await agency.backfill(twins[1], history=history, page_size=PAGE)
    assert agency.count("lead_lookups") == 0
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=1)
    states = [row["state"] for row in sorted(agency.table("location_attempts"), key=lambda row: row["id"])]
    assert states == ["interrupted", "succeeded", "succeeded"]


async def test_a_run_killed_again_and_again_still_comes_to_its_end(agency: Agency, twins: tuple[Place, Place]) -> None:
    history = RememberedHistory()
    for _ in range(3):
        history.before_progress = at_event(2, kill)
        with pytest.raises(BaseExceptionGroup):
            await agency.backfill(twins[1], history=history, page_size=PAGE)
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=3)


@pytest.mark.parametrize("page", [1, 3])
async def test_a_run_killed_while_it_writes_goes_on_writing_without_a_call(
    agency: Agency, twins: tuple[Place, Place], page: int
) -> None:
    pages: list[str] = []

    def hook(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.strip().startswith("DELETE FROM resolved_contacts"):
            pages.append(statement)
            if len(pages) == page:
                raise Killed

    history = RememberedHistory()
    event.listen(agency.engine, "before_cursor_execute", hook)
    try:
        with pytest.raises(BaseExceptionGroup):
            await agency.backfill(twins[1], history=history, page_size=PAGE)
    finally:
        event.remove(agency.engine, "before_cursor_execute", hook)
    assert agency.count("lead_lookups") == PAGE * (page - 1)
    calls = agency.requests(twins[1])
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=0)
    assert agency.requests(twins[1]) == calls


@pytest.mark.parametrize("page", [1, 3])
async def test_a_cancelled_run_ends_cleanly_with_its_resume_point_kept(
    agency: Agency, twins: tuple[Place, Place], page: int
) -> None:
    loop = asyncio.get_running_loop()
    history = RememberedHistory()
    run = asyncio.create_task(agency.backfill(twins[1], history=history, page_size=PAGE))
    history.before_progress = at_event(page, lambda: loop.call_soon_threadsafe(run.cancel))
    with pytest.raises(asyncio.CancelledError):
        await run
    (attempt,) = agency.table("location_attempts")
    assert attempt["state"] == "interrupted"
    assert agency.count("location_leases") == 0
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=1)


async def test_a_lead_that_becomes_eligible_during_an_interruption_is_not_left_out(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(10)])
    history = RememberedHistory(before_progress=at_event(2, kill))
    with pytest.raises(BaseExceptionGroup):
        await agency.backfill(place, history=history, page_size=4)
    agency.lead(place, email="late@example.com")
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history, page_size=4)).reports
    assert report.eligible == 11
    assert agency.count("lead_lookups") == 11


async def test_a_fresh_run_starts_over(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(10)])
    history = RememberedHistory(before_progress=at_event(2, kill))
    with pytest.raises(BaseExceptionGroup):
        await agency.backfill(place, history=history, page_size=5)
    history.before_progress = None
    history.attempt = "another run"
    await agency.backfill(place, history=history, page_size=5, fresh=True)
    assert agency.sandbox.stats(place.id)["lookups"]["email"]["repeated"] == 10


async def test_what_an_attempt_has_done_is_skipped_in_the_same_attempt_only(agency: Agency) -> None:
    place = agency.place()
    agency.lead(place, email="ada@example.com")
    history = RememberedHistory(attempt="backfill-1")
    await agency.backfill(place, history=history)
    calls = agency.requests(place)
    rerun = await agency.backfill(place, history=history)
    assert (rerun.skipped, rerun.reports, rerun.failures) == ((place.id,), (), ())
    assert agency.requests(place) == calls
    history.attempt = "backfill-2"
    tomorrow = await agency.backfill(place, history=history)
    assert [report.eligible for report in tomorrow.reports] == [1]
    assert agency.requests(place) == calls + 1


async def test_a_run_that_lost_its_lease_writes_nothing_more(agency: Agency) -> None:
    """A restart of the database frees its locks, and another run may be at work by the time this one goes on."""
    place = agency.place()
    place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, email="ada@example.com")
    history = RememberedHistory()

    def restart(asset: str, _report: Report) -> None:
        with agency.engine.begin() as connection:
            connection.execute(
                text("""
                    SELECT pg_terminate_backend(pid) FROM pg_locks
                    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database
                                                                WHERE datname = current_database())
                """)
            )

    history.before_progress = restart
    (failure,) = (await agency.backfill(place, history=history)).failures
    assert failure.error_class == "LeasesLost"
    assert agency.row(lead_id)["first_name"] is None
    history.before_progress = None
    await agency.backfill(place, history=history)
    assert agency.row(lead_id)["first_name"] == "Ada"


async def test_what_was_found_before_ghl_refused_is_written(agency: Agency) -> None:
    place = agency.place()
    people = [f"person{number}@example.com" for number in range(9)]
    for email in people:
        place.ghl.add(email=email, first_name="Ada")
    lead_ids = agency.leads(place, [{"email": email} for email in people])
    history = RememberedHistory()

    def revoke(asset: str, report: Report) -> None:
        if report.values.get("position") == 3:
            agency.sandbox.faults(place.id, token_revoked=True)

    history.before_progress = revoke
    (failure,) = (await agency.backfill(place, history=history, page_size=3)).failures
    assert failure.error_class == "TokenRejected"
    assert [agency.row(lead_id)["first_name"] for lead_id in lead_ids] == ["Ada"] * 3 + [None] * 6
    assert agency.count("resolved_contacts") == 0
    assert Step.HYDRATED_LEADS not in history.done_steps(place.id)

    agency.sandbox.faults()
    (report,) = (await agency.backfill(place, history=history, page_size=3)).reports
    # The counts are those of the whole list, the part before the refusal included.
    assert report.outcomes["linked_and_hydrated"] == 9


async def test_the_daily_quota_is_not_permanent(agency: Agency) -> None:
    place = agency.place(requests_per_day=1)
    agency.leads(place, [{"email": f"p{number}@example.com"} for number in range(4)])
    (failure,) = (await agency.backfill(place, page_size=2)).failures
    assert failure.error_class == "DailyQuotaReached"
    assert failure.permanent is False


async def test_a_cancelled_run_keeps_its_lease_until_its_last_write_is_done(agency: Agency) -> None:
    place = agency.place()
    place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, email="ada@example.com")
    history = RememberedHistory()
    with agency.engine.connect() as person:
        # Somebody has the lead open, so the write-back waits for the row in its thread.
        person.execute(text("SELECT id FROM leads WHERE id = :id FOR UPDATE"), {"id": lead_id})
        run = asyncio.create_task(agency.backfill(place, history=history))
        while not await asyncio.to_thread(waits_for_a_row, agency):
            pass
        run.cancel()
        await asyncio.sleep(0.1)
        assert agency.count("location_leases") == 1
        person.rollback()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert agency.count("location_leases") == 0
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == 1


def waits_for_a_row(agency: Agency) -> bool:
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with agency.engine.connect() as connection:
        return bool(connection.execute(query).scalar_one())


async def test_a_database_error_at_one_location_leaves_the_others_alone(agency: Agency) -> None:
    first, second = agency.place("First"), agency.place("Second")
    for place in (first, second):
        place.ghl.add(email="ada@example.com", first_name="Ada")
        agency.lead(place, email="ada@example.com")
    with agency.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE location_attempts ADD CHECK (location_id <> '{first.id}')"))
    result = await agency.backfill(first, second)
    assert [failure.location_id for failure in result.failures] == [first.id]
    assert [report.location for report in result.reports] == [second.id]


async def test_a_database_that_went_away_is_no_bug(agency: Agency, monkeypatch: pytest.MonkeyPatch) -> None:
    place = agency.place()

    def away(*_: object) -> int:
        raise OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(hydration_module, "begin_attempt", away)
    (failure,) = (await agency.backfill(place)).failures
    assert failure.error_class == "DatabaseUnavailable"
    assert "bug" not in failure.text


async def test_a_kill_before_the_list_is_closed_loses_neither_counts_nor_asks_again(agency: Agency) -> None:
    place = agency.place()
    place.ghl.add(email="ada@example.com", first_name="Ada")
    agency.leads(place, [{"email": "ada@example.com"}, {"email": "nobody@example.com"}])
    history = RememberedHistory()
    told = history.done

    def killed(asset: str, location_id: str, report: Report) -> None:
        told(asset, location_id, report)
        if asset == Step.HYDRATED_LEADS:
            raise Killed

    history.done = killed  # type: ignore[method-assign] # the kill is the point
    with pytest.raises((Killed, BaseExceptionGroup)):
        await agency.backfill(place, history=history)
    assert history.last_done(Step.HYDRATED_LEADS, place.id) is not None
    asked = agency.requests(place)
    history.done, history.attempt = told, "attempt-2"  # type: ignore[method-assign]
    (report,) = (await agency.backfill(place, history=history)).reports
    assert (report.outcomes["linked_and_hydrated"], report.outcomes["not_found"]) == (1, 1)
    assert agency.requests(place) == asked


async def test_a_preview_counts_a_contact_once_over_all_its_pages(agency: Agency) -> None:
    place = agency.place()
    place.ghl.add(email="ada@example.com", additional_emails=("ada@work.example.com",), first_name="Ada")
    agency.leads(place, [{"email": "ada@example.com"}, {"email": "ada@work.example.com"}])
    preview = (await agency.backfill(place, dry_run=True, page_size=1)).reports[0]
    real = (await agency.backfill(place, page_size=1)).reports[0]
    assert preview.outcomes == real.outcomes
    assert real.outcomes["ambiguous"] == 1


async def test_a_lead_corrected_during_its_lookup_still_counts_as_never_looked_up(agency: Agency) -> None:
    place = agency.place()
    lead_id = agency.lead(place, email="wrong@example.com")
    history = RememberedHistory(before_progress=lambda _asset, _report: agency.edit(lead_id, email="right@example.com"))
    place.ghl.add(email="right@example.com", first_name="Ada")
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["unchanged"] == 1
    assert agency.count("lead_lookups") == 0
    await agency.backfill(place, scope=Scope.NEVER_LOOKED_UP)
    assert agency.row(lead_id)["first_name"] == "Ada"


async def test_lists_that_nobody_takes_up_again_do_not_keep_people(agency: Agency) -> None:
    gone, working = agency.place("Gone"), agency.place("Working")
    for place in (gone, working):
        place.ghl.add(email="ada@example.com", first_name="Ada")
        agency.lead(place, email="ada@example.com")
        await agency.backfill(place, steps=frozenset({Step.ELIGIBLE_LEADS, Step.RESOLVED_CONTACTS}))
    assert agency.count("resolved_contacts") == 2
    with agency.engine.begin() as connection:
        deactivate_client(connection, gone.id)
    await agency.backfill(working)
    assert agency.count("resolved_contacts") == 0
    assert agency.count("work_lists") == 1


async def test_the_retry_of_a_killed_fresh_run_goes_on_instead_of_starting_afresh_again(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"p{number}@example.com"} for number in range(6)])
    history = RememberedHistory()

    def kill(_asset: str, report: Report) -> None:
        if report.values.get("position") == 4:
            raise Killed

    history.before_progress = kill
    with pytest.raises((Killed, BaseExceptionGroup)):
        await agency.backfill(place, history=history, fresh=True, page_size=2)
    history.before_progress = None
    before = agency.requests(place)
    await agency.backfill(place, history=history, fresh=True, page_size=2)
    # The page in flight and the one that was left.
    assert agency.requests(place) - before == 2
    again = RememberedHistory(attempt="another", events=history.events)
    await agency.backfill(place, history=again, fresh=True, page_size=2)
    assert agency.requests(place) - before == 2 + 3
