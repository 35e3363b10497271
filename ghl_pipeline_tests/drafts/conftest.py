"""A client that is switched on for drafts, its leads and their messages, and the sandbox's language models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text

from ghl_pipeline.database.tables import leads, messages
from ghl_pipeline.drafts.build import build_drafts
from ghl_pipeline.drafts.client_settings import set_drafts
from ghl_pipeline.drafts.drafts import Drafts, DraftsResult
from ghl_pipeline.drafts.report import DraftsReport
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.llm_providers import LlmProvider
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


def llm_settings(sandbox: Sandbox, **changes: object) -> Settings:
    """Settings with both providers, which are the sandbox's."""
    return Settings().model_copy(
        update={
            "openai_api_key": SecretStr(sandbox.world.llm.openai.key),
            "openai_base_url": f"{sandbox.url}/_llm/openai/v1",
            "anthropic_api_key": SecretStr(sandbox.world.llm.anthropic.key),
            "anthropic_base_url": f"{sandbox.url}/_llm/anthropic",
            **changes,
        }
    )


@dataclass
class Place:
    """A client, its rows, and drafts put together for it."""

    engine: Engine
    sandbox: Sandbox
    client_id: int
    id: str
    counter: list[int] = field(default_factory=lambda: [0])

    @property
    def openai(self) -> LlmProvider:
        return self.sandbox.world.llm.openai

    @property
    def anthropic(self) -> LlmProvider:
        return self.sandbox.world.llm.anthropic

    @property
    def calls(self) -> tuple[int, int]:
        """Calls of the first and of the second provider."""
        return self.openai.calls, self.anthropic.calls

    def always(self, first: str, second: str = "ok") -> None:
        """What every request of either provider meets."""
        self.openai.always(first)
        self.anthropic.always(second)

    def lead(self, **fields: object) -> int:
        values = {"client_id": self.client_id, "first_name": "Ada", **fields}
        with self.engine.begin() as connection:
            return int(connection.execute(insert(leads).values(values).returning(leads.c.id)).scalar_one())

    def message(
        self, lead_id: int, body: str = "Can you come on Tuesday?", *, minutes: float = 5.0, **fields: object
    ) -> int:
        """A message so many minutes ago; an inbound SMS unless said otherwise."""
        self.counter[0] += 1
        values: dict[str, object] = {
            "client_id": self.client_id,
            "lead_id": lead_id,
            "provider": "ghl",
            "external_id": f"message-{self.client_id}-{self.counter[0]}",
            "channel": "sms",
            "direction": "inbound",
            "body": body,
            "source": "webhook",
            "sent_at": datetime.now(UTC) - timedelta(minutes=minutes),
            **fields,
        }
        with self.engine.begin() as connection:
            return int(connection.execute(insert(messages).values(values).returning(messages.c.id)).scalar_one())

    def email(self, lead_id: int, body: str = "Tell me more.", **fields: object) -> int:
        """An inbound e-mail that EmailBison marked as interested."""
        whole = {"provider": "emailbison", "channel": "email", "is_interested": True, **fields}
        return self.message(lead_id, body, **whole)  # type: ignore[arg-type]

    def sms(self, **fields: object) -> int:
        """A new lead with one message that wants a draft."""
        return self.message(self.lead(**fields))

    def models(self) -> tuple[str, str]:
        """Of the first and of the second provider."""
        settings = llm_settings(self.sandbox)
        return settings.openai_model, settings.anthropic_model

    def drafts(self, **settings: object) -> Drafts:
        return build_drafts(llm_settings(self.sandbox, **settings), self.engine)

    async def write(self, *, again: bool = False, **settings: object) -> DraftsReport:
        """Writes what is wanted here, as one run does."""
        result = await self.drafts(**settings).write([self.id], again=again)
        return only(result)

    def rows(self) -> list[Mapping[str, Any]]:
        """The client's drafts, oldest first."""
        query = text("SELECT * FROM reply_drafts WHERE client_id = :id ORDER BY id")
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query, {"id": self.client_id})]

    def row(self) -> Mapping[str, Any]:
        (row,) = self.rows()
        return row

    def sql(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), {"client_id": self.client_id, **values})


def only(result: DraftsResult) -> DraftsReport:
    assert result.failures == ()
    (report,) = result.reports
    return report


@dataclass
class Agency:
    """Makes clients."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet(Fernet.generate_key())], "this test"))

    def place(self, name: str = "Acme", *, tone: str | None = None, on: bool = True) -> Place:
        ghl = self.sandbox.add_location()
        with self.engine.begin() as connection:
            client = add_client(connection, self.cipher, name=name, location_id=ghl.id, time_zone="America/New_York")
            if on:
                set_drafts(connection, ghl.id, tone=tone)
        return Place(self.engine, self.sandbox, client.id, ghl.id)


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox)


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()
