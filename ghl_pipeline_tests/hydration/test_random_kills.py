"""`kill -9` of a real `ghl-pipeline backfill` at random moments, and while PostgreSQL writes: nothing is lost.

Each test has two clients with equal leads and contacts. One is worked on in peace, the other by processes that are
killed and started again until one comes to its end. What is compared is everything that is left behind.
"""

import asyncio
import math
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.hydration.plan import Way
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import SampleLocation, sample_agency
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.cli.conftest import PROGRAM
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import Agency, Place

SEARCH = "POST /contacts/search"
SEED = 20
KILLS = 2
# Leads a page, and addresses asked for at once.
PAGE, GROUP = {Way.LOOKUP: 20, Way.SCAN: 200, Way.DELTA: 200}, 10
WAIT_SECONDS = 60
# Work of some three seconds: 16 pages of leads, each with a call for links and one for addresses; 8 pages of contacts.
LATENCY_SECONDS = {Way.LOOKUP: 0.1, Way.SCAN: 0.35, Way.DELTA: 0.6}
# A killed process has begun its work that long ago at most, so that the last one has some left to do.
LONGEST_WORK_SECONDS = 1.2
# What a kill may cost: the page of leads that was being asked for; or the page of contacts that was being stored, and
# the one that was asked for meanwhile.
PAGES_OF_CONTACTS = 2


@dataclass(frozen=True)
class Twins:
    """Two clients with equal leads and contacts."""

    agency: Agency
    way: Way
    calm: Place
    killed: Place

    def rows(self, place: Place) -> list[dict[str, Any]]:
        """The place's leads without what differs between two clients, with how their lookup ended."""
        outcomes = {row["lead_id"]: row["outcome"] for row in self.agency.table("lead_lookups")}
        return [
            {name: value for name, value in row.items() if name not in {"id", "client_id"}}
            | {"outcome": outcomes.get(row["id"])}
            for row in self.agency.rows()
            if row["client_id"] == place.client_id
        ]

    def work_in_peace(self) -> None:
        result = asyncio.run(self.agency.backfill(self.calm, history=RememberedHistory(), page_size=PAGE[self.way]))
        assert result.failures == ()

    def assert_alike(self, *, kills: int) -> None:
        """Nothing tells the two apart but some calls."""
        way = self.way
        assert self.rows(self.killed) == self.rows(self.calm)
        plans = {row["client_id"]: row["plan"] for row in self.agency.table("work_lists")}
        assert plans[self.killed.client_id]["way"] == plans[self.calm.client_id]["way"] == way
        left = {name: self.agency.count(name) for name in ("resolved_contacts", "pulled_contacts", "location_leases")}
        assert set(left.values()) == {0}, left
        calm, killed = (self.agency.sandbox.stats(place.id) for place in (self.calm, self.killed))
        for by in ("email", "id"):
            more = killed["lookups"][by]["repeated"] - calm["lookups"][by]["repeated"]
            # A lead whose link is dead is asked for by both, so each is bounded by the page in flight.
            assert more <= PAGE[way] * kills
            assert killed["lookups"][by]["distinct"] == calm["lookups"][by]["distinct"]
        if way is not Way.LOOKUP:
            more = killed["by_route"][SEARCH]["200"] - calm["by_route"][SEARCH]["200"]
            assert more <= PAGES_OF_CONTACTS * kills
        assert (killed["creates"], killed["updates"], killed["deletes"]) == (0, 0, 0)


