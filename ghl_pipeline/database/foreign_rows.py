"""Whether tables that are not the pipeline's refer to a row: the dashboard may keep notes or tasks of a lead."""

from collections.abc import Collection

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_array
from ghl_pipeline.database.tables import metadata


def has_foreign_rows(connection: Connection, table: str, ids: Collection[int]) -> bool:
    """Whether a table of somebody else's has a foreign key on any of these rows, whatever it does on a delete.

    A delete would be refused by some of them, and others would lose their own rows with it without a word.

    Args:
        connection: reads only.
        table: of ours, whose key is `id`.
        ids: of its rows.

    Raises:
        ProgrammingError: such a table may not be read.
    """
    references = text("""
        SELECT DISTINCT refers.conrelid::regclass::text AS name, quote_ident(attribute.attname) AS attribute
        FROM pg_constraint AS refers
        CROSS JOIN LATERAL unnest(refers.conkey, refers.confkey) AS pair (theirs, ours)
        JOIN pg_attribute AS attribute ON attribute.attrelid = refers.conrelid AND attribute.attnum = pair.theirs
        JOIN pg_attribute AS key ON key.attrelid = refers.confrelid AND key.attnum = pair.ours AND key.attname = 'id'
        WHERE refers.contype = 'f' AND refers.confrelid = CAST(:table AS regclass)
          AND refers.conrelid <> ALL(ARRAY(
              SELECT to_regclass(own) FROM unnest(CAST(:own AS text[])) AS own WHERE to_regclass(own) IS NOT NULL))
    """)
    if not ids:
        return False
    for row in connection.execute(references, {"table": table, "own": list(metadata.tables)}).all():
        # Names as PostgreSQL quotes them.
        query = text(f"SELECT EXISTS (SELECT FROM {row.name} WHERE {row.attribute} = ANY(CAST(:ids AS bigint[])))")  # noqa: S608
        if connection.execute(query, {"ids": as_array(ids)}).scalar_one():
            return True
    return False
