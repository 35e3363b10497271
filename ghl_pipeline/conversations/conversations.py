"""The messages of many locations at once in one process; one that fails never stops the rest."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Engine

from ghl_pipeline.conversations.catching_up import Looked
from ghl_pipeline.conversations.import_report import ImportReport
from ghl_pipeline.conversations.message_store import TellLeads, find_lead
from ghl_pipeline.conversations.sms_import import ImportRules, import_messages, import_of_lead
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.locations.clients import LocationAccess, location_access
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.orchestration.attempts import last_record, unfinished_since
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.many_locations import work_on_locations
from ghl_pipeline.orchestration.reports import History, NoHistory
from ghl_pipeline.privacy.tokens import TokenCipher

CAPABILITY = "conversations"
SMS_MESSAGES = "sms_messages"
DEFAULT_CONCURRENCY = 50


@dataclass(frozen=True, slots=True)
class MessagesResult:
    """Reports and failures by location. `busy`: another import is at work there. `skipped`: done in this attempt."""

    reports: tuple[ImportReport, ...]
    failures: tuple[FailedLocation, ...]
    busy: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeadMessages:
    """What an import of one lead's messages brought: rows that were not here before, and requests sent."""

    lead_id: int
    imported: int
    requests: int


class Conversations:
    """The capability with its collaborators. Safe to use from one event loop at a time."""

    def __init__(
        self,
        *,
        engine: Engine,
        cipher: TokenCipher,
        open_client: OpenClient,
        tell: TellLeads,
        open_interactive: OpenClient | None = None,
        rules: ImportRules | None = None,
    ) -> None:
        self._engine = engine
        self._cipher = cipher
        self._open_client = open_client
        self._tell = tell
        self._open_interactive = open_interactive or open_client
        self._rules = rules or ImportRules()

    def __repr__(self) -> str:
        return "Conversations()"

    async def import_messages(
        self,
        location_ids: Sequence[str],
        history: History | None = None,
        *,
        from_start: bool = False,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> MessagesResult:
        """Imports the SMS of locations; each is told to the history at the moment it is done.

        A location that this attempt has already done (a rerun of a killed run) is skipped; one at whose messages
        another import works right now needs none.

        Raises:
            asyncio.CancelledError: the run was stopped; what was stored is kept.
        """
        told = history or NoHistory()
        skipped = await in_thread(_done_before, told, location_ids)

        async def one(location_id: str) -> ImportReport:
            async with self._location(location_id, self._open_client) as (access, client):
                since = await in_thread(unfinished_since, self._engine, location_id, CAPABILITY)
                record = await in_thread(last_record, self._engine, location_id, CAPABILITY)
                report = await import_messages(
                    self._engine,
                    access,
                    client,
                    self._rules,
                    self._tell,
                    from_start=from_start,
                    linked_since=since,
                    last_look=Looked.of_record(record),
                )
            await in_thread(told.done, SMS_MESSAGES, location_id, report.as_report())
            return report

        result = await work_on_locations(
            self._engine,
            [location_id for location_id in location_ids if location_id not in skipped],
            one,
            capability=CAPABILITY,
            run_id=told.run_id,
            counts=ImportReport.as_record,
            concurrency=concurrency,
        )
        busy = tuple(f.location_id for f in result.failures if f.error_class == LocationBusy.__name__)
        return MessagesResult(
            tuple(result.reports.values()),
            tuple(failure for failure in result.failures if failure.location_id not in busy),
            busy,
            tuple(skipped),
        )

    async def import_of_lead(self, lead_id: int) -> LeadMessages:
        """Imports the SMS of one lead, now, with the requests that are kept for what a person waits for.

        Raises:
            UnknownClient: there is no such lead, or its client is not usable (inactive, no token).
            ExportStuck, GhlError: what came before is stored.
        """
        lead = await in_thread(find_lead, self._engine, lead_id)
        async with self._location(lead.location_id, self._open_interactive) as (access, client):
            imported = await import_of_lead(self._engine, access, client, lead_id, self._tell)
            return LeadMessages(lead_id, imported, client.usage.calls)

    @asynccontextmanager
    async def _location(
        self, location_id: str, opened: OpenClient
    ) -> AsyncIterator[tuple[LocationAccess, LocationClient]]:
        def access() -> LocationAccess:
            with self._engine.connect() as connection:
                return location_access(connection, self._cipher, location_id)

        granted = await in_thread(access)
        async with opened(granted) as client:
            yield granted, client


def _done_before(history: History, location_ids: Sequence[str]) -> list[str]:
    done = []
    for location_id in dict.fromkeys(location_ids):
        last = history.last_done(SMS_MESSAGES, location_id)
        if last is not None and last.get("attempt") == history.attempt:
            done.append(location_id)
    return done
