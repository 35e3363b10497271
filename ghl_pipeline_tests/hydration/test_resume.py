"""What a run that ends at the worst moment leaves behind, and how the next one takes it up: nobody is passed over."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text

from ghl_pipeline.hydration.options import Step
from ghl_pipeline.hydration.page_writer import PageWriter
from ghl_pipeline.hydration.work_list import Scope, open_list
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.hydration.conftest import (
    Agency,
    Place,
    before_statement,
    kill,
    page_number,
    strangers,
    until_killed,
)

SEARCH = "POST /contacts/search"
CONTACTS, LEADS = 1_100, 700
BLOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture
def people() -> list[Contact]:
    return crowd(CONTACTS, "resume")


@pytest.fixture
def place(agency: Agency, people: list[Contact]) -> Place:
    """700 leads, each with the address of a contact, among 1,100 contacts: they are scanned."""
    place = agency.place(contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:LEADS]])
    return place


def once_pulled(contacts: int, act: Callable[[], object]) -> Callable[[str, Report], None]:
    """For `RememberedHistory.before_progress`: acts when so many contacts are pulled."""

    def hook(_asset: str, report: Report) -> None:
        if report.values.get("contacts_pulled") == contacts:
            act()

    return hook


def way_of(history: RememberedHistory) -> object:
    events = [r for kind, asset, _, r in history.events if (kind, asset) == ("done", Step.RESOLVED_CONTACTS)]
    return events[-1].values["way"]


@pytest.mark.parametrize("page", [1, 2])
async def test_leads_of_a_scan_stored_just_before_a_kill_keep_their_contacts(
    agency: Agency, place: Place, page: int
) -> None:
    """The contacts pulled for a page are dropped with its store: asked again, its leads would have none."""
    history = RememberedHistory(before_progress=page_number(page, kill))
    await until_killed(agency.backfill(place, history=history, page_size=300))
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history, page_size=300)).reports
    assert report.outcomes["linked_and_hydrated"] == agency.linked() == LEADS
    assert agency.count("pulled_contacts") == 0


async def test_leads_of_a_delta_stored_just_before_a_kill_keep_their_contacts(agency: Agency) -> None:
    place = agency.place(contacts=strangers(700))
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(300)])
    await agency.backfill(place)
    for number in range(50):
        place.ghl.add(email=f"nobody.{number}@example.net", phone="+13055550188")
    history = RememberedHistory(attempt="2", before_progress=page_number(1, kill))
    await until_killed(agency.backfill(place, history=history))
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history)).reports
    assert way_of(history) == "delta"
    assert (report.outcomes["linked_and_hydrated"], report.outcomes["not_found"]) == (50, 250)
    assert agency.linked() == 50
    # The delta is settled once more, without those that wait to be written: each lead counts once.
    (finished,) = agency.table("work_lists")
    assert (finished["looked_up"], finished["written"]) == (300, 300)


async def test_a_scan_that_came_short_is_not_believed_by_the_next_run_either(agency: Agency, place: Place) -> None:
    """Killed when its last page is stored, and that it is given up for lookups is not."""
    agency.sandbox.faults(total_surplus=7)
    history = RememberedHistory()
    with before_statement(agency.engine, lambda _, values: "the pull brought" in str(values), kill):
        await until_killed(agency.backfill(place, history=history))
    (stored,) = agency.table("work_lists")
    assert (stored["plan"]["way"], stored["plan"]["pulled"]) == ("scan", True)
    (report,) = (await agency.backfill(place, history=history)).reports
    assert way_of(history) == "lookup"
    assert report.outcomes["linked_and_hydrated"] == LEADS


@pytest.mark.parametrize(("hours", "is_pulled_anew"), [(11, False), (13, True)])
async def test_what_was_pulled_more_than_12_hours_ago_is_pulled_anew(
    agency: Agency, place: Place, people: list[Contact], hours: int, is_pulled_anew: bool
) -> None:
    history = RememberedHistory(before_progress=once_pulled(CONTACTS, kill))
    await until_killed(agency.backfill(place, history=history))
    agency.sql(
        """UPDATE work_lists SET plan = jsonb_set(plan, '{began_at}', to_jsonb(
               CAST(plan ->> 'began_at' AS timestamptz) - make_interval(hours => :hours)))""",
        hours=hours,
    )
    for contact in people[:LEADS]:
        place.ghl.change(contact.id, phone="+13055550199")
    agency.sandbox.world.reset_statistics()
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history)).reports
    assert report.outcomes["linked_and_hydrated"] == LEADS
    assert {row["phone"] == "+13055550199" for row in agency.rows()} == {is_pulled_anew}
    assert (agency.requests(place, SEARCH) >= 3) is is_pulled_anew


async def test_a_small_list_that_grew_is_planned_anew(agency: Agency) -> None:
    """The new-lead sensor's list of one, whose lookup failed, is taken up by the nightly run for all leads."""
    place = agency.place(contacts=strangers(700))
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(3_000)])
    await agency.backfill(place)
    agency.lead(place, email=f"{'x' * 80}@example.com")  # too long for a search: by the duplicate lookup
    agency.sandbox.faults(error_rate=1.0, routes=["GET /contacts/search/duplicate"])
    hourly = RememberedHistory(attempt="hourly")
    (failure,) = (await agency.backfill(place, history=hourly, scope=Scope.NEVER_LOOKED_UP)).failures
    assert failure.error_class == "LookupsFailed"
    agency.sandbox.faults()
    agency.sandbox.world.reset_statistics()
    nightly = RememberedHistory(attempt="nightly")
    (report,) = (await agency.backfill(place, history=nightly)).reports
    assert report.outcomes["not_found"] == 3_001
    assert way_of(nightly) == "delta"
    assert agency.requests(place, SEARCH) == 1


