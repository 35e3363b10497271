"""A client's accounts as EmailBison lists them, kept in `sender_accounts` and `campaign_senders`.

Only a list that is whole is stored (`emailbison/sender_lists.py`), so that an account is gone when a list lacks it; one
that cannot be proved to be whole has to say so twice (`doubt.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.emailbison.sender_lists import SenderEmail, SenderList
from ghl_pipeline.locations.emailbison import WorkspaceAccess
from ghl_pipeline.privacy.redaction import redact
from ghl_pipeline.senders.doubt import BELIEVED_AFTER, doubted_since, is_doubtful
from ghl_pipeline.senders.report import CAPABILITY
from ghl_pipeline.senders.roster import SENDABLE, lock_client
from ghl_pipeline.senders.statuses import is_known, who_can_send

# In place of the accounts of a campaign that has none, or is unknown: that it was asked. EmailBison counts from 1.
NO_SENDER = 0
# In one run. The leads of others get an account of the client's.
MOST_CAMPAIGNS = 100


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of a client.

    Attributes:
        accounts: that it lists.
        able: those of them that can send.
        unknown_statuses: those of them whose status is no word that is known.
        gone: accounts that earlier listings had, and that are believed to be there no more.
        doubted_since: since when the listings lack so much that they are not believed; None: this one is.
    """

    accounts: int
    able: int
    unknown_statuses: int
    gone: int
    doubted_since: datetime | None = None


def now_of(connection: Connection) -> datetime:
    """The database's time, aware: a listing that begins now says nothing of refusals after it."""
    found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def store_accounts(
    connection: Connection, access: WorkspaceAccess, listed: SenderList, began: datetime
) -> Listed | None:
    """Stores a listing of a client's accounts; those that it lacks are gone, those that are back are not.

    Args:
        connection: in the caller's transaction.
        access: the workspace that was asked.
        listed: all its accounts, as far as can be known.
        began: when the listing began, as `now_of`.

    Returns:
        What it says; None when the client has another workspace or token meanwhile, so that nothing was stored.
    """
    lock_client(connection, access.client_id)
    if connection.execute(_WORKSPACE, _workspace(access)).one_or_none() is None:
        return None
    stored = connection.execute(_KNOWN, {"client_id": access.client_id}).all()
    known_able = [row.sender_id for row in stored if row.can_send]
    doubted: datetime | None = None
    if is_doubtful(listed, [row.sender_id for row in stored], known_able):
        doubted = doubted_since(connection, access, CAPABILITY) or began
        if began - doubted >= BELIEVED_AFTER:
            doubted = None
    able = who_can_send({sender.id: sender.status for sender in listed.accounts})
    rows: list[dict[str, object]] = [
        {
            "sender_id": sender.id,
            "email": _storable(sender.email),
            "name": _storable(sender.name),
            # A word as a rule, and shown to operators; nothing says that it never names the account.
            "status": None if sender.status is None else _storable(redact(sender.status)),
            "can_send": able[sender.id],
            "daily_limit": sender.daily_limit,
        }
        for sender in listed.accounts
    ]
    values = {"client_id": access.client_id, "began": began, "rows": as_json_rows(rows)}
    connection.execute(_STORE, values)
    if doubted is None:
        connection.execute(_GONE, values)
    gone = connection.execute(_COUNT_GONE, values).scalar_one()
    unknown = sum(not is_known(sender.status) for sender in listed.accounts)
    return Listed(len(listed.accounts), sum(able.values()), unknown, gone, doubted)


def campaigns_to_ask(connection: Connection, client_id: int) -> list[int]:
    """The campaigns whose accounts are needed now, at most `MOST_CAMPAIGNS`, the latest first.

    Those with a lead that is about to be given another account, then those of which nothing is stored. A campaign can
    have hundreds of accounts, 15 a page, so that asking for all of them each hour would cost more than it tells. None
    while the client has nothing that could be given. That a campaign is unknown or has none is stored, too.
    """
    rows = connection.execute(_CAMPAIGNS, {"client_id": client_id, "most": MOST_CAMPAIGNS})
    return list(rows.scalars())


