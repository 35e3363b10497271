"""Every encrypted value of the database, and moving them all to the newest key.

A column is encrypted when its name ends in `_encrypted`; there is no list that could lack one. Values are moved in
batches, each in a transaction of its own, and each only if it still is what was read: a token that somebody stores
meanwhile wins. Whatever was moved before an interruption is under the newest key, so doing it again goes on from there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Column, Connection, Engine, select, text

from ghl_pipeline.database.connection import opened
from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.database.tables import metadata
from ghl_pipeline.privacy.tokens import TokenCipher

SUFFIX = "_encrypted"
BATCH = 500

# First statement of a transaction that changes a stored token for nobody: one that has run out is deleted, one is
# encrypted anew. By `updated_at`, work that waits for a person is tried again; with this the triggers of migration 0008
# leave it alone.
KEEPS_TIME = text("SELECT set_config('ghl_pipeline.keeps_time', 'on', true)")


@dataclass(slots=True)
class KeysOfColumn:
    """How many values of a column are under which key; 1 is the newest. `unreadable` are under none."""

    column: str
    by_key: Counter[int] = field(default_factory=Counter)
    unreadable: int = 0

    @property
    def behind(self) -> int:
        """Values that are not under the newest key, and could be."""
        return sum(count for position, count in self.by_key.items() if position > 1)


def encrypted_columns() -> list[Column[str]]:
    """The columns, by table and name."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    return [column for table in tables for column in table.columns if column.name.endswith(SUFFIX)]


def count_by_key(engine: Engine, cipher: TokenCipher) -> list[KeysOfColumn]:
    """Under which keys the stored values are, column by column. Changes nothing.

    Raises:
        DatabaseUnavailable: no connection.
    """
    counts = []
    for column in encrypted_columns():
        told = KeysOfColumn(f"{column.table.name}.{column.name}")
        with opened(engine) as connection:
            for page in _pages(connection, column, BATCH):
                for _, value in page:
                    position = cipher.position(value)
                    if position is None:
                        told.unreadable += 1
                    else:
                        told.by_key[position] += 1
        counts.append(told)
    return counts


def encrypt_anew(
    engine: Engine, cipher: TokenCipher, *, batch: int = BATCH, moved: Callable[[int], None] = lambda _: None
) -> int:
    """Encrypts every value that is under an older key with the newest. What no key can read is left as it is.

    Args:
        engine: of the dashboard database.
        cipher: with the new key first and every older one after it.
        batch: values in a transaction.
        moved: told after each transaction, how many it moved.

    Returns:
        How many values were moved.

    Raises:
        DatabaseUnavailable: no connection.
    """
    total = 0
    for column in encrypted_columns():
        with opened(engine) as connection:
            for page in _pages(connection, column, batch):
                count = _move(connection, column, cipher, page)
                connection.commit()
                total += count
                if count:
                    moved(count)
    return total


def _pages(connection: Connection, column: Column[str], size: int) -> Iterator[Sequence[tuple[int, str]]]:
    key = _key_of(column)
    query = select(key, column).where(column.is_not(None)).order_by(key).limit(size)
    after = None
    while True:
        found = connection.execute(query if after is None else query.where(key > after)).all()
        connection.rollback()  # nothing is kept open while the values are decrypted
        if not found:
            return
        after = found[-1][0]
        yield [(row[0], row[1]) for row in found]


def _move(connection: Connection, column: Column[str], cipher: TokenCipher, page: Sequence[tuple[int, str]]) -> int:
    rows = [
        {"id": row_id, "before": value, "after": cipher.rotate(value)}
        for row_id, value in page
        if (cipher.position(value) or 1) > 1
    ]
    if not rows:
        return 0
    # The names are the metadata's own.
    statement = text(f"""
        UPDATE {column.table.name} AS stored SET {column.name} = value.after
        FROM json_to_recordset(CAST(:rows AS json)) AS value (id bigint, before text, after text)
        WHERE stored.{_key_of(column).name} = value.id AND stored.{column.name} = value.before
    """)  # noqa: S608
    connection.execute(KEEPS_TIME)
    return connection.execute(statement, {"rows": as_json_rows(rows)}).rowcount


def _key_of(column: Column[str]) -> Column[int]:
    (key,) = column.table.primary_key.columns
    return key
