"""A client with a location in the sandbox, its leads and messages, and the import put together for them.

The parts are the real ones; only retries pause for milliseconds and limits are wide.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text

from ghl_pipeline.conversations.conversations import Conversations
from ghl_pipeline.conversations.import_report import ImportReport
from ghl_pipeline.conversations.sms_import import ImportRules, import_messages
from ghl_pipeline.database.tables import leads
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.errors import CallFacts
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.locations.clients import LocationAccess, add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.conversations import Direction, Message
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.webhooks.handling.imported_messages import news_of_imports
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

QUICK = RetryPolicy(max_attempts=2, max_429=2, deadline_seconds=10.0, first_pause_seconds=0.002)
EXPORT = "GET /conversations/messages/export"
RULES = ImportRules(first=timedelta(days=30), overlap=timedelta(minutes=10))
TELL = news_of_imports(frozenset({"do_not_contact"}))


class Unthrottled:
    """Limits are not what is tested here."""

    async def sent(self, at: float) -> None:
        """Has no slot to move."""

    async def acquire(self, facts: CallFacts) -> float:
        """Never waits."""
        return 0.0

    async def refused(self, pause_seconds: float | None) -> None:
        """Does not pause."""

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Has no limit to learn."""


def ago(**span: float) -> int:
    """The instant so long ago, in epoch milliseconds, as the sandbox keeps times."""
    return int((datetime.now(UTC) - timedelta(**span)).timestamp() * 1000)


@dataclass
class Place:
    """A client and its location."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher
    client_id: int
    ghl: Location

    @property
    def id(self) -> str:
        return self.ghl.id

    @property
    def access(self) -> LocationAccess:
        return LocationAccess(self.id, self.client_id, "Acme", SecretStr(self.ghl.token), "US", "UTC")

    def lead(self, contact_id: str | None, **fields: object) -> int:
        """A lead, linked to the contact."""
        values = {"client_id": self.client_id, "ghl_contact_id": contact_id, **fields}
        row = insert(leads).values(values).returning(leads.c.id)
        with self.engine.begin() as connection:
            return int(connection.execute(row).scalar_one())

    def sms(self, contact_id: str, body: str, direction: Direction = "inbound", **fields: object) -> Message:
        """A message at GHL."""
        return self.ghl.add_message(contact_id, body, direction, **fields)  # type: ignore[arg-type]

    def many(self, number: int, contact_ids: list[str], *, minutes: float = 1200.0) -> list[str]:
        """So many messages of the contacts by turns, evenly over the last minutes; their ids, oldest first."""
        first, step = ago(minutes=minutes + 1), minutes * 60_000 / number
        return [
            self.sms(contact_ids[n % len(contact_ids)], f"text {n}", at=first + int(n * step)).id for n in range(number)
        ]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[LocationClient]:
        async with open_client(
            base_url=self.sandbox.url,
            location_id=self.id,
            token=SecretStr(self.ghl.token),
            throttle=Unthrottled(),
            policy=QUICK,
            timeout_seconds=5.0,
        ) as client:
            yield client

    async def imported(self, rules: ImportRules = RULES, *, from_start: bool = False) -> ImportReport:
        """Imports as one run does."""
        async with self.client() as client:
            return await import_messages(self.engine, self.access, client, rules, TELL, from_start=from_start)

    def rows(self) -> list[Mapping[str, object]]:
        """The client's messages here, oldest first."""
        query = text("SELECT * FROM messages WHERE client_id = :id ORDER BY sent_at, id")
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query, {"id": self.client_id})]

    def external_ids(self) -> list[object]:
        return [row["external_id"] for row in self.rows()]

    def mark(self) -> datetime | None:
        """Up to when messages are imported."""
        query = text("SELECT imported_until FROM message_imports WHERE client_id = :id")
        with self.engine.connect() as connection:
            moment: datetime | None = connection.execute(query, {"id": self.client_id}).scalar_one()
            return moment

    def requests(self) -> dict[str, int]:
        """Requests for the export, by status."""
        counted: dict[str, int] = self.sandbox.stats(self.id)["by_route"].get(EXPORT, {})
        return counted


@dataclass
class Agency:
    """Makes clients."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet(Fernet.generate_key())], "this test"))

    def place(self, name: str = "Acme") -> Place:
        ghl = self.sandbox.add_location(requests=10_000)
        with self.engine.begin() as connection:
            client = add_client(connection, self.cipher, name=name, location_id=ghl.id, token=SecretStr(ghl.token))
        return Place(self.engine, self.sandbox, self.cipher, client.id, ghl)

    def conversations(self, rules: ImportRules = RULES) -> Conversations:
        """The capability against the sandbox."""

        @asynccontextmanager
        async def opened(access: LocationAccess) -> AsyncIterator[LocationClient]:
            async with open_client(
                base_url=self.sandbox.url,
                location_id=access.location_id,
                token=access.token,
                throttle=Unthrottled(),
                policy=QUICK,
                timeout_seconds=5.0,
            ) as client:
                yield client

        return Conversations(engine=self.engine, cipher=self.cipher, open_client=opened, tell=TELL, rules=rules)


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox)


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


def contact_ids(number: int) -> list[str]:
    """Ids as GHL gives contacts, all different."""
    return [f"Contact{n:013d}" for n in range(number)]
