"""How many leads of each location are linked, complete, found: counted location by location, and kept.

A count over 100 million leads takes minutes, so no look waits for one. A look counts anew what is due, the oldest
first, as long as its time lasts, and everybody reads what is kept with the time as of which it is. In a database of
some hundred thousand leads that means: always as of now.

Table: `location_figures`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, text

from ghl_pipeline.database.blank import blank_sql
from ghl_pipeline.database.rows import as_array

# Leads that one statement counts: some 0.1 to 0.5 s of the server, between which a look can end.
LEADS_AT_ONCE = 100_000
# What a location is taken for that was never counted. Two hundred of them go into a statement.
UNKNOWN_LEADS = 500


@dataclass(frozen=True, slots=True)
class _Due:
    client_id: int
    leads: int


def refresh_counts(
    engine: Engine, *, seconds: float, older_than: timedelta = timedelta(0), location_id: str | None = None
) -> int:
    """Counts leads anew, as long as the time lasts; one statement's worth in any case.

    In turn: locations whose leads were worked on since, locations never counted, and the others whose count is older
    than `older_than`, the oldest first.

    Args:
        engine: the dashboard database.
        seconds: after which no further statement is begun.
        older_than: how old a count may be when nothing was done at the location since.
        location_id: only this one.

    Returns:
        How many locations were counted.
    """
    give_up_at = time.monotonic() + seconds
    with engine.connect() as connection:
        values = {"older_than": older_than, "unknown": UNKNOWN_LEADS, "location_id": location_id}
        due = [_Due(row.id, row.leads) for row in connection.execute(_DUE, values)]
    counted = 0
    for batch in _batches(due):
        if counted and time.monotonic() >= give_up_at:
            break
        with engine.begin() as connection:
            connection.execute(_COUNT, {"clients": as_array(each.client_id for each in batch)})
        counted += len(batch)
    return counted


def _batches(due: Sequence[_Due]) -> Iterator[list[_Due]]:
    """Locations with so many leads together that one statement counts them; a large location is a batch of its own."""
    batch: list[_Due] = []
    leads = 0
    for each in due:
        if batch and leads + each.leads > LEADS_AT_ONCE:
            yield batch
            batch, leads = [], 0
        batch.append(each)
        leads += each.leads
    if batch:
        yield batch


_DUE = text("""
    WITH worked AS (
        SELECT location_id, max(ended_at) AS ended_at FROM location_standings
        WHERE capability IN ('hydration', 'crm') GROUP BY location_id
    )
    SELECT client.id, greatest(coalesce(figures.leads, CAST(:unknown AS int)), 1) AS leads
    FROM clients AS client
    LEFT JOIN location_figures AS figures ON figures.location_id = client.location_id
    LEFT JOIN worked ON worked.location_id = client.location_id
    WHERE (figures.counted_at IS NULL OR worked.ended_at > figures.counted_at
           OR figures.counted_at <= now() - CAST(:older_than AS interval))
      AND (CAST(:location_id AS text) IS NULL OR client.location_id = :location_id)
    ORDER BY coalesce(worked.ended_at > figures.counted_at, false) DESC, figures.counted_at NULLS FIRST, client.id
""")

# In the order of the key: two looks at the same time queue instead of locking each other out.
_COUNT = text(f"""
    INSERT INTO location_figures AS kept
        (location_id, leads, linked, without_phone, without_name, looked_up, not_found, counted_at)
    SELECT client.location_id, coalesce(counts.leads, 0), coalesce(counts.linked, 0),
           coalesce(counts.without_phone, 0), coalesce(counts.without_name, 0), coalesce(lookups.looked_up, 0),
           coalesce(lookups.not_found, 0), now()
    FROM clients AS client
    LEFT JOIN (
        SELECT client_id, count(*) AS leads,
               count(*) FILTER (WHERE NOT {blank_sql("ghl_contact_id")}) AS linked,
               count(*) FILTER (WHERE {blank_sql("phone")}) AS without_phone,
               count(*) FILTER (WHERE {blank_sql("first_name")} OR {blank_sql("last_name")}) AS without_name
        FROM leads WHERE client_id = ANY(CAST(:clients AS bigint[])) GROUP BY client_id
    ) AS counts ON counts.client_id = client.id
    LEFT JOIN (
        SELECT client_id, count(*) AS looked_up, count(*) FILTER (WHERE outcome = 'not_found') AS not_found
        FROM lead_lookups WHERE client_id = ANY(CAST(:clients AS bigint[])) GROUP BY client_id
    ) AS lookups ON lookups.client_id = client.id
    WHERE client.id = ANY(CAST(:clients AS bigint[]))
    ORDER BY client.location_id
    ON CONFLICT (location_id) DO UPDATE SET
        leads = excluded.leads, linked = excluded.linked, without_phone = excluded.without_phone,
        without_name = excluded.without_name, looked_up = excluded.looked_up, not_found = excluded.not_found,
        counted_at = excluded.counted_at
""")  # noqa: S608 - the rule for blank
