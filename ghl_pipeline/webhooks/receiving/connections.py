"""The receiver's connections: everything that it asks of the database ends soon, whatever becomes of the database.

The server ends a statement that takes too long and a wait for a lock. A server that hangs does neither, and the kernel
on its side goes on confirming what it is sent; so each wait for an answer is bounded here too.
"""

import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from sqlalchemy import URL, Dialect, Engine, event

from ghl_pipeline.database.connection import create_engine

T = TypeVar("T")

# One connection writes, one reads the senders, one answers for the health of the database, one reads for metrics.
CONNECTIONS: Final = 4
# The sender waits 15 s at most, so a dead database has to be noticed long before: what no answer comes to within this
# time is answered 503. 2 s is the least that libpq takes for connecting.
CONNECT_TIMEOUT_SECONDS: Final = 2
STATEMENT_TIMEOUT_SECONDS: Final = 3
# Events of all clients are stored together, so whoever keeps rows of one client keeps all of them waiting.
LOCK_TIMEOUT_SECONDS: Final = 1
# More than the server's own limit, whose answer says more.
ANSWER_WITHIN_SECONDS: Final = STATEMENT_TIMEOUT_SECONDS + 1.0


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when an answer does not come in time."""

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """As psycopg's; every wait for the server goes through it.

        Raises:
            OperationalError: no answer came in time. The connection is closed: nobody knows what it would say next.
        """
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, waits: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        give_up_at = time.monotonic() + ANSWER_WITHIN_SECONDS
        try:
            wanted = next(waits)
            while True:
                # psycopg comes by ten times a second, with nothing when there is nothing.
                ready = yield wanted
                if not ready and time.monotonic() > give_up_at:
                    self.close()
                    raise psycopg.OperationalError("the server did not answer in time")
                wanted = waits.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


def receiver_engine(url: URL) -> Engine:
    """An engine that gives up soon: on a lock, on a statement, on a server that hangs, and on one that vanished."""
    given = url.query.get("options", ())
    options = (given,) if isinstance(given, str) else given
    engine = create_engine(
        url.update_query_dict(
            {
                "tcp_user_timeout": str(STATEMENT_TIMEOUT_SECONDS * 1000),
                "options": " ".join((*options, f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s")),
            }
        ),
        pool_size=CONNECTIONS,
        connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
        statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def _connect(_: Dialect, __: object, arguments: list[Any], options: dict[str, Any]) -> BoundedConnection:
    return BoundedConnection.connect(*arguments, **options)
