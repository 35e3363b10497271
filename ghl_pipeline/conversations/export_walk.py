"""A whole export, page by page, whatever becomes of its cursor.

A cursor stands for a snapshot at GHL and dies when it rests for some two minutes, as it does while a location waits on
its rate limit. The walk then begins a new export where the last one had come to. Nothing is stored here.
"""

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import datetime

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import (
    GhlError,
    GhlServerError,
    LocationAccessDenied,
    RequestRejected,
    SearchContextLost,
)
from ghl_pipeline.ghl.message_payloads import MessageExport, MessagePage

# Reported lifetime of a cursor: 120 s after the last request. One that rested for longer than this is not tried.
CURSOR_RESTS_AT_MOST_SECONDS = 100.0
# New exports in a row that came no further than the one before.
ATTEMPTS_WITHOUT_PROGRESS = 2

# What GHL says of a dead cursor is not documented. A 403 was seen for a wrong one, and its search gives 5xx and "point
# in time" texts for a lost snapshot. Where it is not the cursor, the new export meets the same error.
_MAY_BE_THE_CURSOR = (RequestRejected, LocationAccessDenied, SearchContextLost, GhlServerError)


class ExportStuck(PipelineError):
    """GHL gave no further page, however often the export was begun anew."""


class ExportWalk:
    """One export from its start to its end.

    Attributes:
        latest: the time of the latest message handed out, None before the first.
        latest_past: of the latest one that is not dated after `now`, None before the first such one.
        restarts: how often the export was begun anew.
    """

    def __init__(
        self,
        client: LocationClient,
        export: MessageExport,
        *,
        now: datetime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latest: datetime | None = None
        self.latest_past: datetime | None = None
        self.restarts = 0
        self._client = client
        self._export = export
        self._now = now
        self._clock = clock
        self._is_descending = False
        self._has_ascended = False
        self._previous: datetime | None = None
        self._handed_out = 0
        self._furthest = 0
        self._attempts_without_progress = 0

    @property
    def reached(self) -> datetime | None:
        """Every message up to then was handed out; None while that cannot be said before the walk has ended.

        That is while no page has shown that the messages come oldest first, and once one has shown that they do not.
        """
        return self.latest if self._has_ascended and not self._is_descending else None

    @property
    def covered(self) -> datetime | None:
        """As `reached`, but a time that has come, as the next import may go on from it.

        A message can be dated in the future (a scheduled one), and what comes until then is yet to be handed out. Nor
        is `now` a time up to which anything was: GHL's clock is its own, and may be behind.
        """
        return None if self.reached is None else self.latest_past

    async def pages(self) -> AsyncGenerator[MessagePage, None]:
        """Every page; after a restart some messages come again.

        Raises:
            ExportStuck: new exports came no further than the one before, twice in a row.
            GhlError: any branch.
        """
        export = self._export
        seen: set[str] = set()
        while True:
            try:
                page = await self._client.exported_messages(export)
            except _MAY_BE_THE_CURSOR as error:
                if export.cursor is None:
                    raise
                export = self._anew(error)
                seen.clear()
                continue
            has_progressed = self._note(page)
            answered_at = self._clock()
            yield page
            cursor = page.next_cursor
            if cursor is None or not (page.messages or page.unreadable):
                return
            # Without progress a new export would bring the same page: so many messages of one instant that only the
            # cursor gets past them.
            has_rested = self._clock() - answered_at > CURSOR_RESTS_AT_MOST_SECONDS and has_progressed
            if cursor in seen or has_rested:
                export = self._anew(None)
                seen.clear()
            else:
                seen.add(cursor)
                export = export.following(cursor)

    def _note(self, page: MessagePage) -> bool:
        """Takes in the order and the dates of a page; returns whether the walk came further by it."""
        before = self.latest
        for message in page.messages:
            if self._previous is not None:
                self._is_descending |= message.sent_at < self._previous
                self._has_ascended |= message.sent_at > self._previous
            self._previous = message.sent_at
            self.latest = max(self.latest or message.sent_at, message.sent_at)
            if self._now is None or message.sent_at <= self._now:
                self.latest_past = max(self.latest_past or message.sent_at, message.sent_at)
        self._handed_out += len(page.messages) + page.unreadable
        has_moved = self.reached is not None and (before is None or self.reached > before)
        has_progressed = has_moved or (self._is_descending and self._handed_out > self._furthest)
        if has_progressed:
            self._attempts_without_progress = 0
        self._furthest = max(self._furthest, self._handed_out)
        return has_progressed

    def _anew(self, error: GhlError | None) -> MessageExport:
        """The export from where the walk has come to."""
        self.restarts += 1
        if self._attempts_without_progress >= ATTEMPTS_WITHOUT_PROGRESS:
            said = f" GHL's last answer: {type(error).__name__} ({error.facts.status})." if error else ""
            raise ExportStuck(
                f"ExportStuck: location {self._client.location_id}: the export of messages came no further, though it "
                f"was begun anew {self._attempts_without_progress} times.{said} What was imported is kept. Run it "
                "again later: ghl-pipeline import-messages"
            )
        self._attempts_without_progress += 1
        self._previous = None
        self._handed_out = 0
        return replace(self._export, start=self.reached or self._export.start)
