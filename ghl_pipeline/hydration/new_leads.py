"""Which locations have leads that were created since and never looked up."""

from dataclasses import dataclass

from sqlalchemy import Engine, text

from ghl_pipeline.hydration.work_list import ELIGIBLE_REASONS

# Ids are given out before their transactions commit, so a lower one can appear after a higher one was seen.
OVERLAP = 1000


@dataclass(frozen=True, slots=True)
class NewLeads:
    """Locations with new leads, and the newest lead id seen: the next cursor."""

    locations: tuple[str, ...]
    leads: int
    newest_id: int


def find_new_leads(engine: Engine, after_id: int | None) -> NewLeads:
    """New eligible leads of active clients that have a token.

    Args:
        engine: the dashboard database.
        after_id: newest lead id of the last look; None at the first, when nothing counts as new yet (a backfill's job).
    """
    newest = text("SELECT coalesce(max(id), 0) FROM leads")
    new = text(f"""
        SELECT client.location_id, count(*) AS leads, max(lead.id) AS newest_id
        FROM leads AS lead
        JOIN clients AS client ON client.id = lead.client_id
        WHERE lead.id > :after_id AND client.active AND client.ghl_token_encrypted IS NOT NULL
          AND NOT EXISTS (SELECT FROM lead_lookups AS lookup WHERE lookup.lead_id = lead.id)
          AND {ELIGIBLE_REASONS} <> 0
        GROUP BY client.location_id ORDER BY client.location_id
    """)  # noqa: S608 - the expression is a constant of ours
    with engine.connect() as connection:
        if after_id is None:
            return NewLeads((), 0, int(connection.execute(newest).scalar_one()))
        rows = connection.execute(new, {"after_id": max(0, after_id - OVERLAP)}).all()
    return NewLeads(
        tuple(row.location_id for row in rows),
        sum(int(row.leads) for row in rows),
        max([after_id, *(int(row.newest_id) for row in rows)]),
    )
