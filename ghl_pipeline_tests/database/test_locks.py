"""Locks by name: one holder over all processes, one session for as many as are held, and none left by the dead."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.database.locks import AdvisoryLocks, LocksLost
from ghl_pipeline.errors import DatabaseUnavailable

NAMES = [f"messages of location {number}" for number in range(40)]


def sessions(engine: Engine) -> int:
    """Sessions of this database that hold advisory locks."""
    query = text("""
        SELECT count(DISTINCT pid) FROM pg_locks
        WHERE locktype = 'advisory' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """)
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def cut_the_connection(engine: Engine, locks: AdvisoryLocks) -> None:
    """Ends the session of the locks on the server, as a network failure or an administrator would."""
    assert locks._connection is not None
    pid = locks._connection.execute(text("SELECT pg_backend_pid()")).scalar()
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_a_lock_has_one_holder_until_it_is_given_back(engine: Engine) -> None:
    ours, theirs = AdvisoryLocks(engine), AdvisoryLocks(engine)
    assert ours.try_acquire("a")
    assert not ours.try_acquire("a")
    assert not theirs.try_acquire("a")
    assert theirs.try_acquire("b")
    ours.release("b")  # not ours to give back
    assert not ours.try_acquire("b")
    ours.release("a")
    ours.release("a")
    assert theirs.try_acquire("a")
    theirs.release("a")
    theirs.release("b")
    assert sessions(engine) == 0


def test_a_block_says_whether_it_has_the_lock_and_ends_only_its_own(engine: Engine) -> None:
    locks = AdvisoryLocks(engine)
    with locks.hold("a") as first:
        with locks.hold("a") as second:
            assert (first, second) == (True, False)
        assert not AdvisoryLocks(engine).try_acquire("a")
    with locks.hold("a") as again:
        assert again


def test_all_locks_live_in_one_session_that_ends_with_the_last(engine: Engine) -> None:
    locks = AdvisoryLocks(engine)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(locks.try_acquire, NAMES))
        assert sessions(engine) == 1
        assert not any(threads.map(AdvisoryLocks(engine).try_acquire, NAMES))
        list(threads.map(locks.release, NAMES[1:]))
        assert sessions(engine) == 1
        assert AdvisoryLocks(engine).try_acquire(NAMES[0]) is False
    locks.release(NAMES[0])
    assert sessions(engine) == 0


def test_of_many_that_want_a_lock_one_gets_it(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as threads:
        all_of_them = [AdvisoryLocks(engine) for _ in range(8)]
        assert sum(threads.map(lambda locks: locks.try_acquire("a"), all_of_them)) == 1
    for locks in all_of_them:
        locks.release("a")


def test_a_lost_session_is_noticed_and_nothing_new_is_taken_before_the_lost_locks_are_given_back(
    engine: Engine,
) -> None:
    ours, theirs = AdvisoryLocks(engine), AdvisoryLocks(engine)
    assert ours.try_acquire("a")
    assert ours.try_acquire("b")
    cut_the_connection(engine, ours)
    assert theirs.try_acquire("a")
    with pytest.raises(LocksLost, match=r"held 2 lock\(s\) broke"):
        ours.try_acquire("c")
    ours.release("a")
    with pytest.raises(LocksLost):
        ours.try_acquire("c")
    ours.release("b")
    assert ours.try_acquire("c")
    assert not ours.try_acquire("a")  # whose it is by now is nothing that our release changed
    ours.release("c")
    theirs.release("a")


def test_a_database_that_is_away_is_named(engine: Engine) -> None:
    nobody = create_engine(engine.url.set(port=1))
    with pytest.raises(DatabaseUnavailable):
        AdvisoryLocks(nobody).try_acquire("a")


def test_a_lock_that_was_given_back_is_free_at_once(engine: Engine) -> None:
    """Not when the server has noticed that the session of the last lock is closed."""
    for _ in range(200):
        locks = AdvisoryLocks(engine)
        assert locks.try_acquire("a")
        locks.release("a")