def store_campaign(
    connection: Connection, access: WorkspaceAccess, campaign_id: int, members: Sequence[SenderEmail]
) -> None:
    """Stores by which accounts a campaign sends, in place of what was stored.

    Args:
        connection: in the caller's transaction.
        access: the workspace that was asked; when the client has another one meanwhile, nothing is stored.
        campaign_id: EmailBison's.
        members: all its accounts; none: it has none, or there is no such campaign.
    """
    lock_client(connection, access.client_id)
    if connection.execute(_WORKSPACE, _workspace(access)).one_or_none() is None:
        return
    ids = [member.id for member in members] or [NO_SENDER]
    rows: list[dict[str, object]] = [{"sender_id": id_} for id_ in ids]
    values = {"client_id": access.client_id, "campaign_id": campaign_id, "rows": as_json_rows(rows)}
    connection.execute(_LEFT, values)
    connection.execute(_JOINED, values)


def _workspace(access: WorkspaceAccess) -> dict[str, object]:
    return {
        "client_id": access.client_id,
        "base_url": access.base_url,
        "workspace_id": access.workspace_id,
        "token": access.token_encrypted,
    }


def _storable(value: str | None) -> str | None:
    return None if value is None else storable_text(value) or None


# Locked, so that it stays the client's until the listing is stored.
_WORKSPACE = text("""
    SELECT client_id FROM emailbison_workspaces
    WHERE client_id = :client_id AND base_url = :base_url AND workspace_id = :workspace_id
      AND token_encrypted IS NOT DISTINCT FROM :token
    FOR SHARE
""")

_STORE = text("""
    INSERT INTO sender_accounts AS account
        (client_id, sender_id, email, name, status, can_send, daily_limit, seen_at)
    SELECT :client_id, sender_id, email, name, status, can_send, daily_limit, :began
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        sender_id bigint, email text, name text, status text, can_send boolean, daily_limit integer)
    ORDER BY sender_id
    ON CONFLICT (client_id, sender_id) DO UPDATE SET
        email = excluded.email, name = excluded.name, status = excluded.status, can_send = excluded.can_send,
        daily_limit = excluded.daily_limit, gone_at = NULL, seen_at = greatest(account.seen_at, excluded.seen_at)
""")

_GONE = text("""
    UPDATE sender_accounts AS account SET gone_at = :began
    WHERE account.client_id = :client_id AND account.gone_at IS NULL AND NOT EXISTS (
        SELECT FROM json_to_recordset(CAST(:rows AS json)) AS listed (sender_id bigint)
        WHERE listed.sender_id = account.sender_id)
""")

_KNOWN = text("SELECT sender_id, can_send FROM sender_accounts WHERE client_id = :client_id AND gone_at IS NULL")

_COUNT_GONE = text("SELECT count(*) FROM sender_accounts WHERE client_id = :client_id AND gone_at IS NOT NULL")

_CAMPAIGNS = text(f"""
    SELECT lead.emailbison_campaign_id
    FROM leads AS lead
    LEFT JOIN sender_accounts AS account
        ON account.client_id = lead.client_id AND account.sender_id = lead.emailbison_sender_id
    LEFT JOIN (SELECT DISTINCT campaign_id FROM campaign_senders WHERE client_id = :client_id) AS asked
        ON asked.campaign_id = lead.emailbison_campaign_id
    WHERE lead.client_id = :client_id AND lead.emailbison_campaign_id IS NOT NULL
      AND (asked.campaign_id IS NULL OR account.sender_id IS NULL OR NOT ({SENDABLE}))
      AND EXISTS (SELECT FROM sender_accounts AS account WHERE account.client_id = :client_id AND {SENDABLE})
    GROUP BY lead.emailbison_campaign_id
    ORDER BY bool_or(account.sender_id IS NULL OR NOT ({SENDABLE})) DESC, lead.emailbison_campaign_id DESC
    LIMIT :most
""")  # noqa: S608 - a constant of ours

_LEFT = text("""
    DELETE FROM campaign_senders
    WHERE client_id = :client_id AND campaign_id = :campaign_id AND sender_id NOT IN (
        SELECT sender_id FROM json_to_recordset(CAST(:rows AS json)) AS listed (sender_id bigint))
""")

_JOINED = text("""
    INSERT INTO campaign_senders (client_id, campaign_id, sender_id)
    SELECT :client_id, :campaign_id, sender_id
    FROM json_to_recordset(CAST(:rows AS json)) AS listed (sender_id bigint)
    ON CONFLICT DO NOTHING
""")
