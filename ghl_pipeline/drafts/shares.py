"""How many drafts failed lately, by location: what the check looks at."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.drafts.outcomes import DraftFailure

RECENT_DAYS: Final = 2


@dataclass(frozen=True, slots=True)
class FailedShare:
    """Of a location that is switched on, over its last days.

    Attributes:
        location_id: its id.
        failed: messages without a draft because it failed, whether or not it is tried again.
        drafts: of all that were tried.
        for_setup: of the failed, those because of key, model or address.
        main_reason: the reason of most of them; empty without any.
    """

    location_id: str
    failed: int
    drafts: int
    for_setup: int
    main_reason: str

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.failed / self.drafts if self.drafts else 0.0


def failed_shares(connection: Connection) -> list[FailedShare]:
    """Of each location that is switched on and had drafts lately."""
    setup = [failure.value for failure in DraftFailure if failure.concerns_setup]
    query = text("""
        SELECT client.location_id, count(*) FILTER (WHERE draft.state = 'failed') AS failed, count(*) AS drafts,
            count(*) FILTER (WHERE draft.failure = ANY(CAST(:setup AS text[]))) AS for_setup,
            coalesce(mode() WITHIN GROUP (ORDER BY draft.failure), '') AS main_reason
        FROM reply_drafts AS draft
        JOIN draft_clients ON draft_clients.client_id = draft.client_id AND draft_clients.enabled
        JOIN clients AS client ON client.id = draft.client_id AND client.active
        WHERE draft.updated_at > now() - make_interval(days => :days)
        GROUP BY client.location_id ORDER BY client.location_id
    """)
    return [FailedShare(**row._mapping) for row in connection.execute(query, {"days": RECENT_DAYS, "setup": setup})]
