"""Locks by name, over all processes. They end with the session that holds them, so a killed process leaves none.

All locks of an `AdvisoryLocks` live in one session: with a session each, fifty locations under way needed a hundred
connections, which is what PostgreSQL allows all of its users together unless told otherwise.
"""

import contextlib
import threading
from collections.abc import Collection, Iterator

from sqlalchemy import ColumnElement, Connection, Engine, func, literal, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.errors import DatabaseUnavailable

# As for leases: the server notices within a minute that the machine at the other end is gone (two hours otherwise), and
# sitting idle is what this session is for.
_SESSION_SETTINGS = select(
    func.set_config("tcp_keepalives_idle", "30", False),
    func.set_config("tcp_keepalives_interval", "10", False),
    func.set_config("tcp_keepalives_count", "3", False),
    func.set_config("idle_session_timeout", "0", False),
)


class LocksLost(DatabaseUnavailable):
    """The connection that held the locks broke, so another process may hold them by now."""


class AdvisoryLocks:
    """PostgreSQL's advisory locks of these names, as many as one likes, held by one session.

    Thread-safe; every method is a short blocking call. The session is opened for the first lock and ends with the last,
    outside any transaction, so locks may be held during slow calls. It does not count against the engine's pool, and
    needs a direct connection: a pooler in transaction mode would hand it to others.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._held: set[str] = set()

    def try_acquire(self, name: str) -> bool:
        """Takes the lock of this name, such as "messages of location abc", unless somebody has it.

        Returns:
            Whether it is held now; False when somebody has it, the holder of this object included.

        Raises:
            LocksLost: locks taken earlier are lost; nothing new is taken before they are released.
            DatabaseUnavailable: no connection could be made.
        """
        with self._guard:
            # PostgreSQL would grant a session its own lock again.
            if name in self._held:
                return False
            connection = self._usable_connection()
            try:
                is_ours = bool(connection.execute(select(func.pg_try_advisory_lock(_key(name)))).scalar_one())
                if is_ours:
                    self._held.add(name)
            except DBAPIError as error:
                raise unavailable(self._engine.url, error) from None
            finally:
                if not self._held:
                    self._disconnect()
            return is_ours

    def release(self, name: str) -> None:
        """Gives the lock back. Does nothing if it is not held, and only forgets it if the connection is lost."""
        with self._guard:
            if name not in self._held:
                return
            self._held.discard(name)
            # Also before the session is closed: the server ends it a moment later, and whoever asks until then is told
            # that somebody has the lock.
            if self._connection is not None and self._is_alive():
                try:
                    self._connection.execute(select(func.pg_advisory_unlock(_key(name))))
                except SQLAlchemyError:
                    # It may still have the lock, so it has to end, and the other locks with it.
                    self._connection.invalidate()
            if not self._held:
                self._disconnect()

    def lost(self) -> bool:
        """Whether locks are held that the database no longer knows of. Asks the database, about 0.2 ms."""
        with self._guard:
            return bool(self._held) and not self._is_alive()

    def holds(self, name: str) -> bool:
        """Whether this object took the lock and did not release it; without asking the database."""
        with self._guard:
            return name in self._held

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Has the lock for the time of the block; yields whether it was to be had. Raises as `try_acquire`."""
        is_ours = self.try_acquire(name)
        try:
            yield is_ours
        finally:
            if is_ours:
                self.release(name)

    def _usable_connection(self) -> Connection:
        """The connection, opened or, if nothing was held on the broken one, opened again."""
        if self._connection is not None and not self._is_alive():
            if self._held:
                raise _lost(self._held)
            self._disconnect()
        if self._connection is None:
            try:
                connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                connection.detach()  # out of the pool: closing it ends the session, and the locks with it
                self._connection = connection
                connection.execute(_SESSION_SETTINGS)
            except DBAPIError as error:
                self._disconnect()
                raise unavailable(self._engine.url, error) from None
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def _is_alive(self) -> bool:
        # SQLAlchemy would open an invalidated connection anew: alive, and without our locks.
        if self._connection is None or self._connection.invalidated:
            return False
        try:
            self._connection.execute(select(literal(1)))
        except SQLAlchemyError:
            return False
        return True


def is_held(connection: Connection, name: str) -> bool:
    """Whether anybody has the lock of this name. Looks without taking it, so that whoever wants it is not turned away.

    The server splits a lock's key of 64 bits over two columns of `pg_locks`, which it marks with `objsubid` 1.
    """
    query = text("""
        SELECT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (classid::bigint << 32) | objid::bigint = hashtextextended(:name, 0))
    """)
    return bool(connection.execute(query, {"name": name}).scalar_one())


def _lost(held: Collection[str]) -> LocksLost:
    return LocksLost(
        f"The database connection that held {len(held)} lock(s) broke, so another process may be at the same work. "
        "Nothing new is begun until what is under way has ended. Check the database"
    )


def _key(name: str) -> ColumnElement[int]:
    return func.hashtextextended(name, 0)
