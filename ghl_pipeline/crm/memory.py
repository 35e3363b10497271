"""What is remembered between runs: how each row's last lookup ended (`crm_lookups`), and how far the passes have come.

Written only when everything that a fetch brought is written: a run that fails leaves the memory as it was.
"""

from collections.abc import Collection

from sqlalchemy import Connection, text

from ghl_pipeline.crm.fetch_rules import Remembered
from ghl_pipeline.crm.fetched import Fetched, FetchMode
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side, asked_sql, remembered_sql, table_of
from ghl_pipeline.database.rows import as_array, as_json_list, as_json_rows


def load_remembered(connection: Connection, client_id: int) -> Remembered:
    """How far the client's passes have come, and the time at which the next one begins."""
    query = text("""
        SELECT clock_timestamp() AS now, crm.changes_seen_until, crm.full_pass_at
        FROM (SELECT CAST(:client_id AS bigint) AS client_id) AS asked
        LEFT JOIN crm_clients AS crm USING (client_id)
    """)
    row = connection.execute(query, {"client_id": client_id}).one()
    return Remembered(row.now, row.changes_seen_until, row.full_pass_at)


def remember(
    connection: Connection,
    client_id: int,
    identifiers: Identifiers,
    fetched: Fetched,
    again: Collection[tuple[Side, int]] = (),
) -> None:
    """Keeps what the fetch came to. To be called once all of it is written, in a transaction of the caller's.

    A row that is linked to a contact of the fetch counts as found by the identifiers it has now, also one that was
    linked or made by this run. Any other is remembered by what it was looked up by, and only if it has not changed
    since; one whose lookup failed is forgotten, so that the next run looks it up.

    Args:
        connection: in a transaction.
        client_id: whose.
        identifiers: as the fetch was given them.
        fetched: what it brought.
        again: rows that could not be written, so that the next run has to look them up again.
    """
    if fetched.mode is FetchMode.NOTHING:
        return
    for side in Side:
        _remember_rows(connection, client_id, side, identifiers, fetched)
        _forget(connection, client_id, side, [id_ for of, id_ in (*fetched.failed, *again) if of is side])
    if fetched.complete:
        _remember_pass(connection, client_id, fetched)


def _remember_rows(
    connection: Connection, client_id: int, side: Side, identifiers: Identifiers, fetched: Fetched
) -> None:
    told = [
        {"id": row.id, "asked": row.asked, "outcome": outcome}
        for row in (identifiers.vendors if side is Side.VENDOR else identifiers.leads)
        if (outcome := _outcome(row, fetched)) is not None
    ]
    upsert = text(f"""
        WITH told AS (
            SELECT * FROM json_to_recordset(CAST(:told AS json)) AS t (id bigint, asked text, outcome text)
        ), contact AS (
            SELECT json_array_elements_text(CAST(:contacts AS json)) AS id
        ), row AS (
            SELECT row.id, row.ghl_contact_id, {asked_sql(side, "row")} AS asked,
                   {remembered_sql(side, "row")} AS remembered
            FROM {table_of(side)} AS row
            WHERE row.client_id = :client_id
        )
        INSERT INTO crm_lookups AS lookup (client_id, side, row_id, asked, outcome, scanned, looked_up_at)
        SELECT :client_id, :side, row.id, row.remembered,
               CASE WHEN contact.id IS NULL THEN told.outcome ELSE 'found' END, :scanned, :began_at
        FROM row
        LEFT JOIN contact ON contact.id = btrim(row.ghl_contact_id)
        LEFT JOIN told ON told.id = row.id AND told.asked = row.asked
        WHERE contact.id IS NOT NULL OR told.id IS NOT NULL
        ON CONFLICT (client_id, side, row_id) DO UPDATE
        SET asked = excluded.asked, outcome = excluded.outcome, scanned = excluded.scanned,
            looked_up_at = excluded.looked_up_at
    """)  # noqa: S608 - the names are this package's own
    values = {
        "client_id": client_id,
        "side": side.value,
        "told": as_json_rows(told),
        "contacts": as_json_list(list(fetched.contacts)),
        "scanned": fetched.scanned,
        "began_at": fetched.began_at,
    }
    connection.execute(upsert, values)


def _outcome(row: KnownRow, fetched: Fetched) -> str | None:
    """What the lookup of a row came to that is not linked to what came; None for one that was not looked up.

    Somebody who came for it and is not the row's all the same (of several, or of the other side) is not found.
    """
    if row.contact_id in fetched.gone:
        return "gone"
    if row.key not in fetched.found and row.key not in fetched.not_found:
        return None
    # A contact that is gone is not asked for again for a while, and stays so until then.
    return "gone" if row.outcome == "gone" else "not_found"


def _forget(connection: Connection, client_id: int, side: Side, failed: list[int]) -> None:
    """Forgets rows whose lookup failed, and rows that are no more."""
    statement = text(f"""
        DELETE FROM crm_lookups AS lookup
        WHERE client_id = :client_id AND side = :side AND (
            row_id = ANY(CAST(:failed AS bigint[]))
            OR NOT EXISTS (SELECT FROM {table_of(side)} AS row WHERE row.id = lookup.row_id)
        )
    """)  # noqa: S608 - the name is this package's own
    connection.execute(statement, {"client_id": client_id, "side": side.value, "failed": as_array(failed)})


def _remember_pass(connection: Connection, client_id: int, fetched: Fetched) -> None:
    statement = text("""
        UPDATE crm_clients
        SET changes_seen_until = greatest(changes_seen_until, :began_at),
            full_pass_at = CASE WHEN :is_full THEN :began_at ELSE full_pass_at END
        WHERE client_id = :client_id
    """)
    is_full = fetched.mode is FetchMode.FULL
    connection.execute(statement, {"client_id": client_id, "began_at": fetched.began_at, "is_full": is_full})
