"""Storing leads that come in from outside, so that one person is one row per client.

Here is only the one way a new lead is written: one by one, or a batch with the same result in a few statements. Which
leads lack something, and filling them from GHL, is `hydration/`; a phone arrives here in the form it is stored in,
because that rule needs the client's region.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from ghl_pipeline.database.lead_batches import Entry, store_batch
from ghl_pipeline.database.lead_rows import LeadUpsert, fill_or_create
from ghl_pipeline.database.new_leads import NewLead, storable_values
from ghl_pipeline.database.rows import as_array
from ghl_pipeline.errors import InvalidInput

__all__ = ["LeadUpsert", "NewLead", "lock_clients", "upsert_lead", "upsert_leads"]


def lock_clients(connection: Connection, client_ids: Iterable[int]) -> None:
    """Keeps others who store leads or messages of these clients waiting until the transaction ends.

    One lock per client, not per key: a transaction with several leads cannot then deadlock with another one. Take the
    locks of all clients of a transaction in one call, and before the transaction writes leads or messages by any other
    way; else two can wait for each other. Whoever holds a lock may take it again.
    """
    connection.execute(_LOCK_CLIENTS, {"ids": as_array(sorted(set(client_ids)))})


# `unnest` keeps the order of the array.
_LOCK_CLIENTS = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('leads of client ' || id, 0))
    FROM unnest(CAST(:ids AS bigint[])) AS client (id)
""")


def upsert_lead(connection: Connection, client_id: int, lead: NewLead) -> LeadUpsert:
    """Store the lead in the client's row for this person, or in a new one.

    The row is found by contact id, else by EmailBison lead id, else by e-mail (without regard to case). Only its empty
    fields are filled. If the person's keys point at several rows, the first found wins and a key that another row has
    stays there. Text is stored without NULs and surrounding space; blank text is nothing.

    Callers who write the same person at the same time end with one row, whatever keys they have in common: those of
    one client wait for each other until the transaction ends, so keep it short. Needs READ COMMITTED, the default.

    Args:
        connection: in the caller's transaction, which the caller commits.
        client_id: `clients.id`.
        lead: has a contact id, an EmailBison lead id or an e-mail, since nothing else could find it again.

    Raises:
        InvalidInput: the lead has no key, or one that cannot be stored.
        UnknownClient: there is no such client.
        DatabaseUnavailable: other writers kept changing the same rows; nothing of this lead was stored.
    """
    values = storable_values(lead)
    lock_clients(connection, [client_id])
    return fill_or_create(connection, client_id, values, lead.status)


def upsert_leads(connection: Connection, rows: Sequence[tuple[int, NewLead]]) -> list[LeadUpsert | InvalidInput]:
    """Store leads of several clients as `upsert_lead` would one after the other, in a few statements.

    All new persons together are one statement, so are all rows that are to be filled, and known persons of whom nothing
    new is said are none. Only a person whose keys point at several rows costs statements of its own.

    Args:
        connection: in the caller's transaction, which the caller commits.
        rows: (`clients.id`, the lead); a person may be among them several times, with different keys.

    Returns:
        One entry for each lead, in their order; for one that cannot be stored the reason, which costs the others
        nothing.

    Raises:
        UnknownClient: there is no such client.
        DatabaseUnavailable: other writers kept changing the same rows.
    """
    stored: dict[int, LeadUpsert | InvalidInput] = {}
    entries: list[Entry] = []
    for place, (client_id, lead) in enumerate(rows):
        try:
            entries.append(Entry(place, client_id, storable_values(lead), lead.status))
        except InvalidInput as refused:
            stored[place] = refused
    if entries:
        lock_clients(connection, (entry.client_id for entry in entries))
        stored |= store_batch(connection, entries)
    return [stored[place] for place in range(len(rows))]
