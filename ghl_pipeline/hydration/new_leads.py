"""Which locations have leads that were created since and never looked up."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import Engine, text

from ghl_pipeline.hydration.work_list import ELIGIBLE_REASONS
from ghl_pipeline.orchestration.attempts import HYDRATION, held_back
from ghl_pipeline.orchestration.holds import left_to_reruns

# Ids are given out before their transactions commit, so a lower one can appear after a higher one was seen.
OVERLAP = 1000


@dataclass(frozen=True, slots=True)
class NewLeads:
    """Locations with new leads, how many, a key of which ones, and where the next look goes on."""

    locations: tuple[str, ...]
    leads: int
    key: str
    cursor: "Cursor"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The newest lead id at the very first look, which nothing before counts as new, and at the last one."""

    first_id: int
    newest_id: int

    def __str__(self) -> str:
        return f"{self.first_id}-{self.newest_id}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Reads what `str` gave. Raises ValueError for anything else."""
        first, _, newest = text.partition("-")
        return cls(int(first), int(newest))


def find_new_leads(engine: Engine, cursor: Cursor | None) -> NewLeads:
    """New eligible leads of active clients that have a token, and one that was not refused today.

    Args:
        engine: the dashboard database.
        cursor: of the last look; None at the first, when nothing counts as new yet (a backfill's job).
    """
    newest = text("SELECT coalesce(max(id), 0) FROM leads")
    new = text(f"""
        SELECT client.location_id, count(*) AS leads, max(lead.id) AS newest_id,
               md5(string_agg(CAST(lead.id AS text), ',' ORDER BY lead.id)) AS key
        FROM leads AS lead
        JOIN clients AS client ON client.id = lead.client_id
        WHERE lead.id > :after_id AND client.active AND client.ghl_token_encrypted IS NOT NULL
          AND NOT EXISTS (SELECT FROM lead_lookups AS lookup WHERE lookup.lead_id = lead.id)
          AND {ELIGIBLE_REASONS} <> 0
          -- Whoever handles the event looks the lead up.
          AND NOT EXISTS (SELECT FROM webhook_events AS event WHERE event.lead_id = lead.id AND event.state = 'pending')
          AND client.location_id <> ALL(CAST(:refused AS text[]))
        GROUP BY client.location_id ORDER BY client.location_id
    """)  # noqa: S608 - the expression is a constant of ours
    with engine.connect() as connection:
        if cursor is None:
            first = int(connection.execute(newest).scalar_one())
            return NewLeads((), 0, "", Cursor(first, first))
        after_id = max(cursor.first_id, cursor.newest_id - OVERLAP)
        # A rerun looks at all leads, the new ones among them.
        refused = list(held_back(connection, HYDRATION) | left_to_reruns(connection, HYDRATION))
        rows = connection.execute(new, {"after_id": after_id, "refused": refused}).all()
    return NewLeads(
        tuple(row.location_id for row in rows),
        sum(int(row.leads) for row in rows),
        hashlib.sha256("".join(row.key for row in rows).encode()).hexdigest()[:16],
        Cursor(cursor.first_id, max([cursor.newest_id, *(int(row.newest_id) for row in rows)])),
    )
