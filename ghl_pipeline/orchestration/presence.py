"""Whether a run is being executed right now, wherever: a lock by the run's id that ends with its process.

The lock lives in the dashboard database, in a session of its own. `kill -9` frees it at once; a machine that lost power
or its network, after a minute (TCP keepalives). So it says what a queue cannot: that the one who took the run is gone.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ghl_pipeline.database.locks import AdvisoryLocks, is_held
from ghl_pipeline.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

# A restarted database forgets all locks. The presence is back before anybody who looks twice believes it gone
# (`celery_launcher.GONE_FOR_SECONDS`).
LOOK_EVERY_SECONDS = 3.0


@contextmanager
def present(engine: Engine, run_id: str) -> Iterator[bool]:
    """Is present for the time of the block; yields False when another process executes the run already.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    locks = AdvisoryLocks(engine)
    name = _name(run_id)
    if not locks.try_acquire(name):
        yield False
        return
    ended = threading.Event()
    keeper = threading.Thread(target=_stay, args=(locks, name, ended), name="presence", daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        ended.set()
        keeper.join()
        locks.release(name)


def is_present(engine: Engine, run_id: str) -> bool:
    """Whether some process executes the run."""
    with engine.connect() as connection:
        return is_held(connection, _name(run_id))


def _stay(locks: AdvisoryLocks, name: str, ended: threading.Event) -> None:
    """Takes the lock again whenever the connection that held it broke."""
    while not ended.wait(LOOK_EVERY_SECONDS):
        try:
            if locks.lost():
                locks.release(name)
                locks.try_acquire(name)
            elif not locks.holds(name):
                locks.try_acquire(name)
        except (DatabaseUnavailable, SQLAlchemyError):
            log.warning("the database does not answer, so the presence of a run cannot be kept; it is tried again")


def _name(run_id: str) -> str:
    return f"execution of run {run_id}"
