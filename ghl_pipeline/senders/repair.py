"""All leads of a client whose account cannot send, given another one before somebody tries to write to them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Row, text

from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.senders.roster import SENDABLE, Reason, Roster, lock_client, read_roster

PAGE = 1000
_BEFORE_ALL = -(2**63)


@dataclass(frozen=True, slots=True)
class Repaired:
    """Leads that were given another account, by what was wrong, and leads for which there was none to give."""

    healed: Mapping[Reason, int]
    left_without: int


def repair_client(engine: Engine, client_id: int, *, page: int = PAGE) -> Repaired:
    """Gives every lead of the client whose account is amiss another one, as `healing.heal` would; blocking.

    A page of leads is one transaction and one statement that writes. A kill leaves the pages before it done. Leads for
    which there is nothing are counted and not put on record, since they would be each hour.

    Args:
        engine: the dashboard database.
        client_id: whose leads; nobody else's are read or given anything of this client's.
        page: leads at a time.
    """
    healed: Counter[Reason] = Counter()
    leads: dict[int, int] | None = None
    after: int | None = _BEFORE_ALL
    while after is not None:
        with engine.begin() as connection:
            lock_client(connection, client_id)
            roster = read_roster(connection, client_id, leads)
            leads = roster.leads
            if not roster.has_sendable:
                left = connection.execute(_COUNT, {"client_id": client_id}).scalar_one()
                return Repaired(dict(healed), left)
            leads_amiss = connection.execute(_PAGE, {"client_id": client_id, "after": after, "page": page}).all()
            healed.update(_give(connection, client_id, roster, leads_amiss))
            after = leads_amiss[-1].id if len(leads_amiss) == page else None
    return Repaired(dict(healed), 0)


def _give(
    connection: Connection, client_id: int, roster: Roster, leads: Sequence[Row[tuple[object, ...]]]
) -> list[Reason]:
    """Gives each of these leads another account, in one statement; returns what was wrong with theirs."""
    rows: list[dict[str, object]] = []
    reasons: list[Reason] = []
    for lead in leads:
        reason = roster.amiss(lead.sender_id)
        if reason is not None:
            given = roster.give(lead.campaign_id, lead.sender_id)
            rows.append({"id": lead.id, "reason": reason.value, "replaced": lead.sender_id, "given": given})
            reasons.append(reason)
    if rows:
        connection.execute(_GIVE, {"client_id": client_id, "rows": as_json_rows(rows)})
    return reasons


_AMISS = f"""
    FROM leads AS lead
    LEFT JOIN sender_accounts AS account
        ON account.client_id = lead.client_id AND account.sender_id = lead.emailbison_sender_id
    WHERE lead.client_id = :client_id AND (account.sender_id IS NULL OR NOT ({SENDABLE}))
"""

_COUNT = text(f"SELECT count(*) {_AMISS}")

# In the order of the write-back, so that the two queue and cannot deadlock.
_PAGE = text(f"""
    SELECT lead.id, lead.emailbison_campaign_id AS campaign_id, lead.emailbison_sender_id AS sender_id
    {_AMISS} AND lead.id > :after
    ORDER BY lead.id LIMIT :page FOR NO KEY UPDATE OF lead
""")

_GIVE = text("""
    WITH new AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS new (
            id bigint, reason text, replaced bigint, given bigint)
    ), given AS (
        UPDATE leads AS lead SET emailbison_sender_id = new.given FROM new
        WHERE lead.id = new.id AND lead.client_id = :client_id
        RETURNING lead.id
    )
    INSERT INTO sender_healings (client_id, lead_id, reason, replaced_sender_id, sender_id)
    SELECT :client_id, new.id, new.reason, new.replaced, new.given FROM new JOIN given USING (id) ORDER BY new.id
""")
