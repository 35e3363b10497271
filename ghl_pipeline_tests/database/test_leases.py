"""One process at a time works on a location, and a dead one is in nobody's way."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import URL, Engine, select, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.database.leases import LeasesLost, LocationLeases
from ghl_pipeline.database.tables import location_leases
from ghl_pipeline.errors import DatabaseUnavailable, LocationBusy

LOCATION, OTHER = "ve9EPM428h8vShlRW1KT", "otherLocation0000001"


def written(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        columns = (location_leases.c.location_id, location_leases.c.holder)
        return {row.location_id: row.holder for row in connection.execute(select(*columns))}


def cut_the_connection(engine: Engine, leases: LocationLeases) -> None:
    """End the lease connection's session on the server, as a network failure or an administrator would."""
    assert leases._connection is not None
    pid = leases._connection.execute(text("SELECT pg_backend_pid()")).scalar()
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_a_second_holder_is_told_who_works_there_since_when_and_what_to_do(engine: Engine) -> None:
    with LocationLeases(engine) as first, LocationLeases(engine) as second:
        first.acquire(LOCATION, "backfill, run 6f1f2b1e")
        second.acquire(OTHER, "sync-lead")
        with pytest.raises(
            LocationBusy,
            match=rf"{LOCATION} is being worked on by backfill, run 6f1f2b1e since 20\d\d-\d\d-\d\d [\d:]+ UTC. Wait",
        ):
            second.acquire(LOCATION, "sync-lead")
        assert written(engine) == {LOCATION: "backfill, run 6f1f2b1e", OTHER: "sync-lead"}
        first.release(LOCATION)
        second.acquire(LOCATION, "sync-lead")
        assert written(engine) == {LOCATION: "sync-lead", OTHER: "sync-lead"}
    assert written(engine) == {}


def test_the_same_process_is_refused_a_location_it_holds(engine: Engine) -> None:
    with LocationLeases(engine) as leases:
        leases.acquire(LOCATION, "nightly")
        with pytest.raises(LocationBusy, match="nightly"):
            leases.acquire(LOCATION, "by hand")
        leases.release(LOCATION)
        leases.release(LOCATION)
        leases.acquire(LOCATION, "by hand")
        with LocationLeases(engine) as others, pytest.raises(LocationBusy, match="by hand"):
            others.acquire(LOCATION, "nightly")


def test_of_many_threads_one_gets_the_location(engine: Engine) -> None:
    barrier = threading.Barrier(8)
    with LocationLeases(engine) as leases:

        def try_it(number: int) -> int:
            barrier.wait(10)
            with contextlib.suppress(LocationBusy):
                leases.acquire(LOCATION, f"thread {number}")
                return 1
            return 0

        for _ in range(10):
            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(try_it, range(8))) == 1
            leases.release(LOCATION)


HOLDER = """
import sys
from sqlalchemy import make_url
from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.database.leases import LocationLeases
leases = LocationLeases(create_engine(make_url(sys.stdin.readline().strip())))
leases.acquire(sys.argv[1], "the child")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holding_process(database_url: URL) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `LOCATION`."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, LOCATION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(database_url.render_as_string(hide_password=False) + "\n")
    child.stdin.flush()
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_killed_holder_frees_its_location_at_once(engine: Engine, holding_process: subprocess.Popen[str]) -> None:
    with LocationLeases(engine) as leases:
        with pytest.raises(LocationBusy, match="the child"):
            leases.acquire(LOCATION, "this test")
        os.kill(holding_process.pid, signal.SIGKILL)
        holding_process.wait(10)
        killed = time.monotonic()
        while True:
            try:
                leases.acquire(LOCATION, "this test")
                break
            except LocationBusy:
                assert time.monotonic() - killed < 5
                time.sleep(0.01)
        assert written(engine) == {LOCATION: "this test"}


def test_a_row_that_a_dead_holder_left_blocks_nobody(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(location_leases.insert().values(location_id=LOCATION, holder="long dead"))
        connection.execute(text("UPDATE location_leases SET acquired_at = '2020-01-01'"))
    with LocationLeases(engine) as leases, LocationLeases(engine) as others:
        leases.acquire(LOCATION, "alive")
        with pytest.raises(LocationBusy, match=r"alive since 20(?!20)"):
            others.acquire(LOCATION, "late")


def test_a_holder_that_has_not_signed_yet_is_respected_too(engine: Engine) -> None:
    with LocationLeases(engine) as leases, LocationLeases(engine) as others:
        leases.acquire(LOCATION, "quick")
        with engine.begin() as connection:
            connection.execute(location_leases.delete())
        with pytest.raises(LocationBusy, match="another process"):
            others.acquire(LOCATION, "late")


def test_a_lost_connection_is_noticed_and_the_next_holder_keeps_its_row(engine: Engine) -> None:
    with LocationLeases(engine) as leases, LocationLeases(engine) as others:
        assert not leases.lost()
        leases.acquire(LOCATION, "first")
        leases.check()
        assert not leases.lost()
        cut_the_connection(engine, leases)
        assert leases.lost()
        with pytest.raises(LeasesLost, match=f"1 location.*{LOCATION}.*start again"):
            leases.check()
        with pytest.raises(LeasesLost):
            leases.acquire(OTHER, "first")
        others.acquire(LOCATION, "second")
        leases.release(LOCATION)
        assert written(engine) == {LOCATION: "second"}
        leases.acquire(OTHER, "first again")
        assert not leases.lost()
        with pytest.raises(LocationBusy, match="second"):
            leases.acquire(LOCATION, "first")


def test_closing_after_the_connection_was_lost_leaves_the_next_holders_row(engine: Engine) -> None:
    leases = LocationLeases(engine)
    leases.acquire(LOCATION, "first")
    cut_the_connection(engine, leases)
    with LocationLeases(engine) as others:
        others.acquire(LOCATION, "second")
        leases.close()
        leases.close()
        assert written(engine) == {LOCATION: "second"}


def test_an_idle_connection_that_broke_is_replaced(engine: Engine) -> None:
    with LocationLeases(engine) as leases:
        leases.acquire(LOCATION, "first")
        leases.release(LOCATION)
        cut_the_connection(engine, leases)
        leases.acquire(LOCATION, "second")


def test_the_lease_connection_is_not_taken_from_the_pool(database_url: URL) -> None:
    engine = create_engine(database_url, pool_size=1)
    with LocationLeases(engine) as leases:
        leases.acquire(LOCATION, "first")
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


def test_a_database_that_does_not_answer_is_said_to_be_unavailable(database_url: URL) -> None:
    engine = create_engine(database_url.set(port=1))
    with LocationLeases(engine) as leases, pytest.raises(DatabaseUnavailable, match=":1 cannot be reached"):
        leases.acquire(LOCATION, "first")
    engine.dispose()