async def test_a_list_of_new_leads_that_is_widened_to_a_few_is_no_pass_over_all_leads(agency: Agency) -> None:
    """Else the records of the leads that are not on it would be dropped, and all of them looked up once more."""
    place = agency.place(contacts=strangers(700))
    agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(300)])
    await agency.backfill(place)
    agency.lead(place, email=f"{'x' * 80}@example.com")
    agency.sandbox.faults(error_rate=1.0, routes=["GET /contacts/search/duplicate"])
    hourly = RememberedHistory(attempt="hourly")
    assert (await agency.backfill(place, history=hourly, scope=Scope.NEVER_LOOKED_UP)).failures
    agency.sandbox.faults()
    await agency.backfill(place, history=RememberedHistory(attempt="a few"), max_leads=5)
    assert agency.count("lead_lookups") == 301


async def test_a_list_of_more_leads_than_a_smallint_counts_goes_on_beyond_that(agency: Agency) -> None:
    """The driver sends 32,767 as a smallint and 32,768 as an integer; the page in between has positions of both."""
    answered, new, page = 32_700, 300, 100
    people = crowd(new, "long list")
    place = agency.place(contacts=people)
    agency.prefer_lookups(place)
    agency.sql(
        """INSERT INTO leads (client_id, email)
           SELECT :client, 'early.' || n || '@example.net' FROM generate_series(1, :n) AS n""",
        client=place.client_id,
        n=answered,
    )
    agency.leads(place, [{"email": contact.email} for contact in people])
    with agency.engine.begin() as connection:
        open_list(connection, place.client_id, Scope.ALL)
    agency.sql("UPDATE work_items SET outcome = 'not_found' WHERE position <= :n", n=answered)
    agency.sql("UPDATE work_lists SET position = :n, looked_up = :n, written = :n", n=answered)
    history = RememberedHistory(before_progress=page_number(1, kill))
    await until_killed(agency.backfill(place, history=history, page_size=page))
    history.before_progress = page_number(2, kill)  # in the history is position 32,900 by then
    await until_killed(agency.backfill(place, history=history, page_size=page))
    history.before_progress = None
    (report,) = (await agency.backfill(place, history=history, page_size=page)).reports
    assert (report.outcomes["linked_and_hydrated"], report.outcomes["not_found"]) == (new, answered)
    (finished,) = agency.table("work_lists")
    assert (finished["position"], finished["looked_up"], finished["written"]) == (33_000, 33_000, 33_000)
    assert agency.requests(place) == new / 50


@pytest.mark.parametrize("looks_up", [False, True], ids=["while it waits for the page", "while it looks up"])
async def test_a_page_that_is_written_is_waited_for_however_often_the_run_is_cancelled(looks_up: bool) -> None:
    began, may_end = threading.Event(), threading.Event()
    told: list[str] = []

    def write() -> int:
        began.set()
        assert may_end.wait(20)
        told.append("written")
        return 1

    async def work() -> None:
        writer = PageWriter(write)
        try:
            await writer.page_is_stored()
            if looks_up:
                await asyncio.Event().wait()
            await writer.page_is_stored()
        finally:
            try:
                await writer.stop()
            finally:
                told.append("stopped")

    run = asyncio.create_task(work())
    assert await asyncio.to_thread(began.wait, 20)
    for _ in range(4):
        run.cancel()
        await asyncio.sleep(0.01)
    assert not run.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert told == ["written", "stopped"]


async def test_a_cancelled_run_keeps_its_lease_until_the_page_under_way_is_written(
    agency: Agency, place: Place
) -> None:
    """A thread cannot be stopped: with the lease given back, another run might be at work while it writes."""
    first = agency.rows()[0]["id"]

    def is_blocked() -> bool:
        with agency.engine.connect() as connection:
            return bool(connection.execute(BLOCKED).scalar())

    with agency.engine.begin() as somebody:
        somebody.execute(text("SELECT FROM leads WHERE id = :id FOR UPDATE"), {"id": first})
        run = asyncio.create_task(agency.backfill(place))
        deadline = time.monotonic() + 20
        while not await asyncio.to_thread(is_blocked):
            assert time.monotonic() < deadline, "no page is being written"
            assert not run.done()
        for _ in range(3):
            run.cancel()
            await asyncio.sleep(0.05)
            assert not run.done()
            assert agency.count("location_leases") == 1
    with pytest.raises(asyncio.CancelledError):
        await run
    assert agency.count("location_leases") == 0
    written = agency.linked()
    await asyncio.sleep(0.05)
    assert agency.linked() == written > 0
