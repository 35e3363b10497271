"""The accounts of many clients: listed, then leads repaired whose account cannot send any more.

One location at a time: ask whose workspace the token opens, list its accounts, ask the campaigns that matter, repair.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import Engine

from ghl_pipeline.database.connection import opened
from ghl_pipeline.emailbison.client import WorkspaceClient, open_workspace
from ghl_pipeline.emailbison.errors import EmailBisonError, EmailBisonWrongWorkspace
from ghl_pipeline.emailbison.retries import RetryPolicy
from ghl_pipeline.emailbison.sender_lists import SenderEmail, SenderList
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.locations.emailbison import WorkspaceAccess, workspace_access
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.many_locations import work_on_locations
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.senders.doubt import DOUBTED_SINCE
from ghl_pipeline.senders.listing import Listed, campaigns_to_ask, now_of, store_accounts, store_campaign
from ghl_pipeline.senders.repair import repair_client
from ghl_pipeline.senders.report import CAPABILITY, SendersReport, SendersResult

SENDER_ACCOUNTS = "sender_accounts"
NO_WORKSPACE = "the client has no EmailBison workspace; to give it one: ghl-pipeline clients set-emailbison"
NO_TOKEN = "the client's EmailBison workspace has no token; to give it one: ghl-pipeline clients set-emailbison"  # noqa: S105 - a sentence
CHANGED_MEANWHILE = "the client was given another workspace or token meanwhile; the next run lists that one"


@dataclass(slots=True)
class _Asked:
    """What asking the campaigns came to."""

    campaigns: int = 0
    unknown: int = 0
    error: EmailBisonError | None = None


class Senders:
    """The capability with its collaborators."""

    def __init__(
        self, engine: Engine, cipher: TokenCipher, *, timeout_seconds: float, policy: RetryPolicy | None = None
    ) -> None:
        self._engine = engine
        self._cipher = cipher
        self._timeout = timeout_seconds
        self._policy = policy

    def __repr__(self) -> str:
        return "Senders()"

    async def sync(
        self,
        location_ids: Sequence[str],
        *,
        run_id: str | None = None,
        told: Callable[[str, SendersReport], None] | None = None,
    ) -> SendersResult:
        """Lists the accounts of these locations' clients and repairs their leads; one that fails stops no other.

        A location that another run is at is left to it, which is no failure.

        Args:
            location_ids: which.
            run_id: of the Dagster run, None outside one.
            told: called with each location that could be asked, when it is done.

        Raises:
            asyncio.CancelledError: the run was stopped.
        """

        async def work(location_id: str) -> SendersReport:
            report = await self.sync_location(location_id)
            if told is not None and report.skipped is None:
                await in_thread(told, location_id, report)
            return report

        result = await work_on_locations(
            self._engine, location_ids, work, capability=CAPABILITY, run_id=run_id, counts=_counts
        )
        busy = tuple(f.location_id for f in result.failures if f.error_class == LocationBusy.__name__)
        failures = tuple(failure for failure in result.failures if failure.location_id not in busy)
        return SendersResult(result.reports, failures, busy)

    async def sync_location(self, location_id: str) -> SendersReport:
        """Lists and repairs one location; skips a client that has no workspace, or none that can be asked.

        Raises:
            UnknownClient, ClientInactive, TokenUnreadable: as `workspace_access`.
            EmailBisonWrongWorkspace: the token opens another workspace; nothing was stored.
            EmailBisonError: EmailBison did not answer. If the accounts could be listed and only a campaign could not,
                they are stored and the leads repaired all the same.
            DatabaseUnavailable: the same of the database.
        """
        began = time.monotonic()
        access, at = await in_thread(self._access, location_id)
        if access is None:
            return SendersReport(location_id, skipped=NO_WORKSPACE)
        if access.token is None:
            return SendersReport(location_id, skipped=NO_TOKEN)
        async with self._open(access, access.token) as client:
            await _require_own_workspace(client)
            accounts = await client.sender_emails()
            listed = await in_thread(self._store, access, accounts, at)
            if listed is None:
                return SendersReport(location_id, skipped=CHANGED_MEANWHILE)
            asked = await self._ask_campaigns(client, access)
        repaired = await in_thread(repair_client, self._engine, access.client_id)
        if asked.error is not None:
            raise asked.error
        return SendersReport(
            location_id,
            accounts=listed.accounts,
            able=listed.able,
            unknown_statuses=listed.unknown_statuses,
            gone=listed.gone,
            doubted_since=listed.doubted_since,
            campaigns=asked.campaigns,
            campaigns_unknown=asked.unknown,
            healed=repaired.healed,
            left_without=repaired.left_without,
            requests=client.calls,
            seconds=time.monotonic() - began,
        )

    async def _ask_campaigns(self, client: WorkspaceClient, access: WorkspaceAccess) -> _Asked:
        """Asks campaign by campaign. The first error ends it: the next campaign would wait as long for the same."""
        asked = _Asked()
        for campaign_id in await in_thread(self._campaigns, access.client_id):
            try:
                members = await client.campaign_senders(campaign_id)
            except EmailBisonError as error:
                asked.error = error
                break
            asked.campaigns += 1
            asked.unknown += members is None
            await in_thread(self._store_campaign, access, campaign_id, members or ())
        return asked

    def _access(self, location_id: str) -> tuple[WorkspaceAccess | None, datetime]:
        with opened(self._engine) as connection:
            return workspace_access(connection, self._cipher, location_id), now_of(connection)

    def _store(self, access: WorkspaceAccess, accounts: SenderList, at: datetime) -> Listed | None:
        with self._engine.begin() as connection:
            return store_accounts(connection, access, accounts, at)

    def _campaigns(self, client_id: int) -> list[int]:
        with self._engine.connect() as connection:
            return campaigns_to_ask(connection, client_id)

    def _store_campaign(self, access: WorkspaceAccess, campaign_id: int, members: Sequence[SenderEmail]) -> None:
        with self._engine.begin() as connection:
            store_campaign(connection, access, campaign_id, members)

    def _open(self, access: WorkspaceAccess, token: SecretStr) -> AbstractAsyncContextManager[WorkspaceClient]:
        return open_workspace(
            base_url=access.base_url,
            workspace_id=access.workspace_id,
            token=token,
            timeout_seconds=self._timeout,
            policy=self._policy,
        )


async def _require_own_workspace(client: WorkspaceClient) -> None:
    """Accounts carry no workspace, so that those of another client's would go unnoticed."""
    opens = await client.workspace_of_token()
    if opens is not None and opens != client.workspace_id:
        raise EmailBisonWrongWorkspace(
            client.workspace_id, "/users", what="showed that the token opens another workspace; nothing was stored"
        )


def _counts(report: SendersReport) -> Mapping[str, object]:
    if report.skipped is not None:
        return {"skipped": report.skipped}
    since = {DOUBTED_SINCE: report.doubted_since.isoformat()} if report.doubted_since else {}
    return {**report.counts(), **since}
