"""A lock by name, over all processes. It ends with the session that holds it, so a killed process leaves none."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ghl_pipeline.database.connection import unavailable


@contextlib.contextmanager
def advisory_lock(engine: Engine, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Holds PostgreSQL's advisory lock of this name for the time of the block.

    The lock lives in a connection of its own, outside any transaction, so it may be held during slow calls.

    Args:
        engine: of the database in which the name counts.
        name: what is locked, such as "messages of location abc".
        wait: for the process that holds it, as long as the statement timeout allows.

    Returns:
        Whether it is held; always true with `wait`.

    Raises:
        DatabaseUnavailable: no connection could be made.
    """
    key = func.hashtextextended(name, 0)
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError as error:
        raise unavailable(engine.url, error) from None
    # Out of the pool: closing it ends the session, and the lock with it, whatever state it is in.
    connection.detach()
    try:
        if wait:
            connection.execute(select(func.pg_advisory_lock(key)))
            yield True
        else:
            yield bool(connection.execute(select(func.pg_try_advisory_lock(key))).scalar_one())
    finally:
        with contextlib.suppress(SQLAlchemyError):
            connection.close()
