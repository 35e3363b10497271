"""Messages of a lead that turns out to be another one: they go there, and a message that both have is one row.

Drafts that answer them go with them.
"""

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import WHITE_SPACE
from ghl_pipeline.database.message_rows import SAME_MESSAGE_WITHIN
from ghl_pipeline.database.rows import as_array


def move_messages(connection: Connection, client_id: int, from_lead: int, to_lead: int) -> list[int]:
    """Gives the messages of one lead to another one of the client.

    Ids of the provider are unique per client, so no two rows have the same. But a message without one may be there for
    both leads: by the rule of `messages.store_messages` they are one, the row that has the id, else the older one.

    Args:
        connection: in the caller's transaction, which holds the lock of the client (`leads.lock_clients`).
        client_id: whose leads both are.
        from_lead: whose messages they are.
        to_lead: whose they will be.

    Returns:
        The rows that are the same message as another one, which has what they knew; for the caller to delete.
    """
    leads = {"client_id": client_id, "from_lead": from_lead, "to_lead": to_lead}
    doubles: dict[int, int] = {}
    parameters = {**leads, "within": SAME_MESSAGE_WITHIN, "white_space": WHITE_SPACE}
    for row in connection.execute(_ALIKE, parameters):
        if not {row.kept, row.double} & (doubles.keys() | doubles.values()):
            doubles[row.double] = row.kept
    if doubles:
        pairs = {"doubles": as_array(doubles), "kept": as_array(doubles.values())}
        connection.execute(_TAKE_OVER, pairs)
        for statement in (_DROP_WORSE_DRAFTS, _TAKE_OVER_DRAFTS):
            connection.execute(statement, pairs)
    connection.execute(_MOVE, leads)
    connection.execute(_MOVE_DRAFTS, leads)
    return list(doubles)


# The nearest first.
_ALIKE = text("""
    WITH alike AS (
        SELECT abs(extract(epoch FROM theirs.sent_at - mine.sent_at)) AS apart,
            mine.external_id IS NOT NULL OR (theirs.external_id IS NULL AND mine.id < theirs.id) AS mine_stays,
            theirs.id AS their_id, mine.id AS my_id
        FROM messages AS theirs JOIN messages AS mine
            ON mine.lead_id = :to_lead AND mine.client_id = :client_id AND mine.provider = theirs.provider
            AND mine.channel = theirs.channel AND mine.direction = theirs.direction
            AND btrim(mine.body, :white_space) = btrim(theirs.body, :white_space)
            AND mine.sent_at BETWEEN theirs.sent_at - :within AND theirs.sent_at + :within
        WHERE theirs.lead_id = :from_lead AND theirs.client_id = :client_id
            AND (mine.external_id IS NULL OR theirs.external_id IS NULL)
    )
    SELECT CASE WHEN mine_stays THEN my_id ELSE their_id END AS kept,
        CASE WHEN mine_stays THEN their_id ELSE my_id END AS double
    FROM alike ORDER BY apart, kept, double
""")

_TAKE_OVER = text("""
    UPDATE messages AS kept SET
        status = coalesce(kept.status, double.status),
        is_automated = kept.is_automated OR double.is_automated,
        is_interested = kept.is_interested OR double.is_interested,
        conversation_id = coalesce(nullif(kept.conversation_id, ''), double.conversation_id)
    FROM unnest(CAST(:doubles AS bigint[]), CAST(:kept AS bigint[])) AS pair (double_id, kept_id)
    JOIN messages AS double ON double.id = pair.double_id
    WHERE kept.id = pair.kept_id
""")

_MOVE = text("UPDATE messages SET lead_id = :to_lead WHERE lead_id = :from_lead AND client_id = :client_id")

# A message has one draft for each channel: of two the one that was approved, else one that has a text, else that of
# the message that stays.
_DROP_WORSE_DRAFTS = text("""
    DELETE FROM reply_drafts AS worse
    USING unnest(CAST(:doubles AS bigint[]), CAST(:kept AS bigint[])) AS pair (double_id, kept_id)
    JOIN reply_drafts AS better ON better.message_id = pair.double_id
    WHERE worse.message_id = pair.kept_id AND worse.channel = better.channel
        AND ((better.state = 'approved' AND worse.state <> 'approved')
             OR (better.state <> 'failed' AND worse.state = 'failed'))
""")

_TAKE_OVER_DRAFTS = text("""
    UPDATE reply_drafts AS draft SET message_id = pair.kept_id
    FROM unnest(CAST(:doubles AS bigint[]), CAST(:kept AS bigint[])) AS pair (double_id, kept_id)
    WHERE draft.message_id = pair.double_id
        AND NOT EXISTS (SELECT FROM reply_drafts AS other
                        WHERE other.message_id = pair.kept_id AND other.channel = draft.channel)
""")

_MOVE_DRAFTS = text("UPDATE reply_drafts SET lead_id = :to_lead WHERE lead_id = :from_lead AND client_id = :client_id")
