"""One process works on a location at a time: leases that end with the process that holds them.

A lease is a session-level advisory lock of PostgreSQL, so `kill -9`, a crash or a closed laptop frees it without a
timeout to guess. The table `location_leases` only says who, for people; a row that a killed process left there blocks
nobody. How long a lease is held, and what is done meanwhile, is the caller's business.

Needs a direct connection: a pooler in transaction mode (PgBouncer) would hand the lock's session to others.
"""

import contextlib
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import TracebackType

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.database.tables import location_leases
from ghl_pipeline.errors import DatabaseUnavailable, LocationBusy

# Of this session only. The first three let the server notice within a minute that the machine at the other end is gone
# (two hours otherwise), the last that sitting idle between two acquisitions is what this connection is for.
_SESSION_SETTINGS = (
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
    "SET idle_session_timeout = 0",
)


class LeasesLost(DatabaseUnavailable):
    """The connection that held the leases broke, so another process may be working on the same locations."""


class LocationLeases:
    """The leases that this process holds, on one connection of their own.

    Thread-safe; every method is a short blocking call (`asyncio.to_thread` it). The connection is opened by the first
    `acquire`, does not count against the engine's pool, and is closed by `close()` or the end of a `with` block.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._held: set[str] = set()

    def __enter__(self) -> "LocationLeases":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acquire(self, location_id: str, holder: str) -> None:
        """Take the location's lease, or fail at once.

        Args:
            location_id: the GHL location.
            holder: who takes it, as a person should read it ("backfill, run 6f1f2b1e, host worker-1").

        Raises:
            LocationBusy: somebody holds it, this process included; the text says who and since when.
            LeasesLost: leases held earlier are lost; nothing new is taken before they are released.
            DatabaseUnavailable: the database does not answer.
        """
        with self._guard:
            connection = self._usable_connection()
            with self._answering():
                # PostgreSQL would grant a session its own lock again, so what is held is asked first.
                if (
                    location_id in self._held
                    or not connection.execute(select(func.pg_try_advisory_lock(_key(location_id)))).scalar()
                ):
                    raise self._busy(connection, location_id)
                # From here on it counts as held, so that `close` frees it should the next statement fail.
                self._held.add(location_id)
                row = insert(location_leases).values(location_id=location_id, holder=holder)
                # The row of a holder that was killed is taken over.
                connection.execute(
                    row.on_conflict_do_update(
                        index_elements=["location_id"], set_={"holder": row.excluded.holder, "acquired_at": func.now()}
                    )
                )

    def release(self, location_id: str) -> None:
        """Give the lease back. Does nothing if it is not held, and nothing but forget it if the connection is lost."""
        with self._guard:
            if location_id not in self._held:
                return
            self._held.discard(location_id)
            connection = self._connection
            if connection is None or not self._alive():
                return  # the server freed it; by now the row may be another holder's
            with self._answering():
                # First the row, then the lock: the other way round, the next holder's row could be deleted.
                connection.execute(delete(location_leases).where(location_leases.c.location_id == location_id))
                connection.execute(select(func.pg_advisory_unlock(_key(location_id))))

    def lost(self) -> bool:
        """Whether leases are held that the database no longer knows of. Asks the database, about 0.2 ms."""
        with self._guard:
            return bool(self._held) and not self._alive()

    def check(self) -> None:
        """Like `lost`, for use between two steps of the work.

        Raises:
            LeasesLost: stop the work before it writes.
        """
        with self._guard:
            if self._held and not self._alive():
                raise _lost(self._held)

    def close(self) -> None:
        """Release everything and close the connection. May be called again, and does not fail on a lost connection."""
        with self._guard:
            if self._connection is not None and self._held:
                rows = delete(location_leases).where(location_leases.c.location_id.in_(self._held))
                with contextlib.suppress(SQLAlchemyError):  # a lost connection has no rows of ours to delete
                    self._connection.execute(rows)
            self._held.clear()
            self._disconnect()

    def _usable_connection(self) -> Connection:
        """The connection, opened or, if nothing was held on the broken one, opened again."""
        if self._connection is not None and not self._alive():
            if self._held:
                raise _lost(self._held)
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise unavailable(self._engine.url, error) from None
        connection.detach()  # out of the pool: closing it ends the session, and the locks with it
        with self._answering():
            for statement in _SESSION_SETTINGS:
                connection.execute(text(statement))
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def _alive(self) -> bool:
        # SQLAlchemy would open an invalidated connection anew: alive, and without our locks.
        if self._connection is None or self._connection.invalidated:
            return False
        try:
            self._connection.execute(select(literal(1)))
        except SQLAlchemyError:
            return False
        return True

    def _busy(self, connection: Connection, location_id: str) -> LocationBusy:
        row = connection.execute(
            select(location_leases.c.holder, location_leases.c.acquired_at).where(
                location_leases.c.location_id == location_id
            )
        ).one_or_none()
        # The holder writes its row just after it got the lock.
        holder = "another process" if row is None else f"{row.holder} since {row.acquired_at:%Y-%m-%d %H:%M:%S} UTC"
        return LocationBusy(
            f"Location {location_id} is being worked on by {holder}. Wait until that ends, or stop it, and start again."
        )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise unavailable(self._engine.url, error) from None


def _lost(held: Collection[str]) -> LeasesLost:
    return LeasesLost(
        f"The database connection that held the leases of {len(held)} location(s) broke: {', '.join(sorted(held))}. "
        "Another process may work on them now, so this one stops. Check the database and start again."
    )


def _key(location_id: str) -> ColumnElement[int]:
    return func.hashtextextended(f"lease of location {location_id}", 0)
