"""Filling in what webhooks lost: EmailBison's own log of events, read again and stored through the same inbox.

EmailBison tries a delivery a few times within a day and then drops it; its log keeps ten days. Only events that do
something here are asked for: the others (each e-mail sent, each one opened) are hundreds of pages a day. The log comes
newest first, so it is read day by day, the oldest day first: whatever ends a look, the days before are done.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from ghl_pipeline.database.connection import opened
from ghl_pipeline.emailbison.client import WorkspaceClient, open_workspace
from ghl_pipeline.emailbison.errors import EmailBisonWrongWorkspace
from ghl_pipeline.emailbison.payloads import EventRow
from ghl_pipeline.locations.emailbison import WorkspaceAccess, events_were_seen, workspace_access
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.events import EventKind, Provider, UnreadableEvent
from ghl_pipeline.webhooks.inbox.store_events import Delivery, Stored, store_deliveries
from ghl_pipeline.webhooks.reading.emailbison_events import USED_TYPES
from ghl_pipeline.webhooks.reading.read_event import read_event

# As EmailBison documents it; an older event is not in its log any more.
EVENTS_ARE_KEPT = timedelta(days=10)


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """What a look for lost events found; the counts after `seen` add up to it.

    Attributes:
        location_id: whose workspace it was.
        start, until: the time that was looked at, aware; None when nothing was asked.
        seen: events of that time in EmailBison's log, of the types that are asked for.
        new: those that the webhook had lost, now in the inbox.
        known: those that were in it.
        of_no_use: those that do nothing here all the same (nobody is named), which are not stored.
        refused: of another workspace.
        unreadable: that are no events as webhooks send them. The time is looked at again if all are.
        not_stored: that the inbox could not take. The time is looked at again.
        skipped: why nothing was asked; None when it was.
    """

    location_id: str
    start: datetime | None = None
    until: datetime | None = None
    seen: int = 0
    new: int = 0
    known: int = 0
    of_no_use: int = 0
    refused: int = 0
    unreadable: int = 0
    not_stored: int = 0
    skipped: str | None = None


@dataclass(slots=True)
class _Counts:
    seen: int = 0
    new: int = 0
    known: int = 0
    of_no_use: int = 0
    refused: int = 0
    unreadable: int = 0
    not_stored: int = 0

    @property
    def is_read(self) -> bool:
        """Whether all that was seen so far is dealt with.

        If nothing can be read, the log's form has changed; one broken event must not hold up the others for ten days.
        """
        nothing_of_ours = self.seen > 0 and self.unreadable + self.refused == self.seen
        return not nothing_of_ours and self.not_stored == 0

    @property
    def is_of_another_workspace(self) -> bool:
        return self.refused > 0 and self.unreadable + self.refused == self.seen


async def reconcile_location(
    settings: Settings, engine: Engine, cipher: TokenCipher, location_id: str, *, now: datetime | None = None
) -> ReconcileReport:
    """Looks for lost events of the location's client; skips one that has no workspace, or none that can be asked.

    Args:
        settings: the timeout, and how far the looks overlap.
        engine: of the dashboard database.
        cipher: decrypts the token.
        location_id: of an active client.
        now: aware; None: the time now.

    Raises:
        UnknownClient, ClientInactive, TokenUnreadable: as `workspace_access`.
        EmailBisonWrongWorkspace: all events were another workspace's; the same time is looked at again.
        EmailBisonError: EmailBison did not answer; what was stored stays, and the day it was at is looked at again.
        DatabaseUnavailable: the same of the database.
    """

    def read_access() -> WorkspaceAccess | None:
        with opened(engine) as connection:
            return workspace_access(connection, cipher, location_id)

    access = await in_thread(read_access)
    if access is None:
        return ReconcileReport(location_id, skipped="the client has no EmailBison workspace")
    opening = _opening(settings, access)
    if opening is None:
        return ReconcileReport(location_id, skipped="the client's EmailBison workspace has no token")
    overlap = timedelta(seconds=settings.emailbison_overlap_seconds)
    async with opening as client:
        return await reconcile_workspace(engine, access, client, overlap=overlap, now=now or datetime.now(UTC))


async def reconcile_workspace(
    engine: Engine, access: WorkspaceAccess, client: WorkspaceClient, *, overlap: timedelta, now: datetime
) -> ReconcileReport:
    """Stores every event since the last look that is not in the inbox. Doing it again changes nothing.

    Args:
        engine: of the dashboard database.
        access: the workspace, and when its last look was.
        client: reads the workspace's log.
        overlap: how far before the last look this one begins, for clocks that differ and events that come late.
        now: aware; the log is read up to here, and from here the next time.

    Raises:
        EmailBisonWrongWorkspace, EmailBisonError, DatabaseUnavailable: as `reconcile_location`.
    """
    oldest = now - EVENTS_ARE_KEPT
    start = oldest if access.events_seen_until is None else max(oldest, access.events_seen_until - overlap)
    counts = _Counts()
    for begin, end in _days(start, now):
        # The last day has no end: what happens meanwhile is stored too. The mark moves to `now` only, so that nothing
        # falls between two looks.
        async for page in client.events(begin, end if end < now else None, USED_TYPES):
            await _store(engine, access, page, counts)
        if counts.is_read:
            await in_thread(_note, engine, access, end)
    if counts.is_of_another_workspace:
        raise EmailBisonWrongWorkspace(access.workspace_id, "/events")
    return ReconcileReport(access.location_id, start, now, **asdict(counts))


def _days(start: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
    """The time between the two in days of UTC, as the log is asked for; the first and the last are parts of one."""
    days: list[tuple[datetime, datetime]] = []
    begin = start
    while begin < now:
        midnight = begin.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        days.append((begin, min(midnight, now)))
        begin = midnight
    return days


async def _store(engine: Engine, access: WorkspaceAccess, page: Sequence[EventRow], counts: _Counts) -> None:
    deliveries = _deliveries(access, page, counts)
    if not deliveries:
        return
    for answer in await in_thread(store_deliveries, engine, deliveries):
        if not isinstance(answer, Stored):
            counts.not_stored += 1
        elif answer.is_new:
            counts.new += 1
        else:
            counts.known += 1


def _deliveries(access: WorkspaceAccess, page: Sequence[EventRow], counts: _Counts) -> list[Delivery]:
    deliveries: list[Delivery] = []
    for row in page:
        counts.seen += 1
        try:
            event = read_event(Provider.EMAILBISON, row.body, location_id=access.location_id)
        except UnreadableEvent:
            counts.unreadable += 1
            continue
        if event.workspace_id != access.workspace_id:
            counts.refused += 1
        elif event.kind is EventKind.OTHER:
            counts.of_no_use += 1
        else:
            event = replace(event, occurred_at=event.occurred_at or row.created_at)
            deliveries.append(Delivery(event, row.body, access.client_id, access.location_id, found_by="reconcile"))
    return deliveries


def _note(engine: Engine, access: WorkspaceAccess, until: datetime) -> None:
    with engine.begin() as connection:
        events_were_seen(connection, access, until)


def _opening(settings: Settings, access: WorkspaceAccess) -> AbstractAsyncContextManager[WorkspaceClient] | None:
    if access.token is None:
        return None
    return open_workspace(
        base_url=access.base_url,
        workspace_id=access.workspace_id,
        token=access.token,
        timeout_seconds=settings.emailbison_timeout_seconds,
    )
