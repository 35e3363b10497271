"""One lead's account, healed: the function that whoever sends calls when EmailBison refuses an account.

All leads of a client ahead of time: `repair.py`. Which account a lead gets: `roster.py`.
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text

from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.senders.roster import Reason, lock_client, read_roster


class HealingOutcome(StrEnum):
    """What became of the lead's account."""

    HEALED = "healed"  # another one was given
    WELL = "well"  # the lead has one that can send; nothing was changed
    NONE_TO_GIVE = "none_to_give"  # the client has nothing that can send; the lead keeps what it has


@dataclass(frozen=True, slots=True)
class Healing:
    """What `heal` did.

    Attributes:
        lead_id: the lead.
        outcome: what became of its account.
        sender_id: the account to send by now; None when there is none.
        reason: what was wrong with the one before; None when nothing was.
        replaced_sender_id: the one before; None when the lead had none, or nothing was wrong with it.
    """

    lead_id: int
    outcome: HealingOutcome
    sender_id: int | None
    reason: Reason | None = None
    replaced_sender_id: int | None = None


def heal(connection: Connection, lead_id: int, refused_sender_id: int | None = None) -> Healing:
    """Gives a lead another account to send by if its own is missing, unknown, unable or refused. Public: see below.

    This is what the sending dashboard calls: before a send to be told by which account, and with `refused_sender_id`
    after EmailBison answered 422 "The selected sender email id is invalid." (or that the mailbox has to be connected
    again). It then sends by `Healing.sender_id`, or tells its user that there is none. The same from a shell:
    `ghl-pipeline senders heal LEAD --refused ID`.

    The lead gets, of the accounts of its campaign that can send, else of its client's, the one with the fewest leads.
    A refused account is given to nobody until a later listing sees it able. A refusal counts once: reported again,
    by this process or another one, it changes nothing, since the lead has another account by then. A refusal of an
    account that the lead does not have is noted of the account. What was given is on record in `sender_healings`; that
    there was nothing to give, too, but once only for the same reason.

    Args:
        connection: in the caller's transaction, which the caller commits soon: until then others who heal leads of the
            client wait. One lead per transaction, and before it writes to `leads` by other ways; otherwise two can
            wait for each other.
        lead_id: `leads.id`.
        refused_sender_id: EmailBison's id of the account that it refused; None: nothing was refused.

    Raises:
        UnknownClient: there is no such lead.
    """
    client_id = connection.execute(_CLIENT, {"lead_id": lead_id}).scalar_one_or_none()
    if client_id is None:
        raise _unknown(lead_id)
    lock_client(connection, client_id)
    # Read again, once it is locked: who held the lock may have healed it.
    lead = connection.execute(_LEAD, {"lead_id": lead_id, "client_id": client_id}).one_or_none()
    if lead is None:
        raise _unknown(lead_id)
    own: int | None = lead.sender_id
    is_own = refused_sender_id is not None and refused_sender_id == own
    ids = {"client_id": client_id, "lead_id": lead_id, "refused": refused_sender_id}
    if refused_sender_id is not None and (is_own or not connection.execute(_IS_HEALED, ids).scalar_one()):
        connection.execute(_REFUSE, ids)
    roster = read_roster(connection, client_id)
    reason = Reason.REFUSED if is_own else roster.amiss(own)
    if reason is None:
        return Healing(lead_id, HealingOutcome.WELL, own)
    given = roster.give(lead.campaign_id, own)
    record = {**ids, "reason": reason.value, "replaced": own, "given": given}
    if given is None:
        connection.execute(_RECORD_ONCE, record)
        return Healing(lead_id, HealingOutcome.NONE_TO_GIVE, None, reason, own)
    connection.execute(_GIVE, record)
    return Healing(lead_id, HealingOutcome.HEALED, given, reason, own)


def _unknown(lead_id: int) -> UnknownClient:
    return UnknownClient(f"There is no lead with id {lead_id}. Its id is in the dashboard's table leads.")


_CLIENT = text("SELECT client_id FROM leads WHERE id = :lead_id")

# Messages and events may be stored meanwhile, which only refer to the row.
_LEAD = text("""
    SELECT emailbison_sender_id AS sender_id, emailbison_campaign_id AS campaign_id FROM leads
    WHERE id = :lead_id AND client_id = :client_id FOR NO KEY UPDATE
""")

_IS_HEALED = text("""
    SELECT EXISTS (
        SELECT FROM sender_healings
        WHERE lead_id = :lead_id AND replaced_sender_id = :refused AND reason = 'refused' AND sender_id IS NOT NULL)
""")

# Not the transaction's time: a listing may have begun since then.
_REFUSE = text("""
    UPDATE sender_accounts SET refused_at = clock_timestamp() WHERE client_id = :client_id AND sender_id = :refused
""")

_GIVE = text("""
    WITH given AS (
        UPDATE leads SET emailbison_sender_id = :given WHERE id = :lead_id AND client_id = :client_id
    )
    INSERT INTO sender_healings (client_id, lead_id, reason, replaced_sender_id, sender_id)
    VALUES (:client_id, :lead_id, :reason, :replaced, :given)
""")

_RECORD_ONCE = text("""
    INSERT INTO sender_healings (client_id, lead_id, reason, replaced_sender_id)
    SELECT :client_id, :lead_id, :reason, CAST(:replaced AS bigint)
    WHERE NOT EXISTS (
        SELECT FROM (
            SELECT reason, replaced_sender_id, sender_id FROM sender_healings
            WHERE lead_id = :lead_id ORDER BY id DESC LIMIT 1
        ) AS latest
        WHERE latest.reason = :reason AND latest.sender_id IS NULL
          AND latest.replaced_sender_id IS NOT DISTINCT FROM CAST(:replaced AS bigint))
""")
