"""Handling a location's events: batch after batch, each claimed, worked off and written back, whatever goes wrong.

Four kinds of trouble end differently. An error of one event postpones that event. A bug does so too, once the batch has
been taken apart to find whose it is. A failure of the location (its token, its quota, GHL down) gives back whatever
needed GHL, untried, so that an outage of days makes no dead letters. Where only the token is missing the work goes on
to the last event, because some need none. A killed process leaves claims that run out.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ghl_pipeline.errors import ConfigurationError, DatabaseUnavailable, LocationBusy, UnknownClient
from ghl_pipeline.ghl.errors import DailyQuotaReached, GhlError, PermanentGhlError
from ghl_pipeline.locations.clients import ClientInactive, TokenMissing
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.privacy.redaction import safe_error_text
from ghl_pipeline.webhooks.handling.event_work import EventWork
from ghl_pipeline.webhooks.handling.reports import EventsReport
from ghl_pipeline.webhooks.handling.verdicts import Item, Place, Verdicts
from ghl_pipeline.webhooks.inbox.claims import (
    HANDLING,
    MOST_BYTES_AT_ONCE,
    REST_AFTER_FAILURE_SECONDS,
    REST_AFTER_REFUSAL_SECONDS,
    Claimed,
    claim,
    finish,
    postpone,
    release,
    renew,
)
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event

# What fails the location, or the database under it, and so no event in particular.
_OF_LOCATION = (
    GhlError, ConfigurationError, UnknownClient, ClientInactive, DatabaseUnavailable, LocationBusy, OperationalError,
    InterfaceError,
)  # fmt: skip
LONGEST_REST_SECONDS = 300


@dataclass(frozen=True, slots=True)
class HandlingRules:
    """How events are taken.

    Attributes:
        max_attempts: after so many failures an event waits for a person.
        batch_size: events that are worked off together; as many leads are looked up with one search or a few.
        batch_bytes: of their bodies together; a larger one is a batch of its own.
        lease_seconds: how long after a kill the events of a batch are left alone; a living worker renews it.
    """

    max_attempts: int = 8
    batch_size: int = 200
    batch_bytes: int = MOST_BYTES_AT_ONCE
    lease_seconds: float = 60.0


class EventHandling:
    """The capability with its collaborators. Safe to use for many locations at once in one event loop."""

    def __init__(self, engine: Engine, work: EventWork, rules: HandlingRules | None = None) -> None:
        self.engine = engine
        self._work = work
        self._rules = rules or HandlingRules()

    def __repr__(self) -> str:
        return "EventHandling()"

    async def handle_location(self, location_id: str) -> EventsReport:
        """Handles the due events of a location until none is left.

        Raises:
            GhlError, UnknownClient, InvalidInput, ConfigurationError, DatabaseUnavailable: the location as a whole
                failed. Its events wait for it without counting an attempt.
            asyncio.CancelledError: stopped; what is open is given back.
        """
        place = await in_thread(self._place, location_id)
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(6)}"
        report = EventsReport()
        tokenless: TokenMissing | None = None
        rested_until = time.monotonic() + REST_AFTER_REFUSAL_SECONDS / 2
        while batch := await in_thread(self._claim, location_id, holder):
            try:
                report += await self._batch(place, holder, batch)
            except TokenMissing as error:
                # What is behind these events may need no token. They rest, so none is met twice.
                tokenless = error
                if time.monotonic() > rested_until:
                    break
        if tokenless is not None:
            raise tokenless
        return report

    def _place(self, location_id: str) -> Place:
        with self.engine.connect() as connection:
            client_id = connection.execute(
                text("SELECT id FROM clients WHERE location_id = :location_id"), {"location_id": location_id}
            ).scalar()
        if client_id is None:
            raise UnknownClient(f"No client has location {location_id}. See: ghl-pipeline clients list")
        return Place(client_id, location_id)

    def _claim(self, location_id: str, holder: str) -> list[Claimed]:
        with self.engine.begin() as connection:
            return claim(
                connection,
                location_id,
                holder,
                size=self._rules.batch_size,
                lease_seconds=self._rules.lease_seconds,
                max_attempts=self._rules.max_attempts,
                most_bytes=self._rules.batch_bytes,
            )

    async def _batch(self, place: Place, holder: str, batch: list[Claimed]) -> EventsReport:
        verdicts = Verdicts()
        try:
            async with self._kept(place.location_id, holder):
                items = self._read(place, batch, verdicts)
                await self._handle(place, items, verdicts)
            for item in verdicts.open(items):
                # Given back untried it would be due at once, and again, for ever.
                verdicts.postpone(item.claimed, RuntimeError("no verdict"))
        except asyncio.CancelledError:
            await in_thread(self._settle, holder, batch, verdicts, None, datetime.now(UTC))
            raise
        except _OF_LOCATION as error:
            # With the database gone nothing can be given back: the claims run out by themselves.
            with contextlib.suppress(DBAPIError, DatabaseUnavailable):
                due_at = await in_thread(self._rested_at, place.location_id, error)
                told = (type(error).__name__, safe_error_text(error))
                await in_thread(self._settle, holder, batch, verdicts, told, due_at)
            raise
        return await in_thread(self._settle, holder, batch, verdicts, None, datetime.now(UTC))

    def _read(self, place: Place, batch: list[Claimed], verdicts: Verdicts) -> list[Item]:
        """The events that can be read. The bodies in `batch` are let go: 50 locations may be at work for minutes."""
        items: list[Item] = []
        for at, claimed in enumerate(batch):
            batch[at] = replace(claimed, body=None)
            try:
                if claimed.body is None:
                    raise UnreadableEvent("UnreadableEvent: the event's body is not kept any more.")
                event = read_event(
                    claimed.provider,
                    claimed.body,
                    location_id=place.location_id,
                    received_at=claimed.received_at,
                )
            except Exception as error:  # noqa: BLE001 - whatever one body does to the reader is that event's problem
                verdicts.postpone(claimed, error)
            else:
                items.append(Item(batch[at], event))
        return items

    async def _handle(self, place: Place, items: Sequence[Item], verdicts: Verdicts) -> None:
        """Works events off together; if a bug stops that, one by one, and only the event that has it is postponed."""
        try:
            await self._work.handle(place, items, verdicts)
        except _OF_LOCATION:
            raise
        except Exception as error:  # noqa: BLE001 - a bug, or a value that the database refuses
            if len(items) == 1:
                verdicts.postpone(items[0].claimed, error)
                return
            for item in verdicts.open(items):
                await self._handle(place, [item], verdicts)

    @asynccontextmanager
    async def _kept(self, location_id: str, holder: str) -> AsyncIterator[None]:
        """Renews the claims while the batch is worked off; waiting for GHL's limit can take longer than a lease."""

        def renewed() -> None:
            with contextlib.suppress(DBAPIError), self.engine.begin() as connection:
                renew(connection, location_id, holder, self._rules.lease_seconds)

        async def keep() -> None:
            while True:
                await asyncio.sleep(self._rules.lease_seconds / 3)
                await in_thread(renewed)

        keeper = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    def _settle(
        self,
        holder: str,
        batch: Collection[Claimed],
        verdicts: Verdicts,
        error: tuple[str, str] | None,
        due_at: datetime,
    ) -> EventsReport:
        """Writes every verdict in one transaction, and gives back what has none."""
        open_ids = [e.id for e in batch if e.id not in verdicts.done and e.id not in verdicts.postponed]
        with self.engine.begin() as connection:
            finish(connection, holder, list(verdicts.done.values()))
            setback = postpone(
                connection, holder, list(verdicts.postponed.values()), max_attempts=self._rules.max_attempts
            )
            release(connection, holder, open_ids, error=error, due_at=due_at)
        now = datetime.now(UTC)
        report = EventsReport(
            postponed=setback.postponed,
            dead=setback.dead,
            requests=verdicts.requests,
            phones_refused=verdicts.phones_refused,
            values_refused=verdicts.values_refused,
        )
        for claimed in batch:
            if done := verdicts.done.get(claimed.id):
                lag = max(0.0, (now - claimed.received_at).total_seconds())
                report += EventsReport({done.outcome.value: 1}, {claimed.event_type: 1}, lags=(lag,))
        return report

    def _rested_at(self, location_id: str, error: Exception) -> datetime:
        """When a location that failed is tried again: at once a few times, then every five minutes.

        One that refused is left alone until a person may have acted, or until its day's quota is new.
        """
        now = datetime.now(UTC)
        if isinstance(error, DailyQuotaReached) and error.resets_at is not None:
            return error.resets_at
        if isinstance(error, PermanentGhlError | ConfigurationError | UnknownClient | ClientInactive):
            return now + timedelta(seconds=REST_AFTER_REFUSAL_SECONDS)
        query = text("""
            SELECT count(*) FROM (
                SELECT state, bool_or(state = 'succeeded') OVER (ORDER BY id DESC) AS is_before
                FROM (SELECT id, state FROM location_attempts
                      WHERE capability = :capability AND location_id = :location_id AND state <> 'running'
                      ORDER BY id DESC LIMIT 10) AS latest
            ) AS ended WHERE state = 'failed' AND NOT is_before
        """)
        with self.engine.connect() as connection:
            values = {"capability": HANDLING, "location_id": location_id}
            failures = int(connection.execute(query, values).scalar_one())
        return now + timedelta(seconds=min(LONGEST_REST_SECONDS, REST_AFTER_FAILURE_SECONDS * 2**failures))
