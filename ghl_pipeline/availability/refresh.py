"""One client's free times as its provider shows them now: find the calendar, ask it, judge the answer.

An empty answer is believed when it is explained. The calendar has to be there and bookable, as its provider says in
the same run. If free times were known that are still to come, one empty answer does not outweigh them, because a
provider in trouble also answers with nothing: only when the look before was empty too, at least ten minutes ago, it is
true that nothing is free.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ghl_pipeline.availability.client_calendars import ClientCalendar
from ghl_pipeline.availability.outcomes import Provider, Reason, SlotsStale, State
from ghl_pipeline.availability.providers import Providers
from ghl_pipeline.availability.resolve import Resolved, Resolver, Unresolved
from ghl_pipeline.availability.slots import HORIZON, bookable, chunks, read_slot, zone_of
from ghl_pipeline.calendly.client import CalendlyClient
from ghl_pipeline.calendly.errors import CalendlyAccessDenied, CalendlyRefused
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.ghl.calendar_payloads import MOST_SLOT_DAYS
from ghl_pipeline.ghl.errors import CalendarNotFound

# Calendly wants a start in the future, by its clock; nobody books a time two minutes ahead.
CALENDLY_LEAD = timedelta(minutes=2)
# What Calendly allowed before July 2026, and allows in any case.
CALENDLY_OLD_CHUNK_DAYS = 7
CONFIRMED_AFTER = timedelta(minutes=10)
# Of a client's time, for each step of the resolution. The rest is for the slots.
STEP_SHARE = 0.25

_UNSUPPORTED = frozenset(
    {
        Reason.NOT_A_LINK,
        Reason.UNKNOWN_PAGE,
        Reason.GHL_GROUP,
        Reason.CALENDLY_SINGLE_USE,
        Reason.CALENDLY_PROFILE,
    }
)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a client's calendar said.

    Attributes:
        state: fresh, no_slots, stale or unsupported.
        reason: why it is stale or unsupported; of a fresh one, what people have to know of it.
        slots: the free times, aware, UTC, in order; only when fresh.
        resolved: the calendar that was asked.
        error: what failed, for the run; None when the state is nobody's failure.
    """

    state: State
    reason: Reason | None = None
    slots: tuple[datetime, ...] = ()
    resolved: Resolved | None = None
    error: Exception | None = None


class Refresh:
    """One look for one client."""

    def __init__(
        self,
        calendar: ClientCalendar,
        providers: Providers,
        *,
        budget_seconds: float,
        calendly_chunk_days: int,
        now: datetime | None = None,
    ) -> None:
        self._now = (now or datetime.now(UTC)).astimezone(UTC)
        self._calendar = calendar
        self._providers = providers
        self._resolver = Resolver(calendar, providers, budget_seconds * STEP_SHARE, self._now.date())
        self._calendly_chunk_days = calendly_chunk_days

    async def look(self) -> Looked:
        """Asks, and judges the answer.

        Raises:
            PipelineError: no answer that could be judged.
        """
        found = await self._resolver.resolve()
        if isinstance(found, Unresolved):
            return _without_calendar(found)
        try:
            slots = await self._slots(found)
        except _Gone as gone:
            # What was remembered is gone, or was never a calendar: once more, from the link.
            again = await self._resolver.resolve(believe_cache=False)
            if isinstance(again, Unresolved):
                return _without_calendar(again)
            if again.calendar_id == found.calendar_id:
                raise gone.error from None
            found, slots = again, await self._slots_of_another(again)
        if slots:
            reason = Reason.TIME_ZONE_UNREAD if found.zone is None or found.zone.is_unread else None
            return Looked(State.FRESH, reason, slots=slots, resolved=found)
        return await self._judge_empty(found)

    async def _judge_empty(self, found: Resolved) -> Looked:
        calendar = self._calendar
        if not found.was_seen:
            seen = await self._resolver.resolve(believe_cache=False)
            if isinstance(seen, Unresolved):
                return _without_calendar(seen)
            if seen.calendar_id != found.calendar_id:
                return Looked(State.STALE, Reason.EMPTY_UNCONFIRMED, resolved=found)
        was_empty_before = (
            calendar.state is State.STALE
            and calendar.reason == Reason.EMPTY_UNCONFIRMED
            and calendar.tried_at is not None
            and calendar.tried_at <= self._now - CONFIRMED_AFTER
        )
        if calendar.future_slots and not was_empty_before:
            return Looked(State.STALE, Reason.EMPTY_UNCONFIRMED, resolved=found)
        return Looked(State.NO_SLOTS, resolved=found)

    async def _slots_of_another(self, found: Resolved) -> tuple[datetime, ...]:
        try:
            return await self._slots(found)
        except _Gone as gone:
            raise gone.error from None

    async def _slots(self, found: Resolved) -> tuple[datetime, ...]:
        """The free times of the next 30 days. Raises PipelineError; `_Gone` when there is no such calendar."""
        if found.provider is Provider.CALENDLY:
            return await self._calendly_slots(found)
        client = await self._providers.ghl()
        end = self._now + HORIZON
        try:
            texts = [
                text
                for since, until in chunks(self._now, end, MOST_SLOT_DAYS)
                for text in await client.free_slots(found.calendar_id, since, until)
            ]
        except CalendarNotFound as error:
            raise _Gone(error) from None
        zone = zone_of(found.zone.used if found.zone else self._calendar.client_zone)
        moments = [read_slot(text, zone) for text in texts]
        if None in moments:
            # A time that is left out would be taken for one that is not free.
            raise SlotsStale(self._calendar.location_id, Reason.UNREADABLE)
        return bookable((moment for moment in moments if moment is not None), self._now, end)

    async def _calendly_slots(self, found: Resolved) -> tuple[datetime, ...]:
        client = await self._providers.calendly()
        if client is None:
            raise SlotsStale(self._calendar.location_id, Reason.CALENDLY_TOKEN_MISSING)
        try:
            return await self._calendly_chunks(client, found, self._calendly_chunk_days)
        except CalendlyRefused as error:
            if error.status == 404:
                raise _Gone(error) from None
            if error.status not in (400, 422) or self._calendly_chunk_days <= CALENDLY_OLD_CHUNK_DAYS:
                raise
        return await self._calendly_chunks(client, found, CALENDLY_OLD_CHUNK_DAYS)

    async def _calendly_chunks(self, client: CalendlyClient, found: Resolved, days: int) -> tuple[datetime, ...]:
        start, end = self._now + CALENDLY_LEAD, self._now + HORIZON
        moments: list[datetime] = []
        try:
            for since, until in chunks(start, end, days):
                moments += await client.available_times(found.calendar_id, since, until)
        except CalendlyAccessDenied as error:
            # An event type of somebody else's is forbidden, not unknown.
            if error.status == 403:
                raise _Gone(error) from None
            raise
        return bookable(moments, self._now, end)


class _Gone(Exception):
    """The provider has no such calendar."""

    def __init__(self, error: PipelineError) -> None:
        super().__init__()
        self.error = error


def _without_calendar(found: Unresolved) -> Looked:
    state = State.UNSUPPORTED if found.reason in _UNSUPPORTED else State.STALE
    return Looked(state, found.reason, error=found.error)
