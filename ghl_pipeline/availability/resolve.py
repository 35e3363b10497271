"""Which calendar a client's free times are in.

It is looked for in steps, one after the other, each bounded in time:

1. what was found before, while link and configuration are unchanged, and while GHL's calendar still is what it was;
2. the id in the link;
3. the slug in the link, against the location's calendars;
4. Calendly's event types, by their scheduling URL;
5. the calendar of the location that is configured for the case that the link leads nowhere.

A step that fails or takes too long leaves the turn to the next. Only if none finds a calendar is the failure the
answer, because then it cannot be said that there is none. No web page is read.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from ghl_pipeline.availability.client_calendars import ClientCalendar
from ghl_pipeline.availability.links import BookingLink, LinkKind, normal_url
from ghl_pipeline.availability.outcomes import Provider, Reason, ResolvedBy, SlotsStale
from ghl_pipeline.availability.providers import Providers
from ghl_pipeline.availability.reasons import SHUT, reason_of
from ghl_pipeline.availability.time_zones import Zone, zone_now
from ghl_pipeline.calendly.client import CalendlyClient
from ghl_pipeline.calendly.errors import CalendlyAccessDenied
from ghl_pipeline.calendly.payloads import Account, EventType
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.ghl.calendar_payloads import Calendar
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.errors import CalendarNotFound, GhlError, LocationAccessDenied


@dataclass(frozen=True, slots=True)
class Resolved:
    """The calendar to ask. Its `repr` shows no id: of Calendly that is part of a link.

    Attributes:
        provider: whose it is.
        calendar_id: GHL's id, or the URI of Calendly's event type.
        by: the step that found it.
        is_certain: whether the next run may believe it: it is what the link names, and no step before it failed.
        was_seen: whether the provider said in this run that it exists and can be booked.
        zone: its time zone; None only inside the resolution.
    """

    provider: Provider
    calendar_id: str = field(repr=False)
    by: ResolvedBy
    is_certain: bool
    was_seen: bool
    zone: Zone | None = None


@dataclass(frozen=True, slots=True)
class Unresolved:
    """No calendar, for this reason; `error` when a step failed, so that there may be one."""

    reason: Reason
    error: PipelineError | None = None


class Resolver:
    """One resolution for one client."""

    def __init__(self, calendar: ClientCalendar, providers: Providers, step_seconds: float, today: date) -> None:
        self._calendar = calendar
        self._providers = providers
        self._step_seconds = step_seconds
        self._today = today
        self._zones: dict[Provider, Zone] = {}
        self._account_zone: str | None = None
        self._failures: list[PipelineError] = []
        self._noted: list[Reason] = []
        self._ghl_is_shut = False

    async def resolve(self, *, believe_cache: bool = True) -> Resolved | Unresolved:
        """The calendar, or why there is none.

        Args:
            believe_cache: not when what was found before has just turned out to be gone.

        Raises:
            PipelineError: what was found before cannot be asked, because GHL takes no request of the location.
        """
        found = await self._find(believe_cache=believe_cache)
        return found if isinstance(found, Unresolved) else replace(found, zone=await self._zone_of(found.provider))

    async def _find(self, *, believe_cache: bool) -> Resolved | Unresolved:
        if believe_cache and (cached := await self._cached()) is not None:
            return cached
        link, auto = self._calendar.link, self._calendar.auto_booking_calendar_id
        found = None if link is None else await self._of_link(link)
        if found is None and auto is not None:
            found = await self._step(self._by_auto_booking(auto))
        if found is not None:
            return found
        if self._failures:
            return Unresolved(reason_of(self._failures[0]), self._failures[0])
        if link is not None and link.reason is not None:
            return Unresolved(link.reason)
        return Unresolved(self._noted[0] if self._noted else Reason.LINK_NOT_FOUND)

    async def _of_link(self, link: BookingLink) -> Resolved | None:
        if link.kind is LinkKind.UNSUPPORTED:
            return None
        if link.kind is LinkKind.CALENDLY:
            return await self._step(self._by_scheduling_url(link.names[0]))
        by_id = await self._step(self._by_id(link.names[0])) if link.kind is LinkKind.GHL_ID else None
        # What looks like an id may be a slug all the same.
        return by_id or await self._step(self._by_slug(link.names))

    async def _step(self, step: Coroutine[None, None, Resolved | None]) -> Resolved | None:
        """What a step finds within its time; its failure is kept, and it then has found nothing."""
        try:
            async with asyncio.timeout(self._step_seconds):
                return await step
        except TimeoutError:
            self._failures.append(SlotsStale(self._calendar.location_id, Reason.TIMEOUT))
        except _Shut:
            pass
        except PipelineError as error:
            self._failures.append(error)
            self._ghl_is_shut |= isinstance(error, SHUT)
        return None

    async def _cached(self) -> Resolved | None:
        """What was found before, unless GHL says that it is no more what the link names."""
        calendar = self._calendar
        if calendar.provider is None or not calendar.provider_calendar_id or not calendar.is_remembered:
            return None
        was_seen = False
        if calendar.provider is Provider.GHL:
            try:
                async with asyncio.timeout(self._step_seconds):
                    found = await self._own_calendar(calendar.provider_calendar_id)
                if found is None or not found.is_active or not self._is_linked(found):
                    return None
                was_seen = True
            except LocationAccessDenied:
                return None
            except SHUT:
                raise
            except (TimeoutError, GhlError):
                pass  # nothing was said against it; whether it answers at all, its slots will tell
        return Resolved(
            calendar.provider, calendar.provider_calendar_id, ResolvedBy.CACHE, is_certain=True, was_seen=was_seen
        )

    def _is_linked(self, found: Calendar) -> bool:
        """Whether a slug in the link still is the calendar's; an agency may give it to another one."""
        link = self._calendar.link
        if link is None or link.kind is not LinkKind.GHL_SLUG:
            return True
        return any(found.is_called(name) for name in link.names)

    async def _by_id(self, calendar_id: str) -> Resolved | None:
        try:
            found = await self._own_calendar(calendar_id)
        except LocationAccessDenied:
            # For another location's calendar, or for any: then the list, which is asked next, says it too.
            return None
        return self._usable([found] if found else [], ResolvedBy.LINK_ID)

    async def _by_slug(self, names: Sequence[str]) -> Resolved | None:
        calendars = await (await self._ghl()).calendars()
        matches = [each for name in names for each in calendars if each.is_called(name) or each.id == name]
        return self._usable(matches, ResolvedBy.SLUG)

    async def _by_auto_booking(self, calendar_id: str) -> Resolved | None:
        found = await self._own_calendar(calendar_id)
        return self._usable([found] if found else [], ResolvedBy.AUTO_BOOKING)

    async def _by_scheduling_url(self, wanted: str) -> Resolved | None:
        client = await self._providers.calendly()
        if client is None:
            self._noted.append(Reason.CALENDLY_TOKEN_MISSING)
            return None
        account = await client.me()
        found = await _scheduled_at(client, account, wanted)
        if found is None:
            return None
        if not found.is_active:
            self._noted.append(Reason.CALENDAR_INACTIVE)
            return None
        self._account_zone = account.time_zone
        return Resolved(
            Provider.CALENDLY, found.uri, ResolvedBy.SCHEDULING_URL, is_certain=not self._failures, was_seen=True
        )

    def _usable(self, found: Sequence[Calendar], by: ResolvedBy) -> Resolved | None:
        """The first calendar that can be booked."""
        active = next((each for each in found if each.is_active), None)
        if active is None:
            if found:
                self._noted.append(Reason.CALENDAR_INACTIVE)
            return None
        # The one that stands in for the link is not believed again: the link may lead somewhere by then.
        is_certain = by is not ResolvedBy.AUTO_BOOKING and not self._failures
        return Resolved(Provider.GHL, active.id, by, is_certain=is_certain, was_seen=True)

    async def _own_calendar(self, calendar_id: str) -> Calendar | None:
        """The calendar of this id, if there is one and it is the location's."""
        try:
            found = await (await self._ghl()).calendar(calendar_id)
        except CalendarNotFound:
            return None
        return found if found.location_id in (None, self._calendar.location_id) else None

    async def _zone_of(self, provider: Provider) -> Zone:
        """Outside the steps: a zone that cannot be read makes no calendar unknown. Asked for once."""
        if provider not in self._zones:
            told = self._account_zone if provider is Provider.CALENDLY else None
            self._zones[provider] = await zone_now(
                self._calendar, provider, self._providers, seconds=self._step_seconds, today=self._today, told=told
            )
        return self._zones[provider]

    async def _ghl(self) -> LocationClient:
        if self._ghl_is_shut:
            raise _Shut
        return await self._providers.ghl()


class _Shut(Exception):
    """GHL takes no request of the location; the failure that said so is kept already."""


async def _scheduled_at(client: CalendlyClient, account: Account, wanted: str) -> EventType | None:
    """The event type whose page this is: the user's own, else one of the organization's teams; an active one first."""
    inactive: EventType | None = None
    for whose in ({"user": account.user}, {"organization": account.organization}):
        if None in whose.values():
            continue
        try:
            async for page in client.event_types(**whose):
                for each in page:
                    if each.scheduling_url is None or normal_url(each.scheduling_url) != wanted:
                        continue
                    if each.is_active:
                        return each
                    inactive = each
        except CalendlyAccessDenied as error:
            # Only the organization's administrators may list what is not their own.
            if "user" in whose or error.status != 403:
                raise
    return inactive
