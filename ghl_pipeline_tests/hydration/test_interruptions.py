"""Hydration that is killed, cancelled, cut off or overtaken: nothing is lost or asked twice."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from ghl_pipeline.hydration import hydration as hydration_module
from ghl_pipeline.hydration.options import Step
from ghl_pipeline.hydration.work_list import Scope
from ghl_pipeline.locations.clients import deactivate_client
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import Agency, Killed, Place, kill, page_number

DUPLICATE = "GET /contacts/search/duplicate"
SEARCH = "POST /contacts/search"
STEPS = [step.value for step in Step]


def comparable(agency: Agency, place: Place) -> list[dict[str, Any]]:
    """The place's leads without what differs between two clients, with how their lookup ended."""
    outcomes = {row["lead_id"]: row["outcome"] for row in agency.table("lead_lookups")}
    return [
        {name: value for name, value in row.items() if name not in {"id", "client_id"}}
        | {"outcome": outcomes.get(row["id"])}
        for row in agency.rows()
        if row["client_id"] == place.client_id
    ]


PAGE = 40
LEADS = 200


@pytest.fixture
def twins(agency: Agency) -> tuple[Place, Place]:
    """Two locations with equal contacts and leads, which are looked up: one is left in peace, the other interrupted."""
    (sample,) = sample_agency(locations=1, leads=LEADS, seed=9).locations
    twin = replace(sample, id="twinLocation00000001", name="Twin", token="pit-twin")
    first, second = agency.sample(sample, twin)
    agency.prefer_lookups(first, second)
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


@pytest.mark.parametrize("page", [1, 2, 4])
async def test_a_run_killed_after_a_page_resumes_without_asking_twice(
    agency: Agency, twins: tuple[Place, Place], page: int
) -> None:
    history = RememberedHistory(before_progress=page_number(page, kill))
    with pytest.raises(BaseExceptionGroup):
        await agency.backfill(twins[1], history=history, page_size=PAGE)
    # Each page is written while the next one is asked for, so only the one that was stored last is not.
    assert agency.count("lead_lookups") == PAGE * (page - 1)
    assert agency.count("resolved_contacts") == PAGE
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=0)
    states = [row["state"] for row in sorted(agency.table("location_attempts"), key=lambda row: row["id"])]
    assert states == ["interrupted", "succeeded", "succeeded"]


async def test_a_run_killed_again_and_again_still_comes_to_its_end(agency: Agency, twins: tuple[Place, Place]) -> None:
    """Each time between the store of a page and the history's event of it: the page is not asked again."""
    history = RememberedHistory()
    for killed in range(1, 4):
        history.before_progress = page_number(1, kill)
        with pytest.raises(BaseExceptionGroup):
            await agency.backfill(twins[1], history=history, page_size=PAGE)
        assert agency.table("work_lists")[0]["looked_up"] == killed * PAGE
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=0)


@contextmanager
def killed_while_writing(agency: Agency, page: int) -> Iterator[None]:
    """The run is killed when the page of this number is written and not yet committed."""
    pages: list[str] = []

    def hook(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.strip().startswith("DELETE FROM resolved_contacts"):
            pages.append(statement)
            if len(pages) == page:
                raise Killed

    event.listen(agency.engine, "before_cursor_execute", hook)
    try:
        with pytest.raises(BaseExceptionGroup):
            yield
    finally:
        event.remove(agency.engine, "before_cursor_execute", hook)


@pytest.mark.parametrize("page", [1, 3])
async def test_a_run_killed_while_it_writes_and_looks_up_asks_nothing_twice(
    agency: Agency, twins: tuple[Place, Place], page: int
) -> None:
    history = RememberedHistory()
    with killed_while_writing(agency, page):
        await agency.backfill(twins[1], history=history, page_size=PAGE)
    assert agency.count("lead_lookups") == PAGE * (page - 1)
    # The page that was asked for meanwhile is stored before the run ends.
    assert agency.count("resolved_contacts") == 2 * PAGE
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=0)
    assert agency.requests(twins[1]) == agency.requests(twins[0])


async def test_a_run_killed_while_it_writes_its_last_page_goes_on_writing_without_a_call(
    agency: Agency, twins: tuple[Place, Place]
) -> None:
    (work,) = sample_agency(locations=1, leads=LEADS, seed=9).locations
    last = math.ceil(work.eligible / PAGE)
    history = RememberedHistory()
    with killed_while_writing(agency, last):
        await agency.backfill(twins[1], history=history, page_size=PAGE)
    assert agency.count("lead_lookups") == PAGE * (last - 1)
    calls = agency.requests(twins[1])
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=0)
    assert agency.requests(twins[1]) == calls == agency.requests(twins[0])


@pytest.mark.parametrize("page", [1, 3])
async def test_a_cancelled_run_ends_cleanly_with_its_resume_point_kept(
    agency: Agency, twins: tuple[Place, Place], page: int
) -> None:
    loop = asyncio.get_running_loop()
    history = RememberedHistory()
    run = asyncio.create_task(agency.backfill(twins[1], history=history, page_size=PAGE))
    history.before_progress = page_number(page, lambda: loop.call_soon_threadsafe(run.cancel))
    with pytest.raises(asyncio.CancelledError):
        await run
    (attempt,) = agency.table("location_attempts")
    assert attempt["state"] == "interrupted"
    assert agency.count("location_leases") == 0
    await assert_same_as_uninterrupted(agency, twins, history, interruptions=1)


async def test_a_lead_that_becomes_eligible_during_an_interruption_is_not_left_out(agency: Agency) -> None:
    place = agency.place()
    agency.leads(place, [{"email": f"p{n}@example.com"} for n in range(10)])
    history = RememberedHistory(before_progress=page_number(2, kill))
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
    history = RememberedHistory(before_progress=page_number(2, kill))
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
    history.before_progress = None
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

    def away(*_: object, **__: object) -> int:
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
    place.ghl.add(email="right@example.com", first_name="Ada")
    corrected = page_number(1, lambda: agency.edit(lead_id, email="right@example.com"))
    history = RememberedHistory(before_progress=corrected)
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
    agency.prefer_lookups(place)
    history = RememberedHistory(before_progress=page_number(2, kill))
    with pytest.raises((Killed, BaseExceptionGroup)):
        await agency.backfill(place, history=history, fresh=True, page_size=2)
    history.before_progress = None
    before = agency.requests(place)
    await agency.backfill(place, history=history, fresh=True, page_size=2)
    # The page that was left; the one that was stored and not told is not asked again.
    assert agency.requests(place) - before == 1
    again = RememberedHistory(attempt="another", events=history.events)
    await agency.backfill(place, history=again, fresh=True, page_size=2)
    assert agency.requests(place) - before == 1 + 3
