"""How many drafts failed lately, by location: what the check looks at."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.drafts.outcomes import DraftFailure
from ghl_pipeline.drafts.superseding import answered_sql, superseded_sql

RECENT_DAYS: Final = 2


@dataclass(frozen=True, slots=True)
class FailedShare:
    """Of a location that is switched on, over its last days.

    Attributes:
        location_id: its id.
        failed: messages without a draft because it failed, whether or not it is tried again. Not those that failed for
            key, model or address and want no draft any more, since somebody answered or the lead wrote on: nothing
            that is put right now would take them away.
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
    query = text(f"""
        SELECT client.location_id, count(*) FILTER (WHERE draft.state = 'failed') AS failed, count(*) AS drafts,
            count(*) FILTER (WHERE draft.failure = ANY(CAST(:setup AS text[]))) AS for_setup,
            coalesce(mode() WITHIN GROUP (ORDER BY draft.failure), '') AS main_reason
        FROM reply_drafts AS draft
        JOIN messages AS message ON message.id = draft.message_id
        JOIN draft_clients ON draft_clients.client_id = draft.client_id AND draft_clients.enabled
        JOIN clients AS client ON client.id = draft.client_id AND client.active
        WHERE draft.updated_at > now() - make_interval(days => :days)
          AND NOT (draft.failure IS NOT NULL AND draft.failure = ANY(CAST(:setup AS text[]))
                   AND ({answered_sql("message")} OR {superseded_sql("message")}))
        GROUP BY client.location_id ORDER BY client.location_id
    """)  # noqa: S608 - the conditions are our own words
    return [FailedShare(**row._mapping) for row in connection.execute(query, {"days": RECENT_DAYS, "setup": setup})]
