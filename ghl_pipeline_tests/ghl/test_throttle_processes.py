"""The throttle over real processes and real HTTP, proven by what the server counted.

The server allows more than what is asked for, so that it counts what is too much instead of refusing it.
"""

import asyncio
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from sqlalchemy import URL, Engine

from ghl_pipeline.ghl.throttle import Limits
from ghl_pipeline.ghl.throttle_row import GUARD
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.throttle_worker import Job, Report, report_of, start_worker, work

pytestmark = pytest.mark.slow

# GHL's own 10 s with their 150 ms of guard where many processes work; where few do, 60 ms are enough on a busy machine.
INTERVAL_SECONDS = 4.0
SCALE = INTERVAL_SECONDS / 10


class Workers:
    """Worker processes on the sandbox's locations."""

    def __init__(self, sandbox: Sandbox, database_url: URL) -> None:
        self._sandbox = sandbox
        self._database_url = database_url.render_as_string(hide_password=False)

    def job(self, *locations: Location, requests: int, seconds: float, callers: int = 20, interactive: int = 0) -> Job:
        return Job(
            database_url=self._database_url,
            api_url=self._sandbox.url,
            tokens={location.id: location.token for location in locations},
            limits=Limits(requests, INTERVAL_SECONDS, 1_000_000, interactive),
            seconds=seconds,
            callers=callers,
        )

    def run(self, job: Job, processes: int) -> list[Report]:
        started = [start_worker(job) for _ in range(processes)]
        return [report_of(worker) for worker in started]


@pytest.fixture
def workers(sandbox: Sandbox, database_url: URL) -> Workers:
    return Workers(sandbox, database_url)


def limit_was_kept(sandbox: Sandbox, location: Location, reports: Sequence[Report], requests: int) -> None:
    """Asserts that never more than so many requests left in 10 s, nor came to the server.

    The guard is the jitter that a request may have on its way. On a machine that is jammed some take longer; where one
    arrives then is no work of the throttle's, so that each of them may be one too many there.
    """
    sent = sorted(at for report in reports for at in report.sent[location.id])
    assert min(later - earlier for earlier, later in zip(sent, sent[requests:], strict=False)) >= 10
    jammed = sum(seconds > 10 * GUARD for report in reports for seconds in report.round_trips[location.id])
    assert sandbox.stats(location.id)["highest_in_window"] <= requests + jammed


@pytest.mark.parametrize("processes", [1, 4])
def test_no_window_at_the_server_holds_more_than_the_limit(sandbox: Sandbox, workers: Workers, processes: int) -> None:
    location = sandbox.add_location(requests=1000)
    job = workers.job(location, requests=100, seconds=12)
    reports = workers.run(replace(job, limits=Limits(100, 10.0, 1_000_000, interactive=0)), processes)
    limit_was_kept(sandbox, location, reports, 100)
    assert sandbox.stats(location.id)["requests"] > 100  # two windows were begun


def test_twenty_locations_keep_their_limits_each_for_itself(sandbox: Sandbox, workers: Workers) -> None:
    locations = [sandbox.add_location(requests=1000) for _ in range(20)]
    job = workers.job(*locations, requests=25, seconds=13, callers=1)
    reports = workers.run(replace(job, limits=Limits(25, 10.0, 1_000_000, interactive=0)), processes=2)
    for location in locations:
        limit_was_kept(sandbox, location, reports, 25)
        assert sandbox.stats(location.id)["requests"] > 25


def test_even_processes_that_are_overloaded_send_no_more_than_the_limit(sandbox: Sandbox, workers: Workers) -> None:
    """500 requests in a second are more than this machine may manage, so what counts is when they left.

    When they arrive is then up to the server's queue, which can hold one of them back for longer than the guard.
    """
    locations = [sandbox.add_location(requests=1000, time_scale=SCALE) for _ in range(20)]
    reports = workers.run(workers.job(*locations, requests=25, seconds=9, callers=2), processes=2)
    for location in locations:
        sent = sorted(at for report in reports for at in report.sent[location.id])
        assert min(later - earlier for earlier, later in zip(sent, sent[25:], strict=False)) >= INTERVAL_SECONDS
        assert len(sent) > 25


def test_a_limit_known_only_from_the_headers_is_kept_from_the_first_answer_on(
    sandbox: Sandbox, workers: Workers
) -> None:
    location = sandbox.add_location(requests=25, time_scale=SCALE)
    (report,) = workers.run(workers.job(location, requests=90, seconds=5, interactive=5), processes=1)
    stats = sandbox.stats(location.id)
    assert stats["refused_429"] == 0
    assert 25 < stats["requests"] <= 50
    assert report.calls == stats["requests"]


def test_after_a_storm_of_refusals_hardly_one_more_is_refused(sandbox: Sandbox, workers: Workers) -> None:
    location = sandbox.add_location(requests=1000, time_scale=SCALE)
    job = workers.job(location, requests=100, seconds=8)
    started = [start_worker(job) for _ in range(2)]
    while sandbox.stats(location.id)["requests"] < 50:
        time.sleep(0.02)
    sandbox.faults(location.id, storm_seconds=1.0)
    time.sleep(1.5)
    in_storm = sandbox.stats(location.id)
    for worker in started:
        report_of(worker)
    stats = sandbox.stats(location.id)
    after = stats["requests"] - in_storm["requests"]
    assert in_storm["refused_429"] > 0
    assert after > 50
    assert stats["refused_429"] - in_storm["refused_429"] <= after * 0.01
    assert stats["highest_in_window"] <= 100


def test_interactive_work_beside_a_backfill_gets_its_slots_at_once(
    sandbox: Sandbox, workers: Workers, engine: Engine
) -> None:
    location = sandbox.add_location(requests=100)  # in 10 s, as GHL has it
    limits = Limits(100, 10.0, 1_000_000, interactive=5)
    backfill = start_worker(replace(workers.job(location, requests=100, seconds=6), limits=limits))
    while sandbox.stats(location.id)["requests"] < 95:
        time.sleep(0.02)
    own = replace(workers.job(location, requests=100, seconds=1.5, callers=1), limits=limits)
    one_lead = asyncio.run(work(replace(own, interactive=True, pause_seconds=0.1), engine))
    another_backfill = asyncio.run(work(own, engine))
    report_of(backfill)
    assert len(one_lead.waits) == 5
    assert max(one_lead.waits) < 1
    assert another_backfill.waits == []
    assert sandbox.stats(location.id)["refused_429"] == 0
