"""The one rule for "something came later", as conditions of SQL.

It makes a draft, or the wish for one, a thing of the past: whoever asks whether a message wants an answer asks here.
"""

from typing import Final

from ghl_pipeline.database.blank import blank_sql

_LATER: Final = """
    SELECT FROM messages AS later
    WHERE later.lead_id = {message}.lead_id AND later.channel = {message}.channel
      AND later.sent_at >= {message}.sent_at
      AND (later.sent_at > {message}.sent_at OR later.id > {message}.id)
"""


def answered_sql(message: str) -> str:
    """Whether somebody wrote to the lead on the channel since.

    Args:
        message: how the statement names the row of `messages`. Goes into the statement as it is.
    """
    return f"EXISTS ({_LATER.format(message=message)} AND later.direction = 'outbound')"


def superseded_sql(message: str) -> str:
    """Whether the lead wrote on, on the same channel. What is automatic or says nothing does not count.

    Args:
        message: as for `answered_sql`.
    """
    return (
        f"EXISTS ({_LATER.format(message=message)} AND later.direction = 'inbound' AND NOT later.is_automated "
        # E-mails by way of GHL get no drafts, and so take none away.
        "AND (later.channel <> 'email' OR later.provider = 'emailbison') "
        f"AND NOT {blank_sql('later.body')})"
    )
