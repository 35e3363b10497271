"""Clients with an EmailBison workspace at the sandbox, their leads, and the capability put together for them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, insert, select, text, update

from ghl_pipeline.database.tables import campaign_senders, leads, metadata, sender_accounts
from ghl_pipeline.emailbison.retries import RetryPolicy
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.locations.emailbison import set_workspace
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline.senders.healing import Healing, heal
from ghl_pipeline.senders.report import SendersReport, SendersResult
from ghl_pipeline.senders.senders import Senders
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

QUICK = RetryPolicy(max_attempts=2, deadline_seconds=5.0, first_pause_seconds=0.01)
_numbers = itertools.count(1)


@dataclass
class Client:
    """A client in the database and its workspace at the sandbox."""

    engine: Engine
    id: int
    location_id: str
    workspace: Workspace

    def lead(self, sender_id: int | None = None, campaign_id: int | None = None, **values: object) -> int:
        """Adds a lead; returns its id."""
        row = {"emailbison_sender_id": sender_id, "emailbison_campaign_id": campaign_id, **values}
        with self.engine.begin() as connection:
            found: int = connection.execute(
                insert(leads).values(client_id=self.id, **row).returning(leads.c.id)
            ).scalar_one()
            return found

    def account(self, sender_id: int, **values: object) -> None:
        """Adds an account as a listing would have stored it."""
        row = {"can_send": True, **values}
        with self.engine.begin() as connection:
            connection.execute(insert(sender_accounts).values(client_id=self.id, sender_id=sender_id, **row))

    def change_account(self, sender_id: int, **values: object) -> None:
        """Changes an account as stored."""
        with self.engine.begin() as connection:
            connection.execute(
                update(sender_accounts)
                .where(sender_accounts.c.client_id == self.id, sender_accounts.c.sender_id == sender_id)
                .values(**values)
            )

    def campaign(self, campaign_id: int, *sender_ids: int) -> None:
        """Says by which accounts a campaign sends."""
        rows = [{"client_id": self.id, "campaign_id": campaign_id, "sender_id": each} for each in sender_ids]
        with self.engine.begin() as connection:
            connection.execute(insert(campaign_senders), rows)

    def heal(self, lead_id: int, refused: int | None = None) -> Healing:
        """`heal` in a transaction of its own."""
        with self.engine.begin() as connection:
            return heal(connection, lead_id, refused)

    def sender_of(self, lead_id: int) -> int | None:
        """The account that the lead has."""
        with self.engine.connect() as connection:
            found: int | None = connection.execute(
                select(leads.c.emailbison_sender_id).where(leads.c.id == lead_id)
            ).scalar_one()
            return found

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The client's rows of a table, in the order of its key."""
        source = metadata.tables[table]
        query = select(source).where(source.c.client_id == self.id).order_by(*source.primary_key)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def accounts(self) -> dict[int, Mapping[str, Any]]:
        """The accounts as stored, by id."""
        return {row["sender_id"]: row for row in self.rows("sender_accounts")}

    def healings(self) -> list[tuple[int, str, int | None, int | None]]:
        """What is on record: lead, reason, account before, account given."""
        return [
            (row["lead_id"], row["reason"], row["replaced_sender_id"], row["sender_id"])
            for row in self.rows("sender_healings")
        ]


@dataclass
class Agency:
    """Some clients, and the capability."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher

    def add_client(self, *, mailboxes: int = 3, with_token: bool = True, workspace_id: int | None = None) -> Client:
        """A client with a workspace of so many mailboxes."""
        location_id = self.sandbox.add_location().id
        workspace = self.sandbox.world.add_workspace(location_id)
        for _ in range(mailboxes - 3):
            workspace.mailboxes.add()
        for number in range(mailboxes, 3):
            workspace.mailboxes.remove(number + 1)
        with self.engine.begin() as connection:
            name = f"Client {next(_numbers)}"
            client_id = add_client(connection, self.cipher, name=name, location_id=location_id).id
        client = Client(self.engine, client_id, location_id, workspace)
        self.use(client, workspace_id or workspace.id, workspace.token if with_token else None)
        return client

    def use(self, client: Client, workspace_id: int, token: str | None) -> None:
        """Stores the client's workspace."""
        with self.engine.begin() as connection:
            set_workspace(
                connection,
                self.cipher,
                client.location_id,
                base_url=f"{self.sandbox.url}/emailbison",
                workspace_id=workspace_id,
                token=None if token is None else SecretStr(token),
            )

    def senders(self) -> Senders:
        """The capability; its retries pause for milliseconds."""
        return Senders(self.engine, self.cipher, timeout_seconds=2.0, policy=QUICK)

    async def sync(self, *clients: Client) -> SendersResult:
        """Lists and repairs."""
        return await self.senders().sync([client.location_id for client in clients])

    async def report(self, client: Client) -> SendersReport:
        """Lists and repairs one; its failure fails the test."""
        return await self.senders().sync_location(client.location_id)

    def let_time_pass(self) -> None:
        """Moves every refusal and listing an hour back."""
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE sender_accounts SET refused_at = refused_at - interval '1 hour', "
                    "seen_at = seen_at - interval '1 hour'"
                )
            )


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox, TokenCipher([Fernet(Fernet.generate_key())], "this test"))


@pytest.fixture
def client(agency: Agency) -> Client:
    return agency.add_client()


def loads(client: Client) -> Sequence[int]:
    """How many leads each account that a lead has, has; the fewest first."""
    counted: dict[int, int] = {}
    for row in client.rows("leads"):
        if row["emailbison_sender_id"] is not None:
            counted[row["emailbison_sender_id"]] = counted.get(row["emailbison_sender_id"], 0) + 1
    return sorted(counted.values())
