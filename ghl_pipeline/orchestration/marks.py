"""How far something has gone through Dagster's tables: rows of Dagster's own store of cursors, one for each name."""

from sqlalchemy import Connection, text


def mark(connection: Connection, name: str) -> str | None:
    """The value that was written last under the name; None before the first."""
    query = text("SELECT value FROM kvs WHERE key = :name")
    value: str | None = connection.execute(query, {"name": name}).scalar_one_or_none()
    return value


def set_mark(connection: Connection, name: str, value: str) -> None:
    """Writes it, in the transaction of the work that it stands for."""
    statement = text("""
        INSERT INTO kvs (key, value) VALUES (:name, :value)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value
    """)
    connection.execute(statement, {"name": name, "value": value})
