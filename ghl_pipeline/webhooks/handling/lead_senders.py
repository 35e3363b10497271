"""By which account, and for which campaign, EmailBison writes to a lead: as its events tell.

Which account can send, and what a lead gets when its own cannot, is `senders/`; the two meet in the database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.webhooks.events import SentBy


@dataclass(frozen=True, slots=True)
class Sighting:
    """An account at work: which lead it writes to, and when (aware) an event told so."""

    lead_id: int
    sent_by: SentBy
    at: datetime


def note_senders(connection: Connection, client_id: int, sightings: Sequence[Sighting]) -> None:
    """Notes on leads who writes to them; the newest event wins by its time, in whatever order events are handled.

    EmailBison keeps to one account for a lead in a campaign, so an event of no campaign (somebody's newsletter, a
    reply to another mailbox) fills only what is empty. Nothing is ever emptied, and within a campaign no account is
    given back that the lead was ever healed of, unless a listing has seen it able since then: replies to what it once
    sent go on naming it. Which campaign a healing was in is not on record; one of any counts.

    Args:
        connection: in the caller's transaction; the rows are locked in the order of their ids.
        client_id: whose leads; nobody else's are touched.
        sightings: of any of them, in any order.
    """
    newest: dict[int, Sighting] = {}
    for each in sorted(sightings, key=lambda each: (each.sent_by.campaign_id is not None, each.at)):
        newest[each.lead_id] = each
    rows: list[dict[str, object]] = [
        {
            "lead_id": each.lead_id,
            "sender_id": each.sent_by.sender_id,
            "campaign_id": each.sent_by.campaign_id,
            "at": each.at,
        }
        for each in newest.values()
    ]
    if rows:
        connection.execute(_LOCK, {"client_id": client_id, "ids": as_array(newest)})
        connection.execute(_UPDATE, {"client_id": client_id, "rows": as_json_rows(rows)})


_LOCK = text("""
    SELECT FROM leads WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE
""")

# An account that was given because the lead had none is a guess, and an event of any time knows better. A later event
# that is a dead letter tells nothing.
_TAKES_ACCOUNT = """
    told.is_news AND coalesce(told.healed_at < told.at, true)
    AND NOT (told.was_healed_of_it AND coalesce(lead.emailbison_campaign_id = told.campaign_id, false))
"""

_UPDATE = text(f"""
    UPDATE leads AS lead SET
        emailbison_campaign_id = CASE WHEN told.is_news
            THEN told.campaign_id ELSE coalesce(lead.emailbison_campaign_id, told.campaign_id) END,
        emailbison_sender_id = CASE WHEN {_TAKES_ACCOUNT}
            THEN told.sender_id ELSE coalesce(lead.emailbison_sender_id, told.sender_id) END
    FROM (
        SELECT new.*, healing.healed_at,
            EXISTS (
                SELECT FROM sender_healings AS earlier
                WHERE earlier.lead_id = new.lead_id AND earlier.replaced_sender_id = new.sender_id
                  AND earlier.sender_id IS NOT NULL
                  AND NOT EXISTS (
                    SELECT FROM sender_accounts AS account
                    WHERE account.client_id = :client_id AND account.sender_id = new.sender_id
                      AND account.can_send AND account.gone_at IS NULL AND account.seen_at > earlier.healed_at
                      AND coalesce(account.refused_at < account.seen_at, true))
            ) AS was_healed_of_it,
            new.campaign_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM webhook_events AS later
                WHERE later.lead_id = new.lead_id AND later.provider = 'emailbison'
                  AND later.event_type <> 'UNTRACKED_REPLY_RECEIVED' AND later.state IN ('pending', 'done')
                  AND least(later.occurred_at, later.received_at) > new.at
            ) AS is_news
        FROM json_to_recordset(CAST(:rows AS json)) AS new (
            lead_id bigint, sender_id bigint, campaign_id bigint, at timestamptz)
        LEFT JOIN LATERAL (
            SELECT latest.* FROM (
                -- That there was nothing to give is no healing, and hides none.
                SELECT reason, healed_at FROM sender_healings
                WHERE lead_id = new.lead_id AND sender_id IS NOT NULL ORDER BY id DESC LIMIT 1
            ) AS latest
            WHERE latest.reason <> 'missing'
        ) AS healing ON true
    ) AS told
    WHERE lead.id = told.lead_id AND lead.client_id = :client_id
      AND (told.is_news AND lead.emailbison_campaign_id IS DISTINCT FROM told.campaign_id
           OR {_TAKES_ACCOUNT} AND lead.emailbison_sender_id IS DISTINCT FROM told.sender_id
           OR lead.emailbison_sender_id IS NULL
           OR lead.emailbison_campaign_id IS NULL AND told.campaign_id IS NOT NULL)
""")  # noqa: S608 - a constant of ours
