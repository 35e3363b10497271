"""A client's accounts, and which of them a lead gets next. Pure, but for `read_roster`.

Whoever reads a roster in order to give accounts to leads holds `lock_client`, so that two who do so at the same time
do not both take the same account for the least busy one, nor one that was refused a moment ago.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapify, heapreplace

from sqlalchemy import Connection, text


class Reason(StrEnum):
    """What is wrong with the account of a lead."""

    MISSING = "missing"  # the lead has none
    UNKNOWN = "unknown"  # the client has no such account, or no longer
    CANNOT_SEND = "cannot_send"  # by its status
    REFUSED = "refused"  # EmailBison refused it, and no listing since then has seen it able


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the last listing and the refusals since then leave it."""

    sender_id: int
    can_send: bool = True
    is_gone: bool = False
    is_refused: bool = False

    @property
    def is_sendable(self) -> bool:
        """Whether a lead may be given it."""
        return self.can_send and not self.is_gone and not self.is_refused


@dataclass(slots=True)
class Roster:
    """The accounts of one client, who is in which campaign, and how many leads each has.

    Attributes:
        accounts: by id, also those that cannot send.
        campaigns: ids of accounts by campaign, as far as campaigns were asked.
        leads: how many leads have each account; kept up by `give`.
    """

    accounts: Mapping[int, Account]
    campaigns: Mapping[int, frozenset[int]] = field(default_factory=dict)
    leads: dict[int, int] = field(default_factory=dict)
    _queues: dict[int | None, list[tuple[int, int]]] = field(default_factory=dict)

    def amiss(self, sender_id: int | None) -> Reason | None:
        """What is wrong with an account; None when nothing is."""
        if sender_id is None:
            return Reason.MISSING
        account = self.accounts.get(sender_id)
        if account is None or account.is_gone:
            return Reason.UNKNOWN
        if not account.can_send:
            return Reason.CANNOT_SEND
        return Reason.REFUSED if account.is_refused else None

    @property
    def has_sendable(self) -> bool:
        """Whether there is anything to give."""
        return any(account.is_sendable for account in self.accounts.values())

    def give(self, campaign_id: int | None, instead_of: int | None) -> int | None:
        """The account that a lead gets, and has from now on.

        Of the campaign's accounts that can send, or of the client's if the campaign has none, the one with the fewest
        leads; of several the one with the lowest id.

        Args:
            campaign_id: that the lead is in; None: in none.
            instead_of: what the lead has now, nothing that can send; None: nothing at all.

        Returns:
            Its id; None when the client has nothing that can send.
        """
        # Leads of those that can send only grow in number, so that a queue is in order but for numbers that are old.
        queue = self._queue(campaign_id) or self._queue(None)
        if not queue:
            return None
        while queue[0][0] != (current := self.leads.get(queue[0][1], 0)):
            heapreplace(queue, (current, queue[0][1]))
        given = queue[0][1]
        self.leads[given] = self.leads.get(given, 0) + 1
        if instead_of is not None and self.leads.get(instead_of):
            self.leads[instead_of] -= 1
        return given

    def _queue(self, campaign_id: int | None) -> list[tuple[int, int]]:
        """A heap of the accounts that can send, of a campaign or (None) the client: how many leads each has, its id."""
        if campaign_id not in self._queues:
            of = self.accounts.keys() if campaign_id is None else self.campaigns.get(campaign_id, frozenset())
            queue = [
                (self.leads.get(id_, 0), id_) for id_ in of if id_ in self.accounts and self.accounts[id_].is_sendable
            ]
            heapify(queue)
            self._queues[campaign_id] = queue
        return self._queues[campaign_id]


# The listing's time is when it began, so that it says nothing of refusals since then.
SENDABLE = """
    account.can_send AND account.gone_at IS NULL
    AND (account.refused_at IS NULL OR account.refused_at < account.seen_at)
"""


def lock_client(connection: Connection, client_id: int) -> None:
    """Keeps others who list or give accounts of the client waiting until the transaction ends.

    Take it before any row of `leads`, and the lock of one client only in a transaction.
    """
    connection.execute(_LOCK, {"client_id": client_id})


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('senders of client ' || :client_id, 0))")


def read_roster(connection: Connection, client_id: int, leads: dict[int, int] | None = None) -> Roster:
    """The client's accounts as they stand.

    Args:
        connection: reads only.
        client_id: whose.
        leads: how many leads have each, where that is known; else all the client's leads are read for it.
    """
    values = {"client_id": client_id}
    accounts = {
        row.sender_id: Account(row.sender_id, row.can_send, row.is_gone, row.is_refused)
        for row in connection.execute(_ACCOUNTS, values)
    }
    campaigns = {row.campaign_id: frozenset(row.senders or ()) for row in connection.execute(_CAMPAIGNS, values)}
    if leads is None:
        leads = {row.sender_id: row.leads for row in connection.execute(_LEADS, values)}
    return Roster(accounts, campaigns, leads)


_ACCOUNTS = text("""
    SELECT sender_id, can_send, gone_at IS NOT NULL AS is_gone, coalesce(refused_at >= seen_at, false) AS is_refused
    FROM sender_accounts WHERE client_id = :client_id
""")

_CAMPAIGNS = text("""
    SELECT campaign_id, array_agg(sender_id) FILTER (WHERE sender_id > 0) AS senders FROM campaign_senders
    WHERE client_id = :client_id GROUP BY campaign_id
""")

_LEADS = text("""
    SELECT emailbison_sender_id AS sender_id, count(*) AS leads FROM leads
    WHERE client_id = :client_id AND emailbison_sender_id IS NOT NULL GROUP BY emailbison_sender_id
""")