@pytest.fixture
def agency(engine: Engine, project: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Agency:
    """An agency whose tokens the processes can read."""
    monkeypatch.setenv("GHL_REQUESTS_PER_10S", "1000")
    return Agency(engine, sandbox, TokenCipher.from_settings(project))


@pytest.fixture
def twins(agency: Agency, monkeypatch: pytest.MonkeyPatch) -> Callable[[Way], Twins]:
    """Makes them: for a delta after their first night, on which many people's contacts came."""

    def made(way: Way) -> Twins:
        monkeypatch.setenv("HYDRATION_PAGE_SIZE", str(PAGE[way]))
        if way is Way.DELTA:
            return after_a_night(agency)
        sample = with_leads(400, 0) if way is Way.LOOKUP else with_leads(1500, 2400)
        ids = [f"twinLocation0000000{n}" for n in (1, 2)]
        places = agency.sample(*(replace(sample, id=id_, name=id_, token=f"pit-{id_}") for id_ in ids))
        if way is Way.LOOKUP:
            agency.prefer_lookups(*places, group_size=GROUP)
        return Twins(agency, way, *places)

    return made


def with_leads(leads: int, strangers: int) -> SampleLocation:
    (sample,) = sample_agency(locations=1, leads=leads, seed=9).locations
    unknown = (msgspec.structs.replace(c, email=f"stranger.{c.email}") for c in crowd(strangers, "strangers"))
    return replace(sample, contacts=(*sample.contacts, *unknown))


def after_a_night(agency: Agency) -> Twins:
    """1,500 leads of nobody, of which 1,400 have become somebody since: 3 pages of changes."""
    leads, newcomers = 1500, 1400
    places = [agency.place(name, contacts=crowd(3000, "night")) for name in "AB"]
    for place in places:
        agency.leads(place, [{"email": f"nobody.{n}@example.net"} for n in range(leads)])
    first = asyncio.run(agency.backfill(*places, history=RememberedHistory(), page_size=1000))
    assert [report.outcomes["not_found"] for report in first.reports] == [leads, leads]
    now = int(time.time() * 1000)
    for place in places:
        for n in range(newcomers):
            made = {"id": f"newcomer{n:012d}", "date_added": now + n, "date_updated": now + n}
            place.ghl.add(**made, email=f"nobody.{n}@example.net", phone="+13055550188", first_name="Ada")
    agency.sandbox.world.reset_statistics()
    return Twins(agency, Way.DELTA, *places)


@contextmanager
def backfill(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """`ghl-pipeline backfill` of the place as a process of its own."""
    words = [str(PROGRAM), "backfill", "--location", place.id, "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not true():
        assert process.poll() is None, f"ended early: {process.stderr and process.stderr.read().decode()}"
        assert time.monotonic() < give_up_at, "never got there"
        time.sleep(0.005)


def works(engine: Engine, process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has the lease of a location; its own row, not that of one killed before."""
    query = text("SELECT count(*) FROM location_leases WHERE holder LIKE :holder")
    with engine.connect() as connection:
        return bool(connection.execute(query, {"holder": f"%(process {process.pid} on %"}).scalar_one())


def run_to_the_end(place: Place) -> None:
    with backfill(place) as process:
        _, errors = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize("way", list(Way))
def test_however_often_a_backfill_is_killed_it_ends_as_if_it_never_had_been(
    twins: Callable[[Way], Twins], way: Way
) -> None:
    pair = twins(way)
    pair.work_in_peace()
    moments = random.Random(f"{SEED}/{way}")
    pair.agency.sandbox.faults(latency_seconds=LATENCY_SECONDS[way])
    for _ in range(KILLS):
        with backfill(pair.killed) as process:
            wait_until(lambda process=process: works(pair.agency.engine, process), process)  # type: ignore[misc]
            time.sleep(moments.uniform(0.0, LONGEST_WORK_SECONDS))
            assert process.poll() is None, "ended before it was killed"
            process.send_signal(signal.SIGKILL)
            process.wait()
    pair.agency.sandbox.faults()
    run_to_the_end(pair.killed)
    pair.assert_alike(kills=KILLS)
    states = [row["state"] for row in sorted(pair.agency.table("location_attempts"), key=lambda row: row["id"])]
    assert states[-KILLS - 1 :] == ["interrupted"] * KILLS + ["succeeded"]


def waits_for_a_lock(engine: Engine) -> bool:
    query = text("""
        SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
    """)
    with engine.connect() as connection:
        return bool(connection.execute(query).scalar_one())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "table"),
    [(Way.LOOKUP, "resolved_contacts"), (Way.LOOKUP, "leads"), (Way.SCAN, "pulled_contacts"), (Way.DELTA, "leads")],
)
def test_a_backfill_killed_while_postgresql_writes_for_it_loses_and_repeats_nothing_else(
    twins: Callable[[Way], Twins], way: Way, table: str
) -> None:
    """The statement of the dead goes on in the server until it gets its lock; without its commit it is as if never."""
    pair = twins(way)
    pair.work_in_peace()
    engine = pair.agency.engine
    with engine.connect() as blocker:
        # After the first page, whichever kind it is of: so that something is there that must not be lost.
        pair.agency.sandbox.faults(latency_seconds=LATENCY_SECONDS[way])
        with backfill(pair.killed) as process:
            wait_until(lambda: some_calls_answered(pair), process)
            blocker.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
            wait_until(lambda: waits_for_a_lock(engine), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        blocker.rollback()
    pair.agency.sandbox.faults()
    run_to_the_end(pair.killed)
    pair.assert_alike(kills=1)


def some_calls_answered(pair: Twins) -> bool:
    return int(pair.agency.sandbox.stats(pair.killed.id)["requests"]) >= 2


def test_the_pages_of_these_tests_are_many(twins: Callable[[Way], Twins]) -> None:
    """Otherwise a kill could not be told from a start from scratch."""
    pair = twins(Way.LOOKUP)
    pair.work_in_peace()
    assert pair.agency.requests(pair.calm, SEARCH) > 3 * KILLS
    assert math.ceil(len(pair.rows(pair.calm)) / PAGE[pair.way]) > 3 * KILLS
