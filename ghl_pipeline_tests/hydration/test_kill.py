"""Runs that are killed or stopped, and go on: the rows of an uninterrupted run, nothing asked twice for no reason."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.locations.learning import record_survey
from ghl_pipeline.sandbox.agency import SampleLocation
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency, lead_rows
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import prefer_lookups, strangers

PAGE = 20
GROUP = 10
SMALL_TO_PULL = 4_000
CALLS_PER_KILL = 2  # a page of a pull is asked for while the one before is stored, and a kill costs both
WAIT_SECONDS = 60


@pytest.fixture
def location(engine: Engine, project: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> SampleLocation:
    """One location of 150 leads, looked up in small groups and worked on in small pages."""
    monkeypatch.setenv("HYDRATION_PAGE_SIZE", str(PAGE))
    sample = add_sample_agency(engine, project, sandbox, locations=1, leads=150).locations[0]
    prefer_lookups(engine, sample.id, GROUP)
    return sample


@pytest.fixture
def large_location(location: SampleLocation, engine: Engine, sandbox: Sandbox) -> SampleLocation:
    """The same leads among 4,000 contacts: pulling those takes nine calls, looking the leads up in tens fourteen."""
    sandbox.world.locations[location.id].load(strangers(4000))
    record_survey(engine, location.id, Survey(SMALL_TO_PULL, {GROUP: GroupAnswer.RIGHT}, case_matters=False))
    return location


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
    """The rows that an uninterrupted run leaves; everything is put back as it was before it."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE leads_before AS TABLE leads"))
        connection.execute(text("CREATE TABLE learned_before AS TABLE location_learning"))
    run_to_the_end()
    rows = lead_rows(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE work_lists, lead_lookups, location_learning, location_throttle CASCADE"))
        connection.execute(text("DELETE FROM leads"))
        connection.execute(text("INSERT INTO leads OVERRIDING SYSTEM VALUE TABLE leads_before"))
        connection.execute(text("INSERT INTO location_learning TABLE learned_before"))
        connection.execute(text("DROP TABLE leads_before, learned_before"))
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
    with backfill() as process, engine.connect() as person:
        # Somebody has the last lead open, so that the run stands in the middle of writing its last page.
        wait_until(lambda: last_listed(engine) is not None, process)
        person.execute(text("SELECT id FROM leads WHERE id = :id FOR UPDATE"), {"id": last_listed(engine)})
        wait_until(lambda: somebody_waits_for_a_row(engine), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        person.rollback()
    assert looked_up(engine) == location.eligible
    assert 0 < written(engine) < location.eligible
    asked = sandbox.stats(location.id)["requests"]
    run_to_the_end()
    assert lead_rows(engine) == uninterrupted
    assert sandbox.stats(location.id)["requests"] == asked


def last_listed(engine: Engine) -> int | None:
    with engine.connect() as connection:
        last = connection.execute(text("SELECT lead_id FROM work_items ORDER BY position DESC LIMIT 1")).scalar()
    return None if last is None else int(last)


def written(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT written FROM work_lists")).scalar_one())


def somebody_waits_for_a_row(engine: Engine) -> bool:
    waiting = text("""
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')
    """)
    with engine.connect() as connection:
        return bool(connection.execute(waiting).scalar_one())


def pulled(engine: Engine) -> int:
    """Contacts of the pull that are stored."""
    with engine.connect() as connection:
        received = connection.execute(text("SELECT CAST(plan ->> 'received' AS integer) FROM work_lists")).scalar()
    return int(received or 0)


def has_pulled(engine: Engine, contacts: int) -> bool:
    return pulled(engine) >= contacts


@pytest.mark.slow
def test_a_pull_that_is_killed_again_and_again_goes_on_where_it_was(
    large_location: SampleLocation, engine: Engine, sandbox: Sandbox
) -> None:
    sandbox.world.reset_statistics()
    uninterrupted = undone(engine)
    calls = sandbox.stats(large_location.id)["requests"]
    contacts = len(sandbox.world.locations[large_location.id].contacts.by_id)
    sandbox.world.reset_statistics()
    sandbox.faults(latency_seconds=0.15)
    kills = (1000, 2500)
    for reached in kills:
        with backfill() as process:
            wait_until(partial(has_pulled, engine, reached), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert reached <= pulled(engine) < contacts
        assert looked_up(engine) == 0
    sandbox.faults()
    run_to_the_end()
    assert lead_rows(engine) == uninterrupted
    assert sandbox.stats(large_location.id)["requests"] <= calls + CALLS_PER_KILL * len(kills)
    with engine.connect() as connection:
        plan = connection.execute(text("SELECT plan FROM work_lists")).scalar_one()
        assert connection.execute(text("SELECT count(*) FROM pulled_contacts")).scalar() == 0
    # Every contact was received, and stored, once.
    assert (plan["way"], plan["received"]) == ("scan", contacts)


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
