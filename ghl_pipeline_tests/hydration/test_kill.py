"""Runs that are killed or stopped, and go on: the rows of an uninterrupted run, nothing asked twice for no reason."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import Engine, text

from ghl_pipeline.sandbox.agency import SampleLocation
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency, lead_rows
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

PAGE = 20
GROUP = 10
WAIT_SECONDS = 60


@pytest.fixture
def location(engine: Engine, project: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> SampleLocation:
    """One location of 150 leads, worked on in small pages."""
    monkeypatch.setenv("HYDRATION_PAGE_SIZE", str(PAGE))
    monkeypatch.setenv("HYDRATION_GROUP_SIZE", str(GROUP))
    return add_sample_agency(engine, project, sandbox, locations=1, leads=150).locations[0]


@contextmanager
def backfill() -> Iterator[subprocess.Popen[bytes]]:
    """`ghl-pipeline backfill` as a process of its own, with an interrupt that is not ignored."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from ghl_pipeline.cli.app import main; main()"
    )
    command = [sys.executable, "-c", program, "backfill", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not true():
        assert process.poll() is None, f"ended early: {process.stderr and process.stderr.read().decode()}"
        assert time.monotonic() < give_up_at, "never got there"
        time.sleep(0.01)


def looked_up(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT coalesce(sum(looked_up), 0) FROM work_lists")).scalar_one())


def run_to_the_end() -> None:
    with backfill() as process:
        _, errors = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, errors.decode()


def undone(engine: Engine) -> list[tuple[object, ...]]:
    """The rows that an uninterrupted run leaves; the leads are put back as they were before it."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE leads_before AS TABLE leads"))
    run_to_the_end()
    rows = lead_rows(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE work_lists, lead_lookups, location_learning, location_throttle CASCADE"))
        connection.execute(text("DELETE FROM leads"))
        connection.execute(text("INSERT INTO leads OVERRIDING SYSTEM VALUE TABLE leads_before"))
        connection.execute(text("DROP TABLE leads_before"))
    return rows


@pytest.mark.slow
def test_a_killed_backfill_resumes_without_asking_twice(
    location: SampleLocation, engine: Engine, sandbox: Sandbox, instance: DagsterInstance
) -> None:
    uninterrupted = undone(engine)
    sandbox.world.reset_statistics()
    sandbox.faults(latency_seconds=0.15)
    with backfill() as process:
        wait_until(lambda: looked_up(engine) >= 2 * PAGE, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert looked_up(engine) < location.eligible
    sandbox.faults()
    run_to_the_end()
    assert lead_rows(engine) == uninterrupted
    lookups = sandbox.stats(location.id)["lookups"]
    # A lead whose link is dead is asked for by both, so each is bounded by the page in flight.
    assert lookups["email"]["repeated"] <= PAGE
    assert lookups["id"]["repeated"] <= PAGE
    # The killed run is not left as running for ever: it would keep a place in the queue.
    assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])) == 0


@pytest.mark.slow
def test_a_run_killed_while_it_writes_back_ends_with_the_same_rows(
    location: SampleLocation, engine: Engine, sandbox: Sandbox
) -> None:
    uninterrupted = undone(engine)
    sandbox.world.reset_statistics()
    with engine.connect() as blocker:
        # Somebody edits the last lead while the run writes back, so that it stands in the middle of the write-back.
        last = "SELECT lead_id FROM work_items ORDER BY position DESC LIMIT 1"
        with backfill() as process:
            wait_until(lambda: looked_up(engine) >= location.eligible - PAGE, process)
            blocker.execute(text(f"SELECT id FROM leads WHERE id = ({last}) FOR UPDATE"))
            wait_until(lambda: some_written_but_not_all(engine, location.eligible), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        blocker.rollback()
    asked = sandbox.stats(location.id)["requests"]
    run_to_the_end()
    assert lead_rows(engine) == uninterrupted
    assert sandbox.stats(location.id)["requests"] == asked


def some_written_but_not_all(engine: Engine, eligible: int) -> bool:
    with engine.connect() as connection:
        written = connection.execute(text("SELECT coalesce(sum(written), 0) FROM work_lists")).scalar_one()
    return 0 < int(written) < eligible


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_keeps_the_resume_point(
    location: SampleLocation, engine: Engine, sandbox: Sandbox, instance: DagsterInstance
) -> None:
    sandbox.faults(latency_seconds=0.15)
    with backfill() as process:
        wait_until(lambda: looked_up(engine) >= 2 * PAGE, process)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert errors.decode().strip() == (
        "Stopped. What was done is kept; run the same command again to go on from there."
    )
    (run,) = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.CANCELED
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM location_attempts")).scalars().all() == ["interrupted"]
        assert connection.execute(text("SELECT count(*) FROM location_leases")).scalar() == 0
    sandbox.faults()
    run_to_the_end()
    lookups = sandbox.stats(location.id)["lookups"]
    # A lead whose link is dead is asked for by both, so each is bounded by the page in flight.
    assert lookups["email"]["repeated"] <= PAGE
    assert lookups["id"]["repeated"] <= PAGE
