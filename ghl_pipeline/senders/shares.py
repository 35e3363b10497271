"""How the accounts of all clients stand, from the database: what the checks and the command line show."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from ghl_pipeline.senders.roster import SENDABLE


@dataclass(frozen=True, slots=True)
class ClientAccounts:
    """A client's accounts and leads in numbers.

    Attributes:
        location_id: whose.
        accounts: that EmailBison lists.
        able: those of them that can send.
        leads: of the client.
        leads_without: those of them that have no account, or one that cannot send.
    """

    location_id: str
    accounts: int
    able: int
    leads: int
    leads_without: int

    @property
    def share_without(self) -> float:
        """Leads without an account that can send, of all; 0 to 1."""
        return self.leads_without / self.leads if self.leads else 0.0


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as an operator sees it: by its number, without its address and name."""

    location: str
    sender_id: int
    status: str | None
    can_send: bool
    is_gone: bool
    is_refused: bool
    leads: int


def clients_accounts(connection: Connection) -> list[ClientAccounts]:
    """The numbers of every active client whose workspace can be asked, in the order of the clients."""
    return [ClientAccounts(*row) for row in connection.execute(_CLIENTS)]


_CLIENTS = text(f"""
    WITH asked AS (
        SELECT client.id, client.location_id FROM clients AS client
        JOIN emailbison_workspaces AS workspace ON workspace.client_id = client.id
        WHERE client.active AND workspace.token_encrypted IS NOT NULL
    ), counted AS (
        SELECT account.client_id, count(*) FILTER (WHERE account.gone_at IS NULL) AS accounts,
            count(*) FILTER (WHERE {SENDABLE}) AS able
        FROM sender_accounts AS account GROUP BY account.client_id
    ), of_leads AS (
        SELECT lead.client_id, count(*) AS leads, count(*) FILTER (WHERE account.sender_id IS NULL) AS without
        FROM leads AS lead
        LEFT JOIN sender_accounts AS account
            ON account.client_id = lead.client_id AND account.sender_id = lead.emailbison_sender_id AND {SENDABLE}
        WHERE lead.client_id IN (SELECT id FROM asked) GROUP BY lead.client_id
    )
    SELECT asked.location_id, coalesce(accounts, 0), coalesce(able, 0), coalesce(leads, 0), coalesce(without, 0)
    FROM asked LEFT JOIN counted ON counted.client_id = asked.id LEFT JOIN of_leads ON of_leads.client_id = asked.id
    ORDER BY asked.id
""")  # noqa: S608 - a constant of ours


def list_accounts(connection: Connection, location_ids: list[str]) -> list[AccountRow]:
    """The accounts of these locations' clients; by client, then by number."""
    return [AccountRow(*row) for row in connection.execute(_ACCOUNTS, {"locations": location_ids})]


_ACCOUNTS = text("""
    SELECT client.location_id, account.sender_id, account.status, account.can_send, account.gone_at IS NOT NULL,
        coalesce(account.refused_at >= account.seen_at, false), coalesce(of_leads.leads, 0)
    FROM clients AS client
    JOIN sender_accounts AS account ON account.client_id = client.id
    LEFT JOIN (
        SELECT lead.client_id, lead.emailbison_sender_id AS sender_id, count(*) AS leads FROM leads AS lead
        JOIN clients ON clients.id = lead.client_id AND clients.location_id = ANY(CAST(:locations AS text[]))
        GROUP BY lead.client_id, lead.emailbison_sender_id
    ) AS of_leads ON of_leads.client_id = account.client_id AND of_leads.sender_id = account.sender_id
    WHERE client.location_id = ANY(CAST(:locations AS text[]))
    ORDER BY client.id, account.sender_id
""")
