"""What may be asked of one location of the GHL API: searching and reading only.

There is deliberately no method that creates or changes a contact here.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Unpack

import httpx
import msgspec

from ghl_pipeline.ghl.answer_headers import AnswerHeaders
from ghl_pipeline.ghl.calendar_payloads import (
    CALENDARS_ROUTE,
    CALENDARS_VERSION,
    Calendar,
    decode_calendar,
    decode_calendars,
    decode_free_slots,
)
from ghl_pipeline.ghl.calls import CallOptions, LocationCalls, Request, Usage, open_calls
from ghl_pipeline.ghl.errors import (
    CALENDAR_ROUTE,
    CONTACT_ROUTE,
    FREE_SLOTS_ROUTE,
    CalendarNotFound,
    ContactNotFound,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.ids import is_calendar_id, is_contact_id
from ghl_pipeline.ghl.location_payloads import (
    CUSTOM_FIELDS_ROUTE,
    MOST_OPPORTUNITIES,
    OPPORTUNITIES_ROUTE,
    CustomField,
    OpportunityPage,
    decode_custom_fields,
    decode_opportunities,
)
from ghl_pipeline.ghl.message_payloads import (
    CONVERSATIONS_VERSION,
    EXPORT_ROUTE,
    MessageExport,
    MessagePage,
    decode_messages,
)
from ghl_pipeline.ghl.payloads import (
    Contact,
    Location,
    SearchPage,
    User,
    decode_contact,
    decode_detailed_contact,
    decode_location,
    decode_search,
    decode_users,
)
from ghl_pipeline.ghl.search import ContactSearch


class LocationClient:
    """The API as one location reads it. Its `repr` shows neither token nor connections.

    `heard` is what the headers of its last answer said, of success or refusal; None before the first.
    """

    def __init__(self, calls: LocationCalls) -> None:
        self._calls = calls

    def __repr__(self) -> str:
        return f"LocationClient({self.location_id})"

    @property
    def location_id(self) -> str:
        """Whose client it is."""
        return self._calls.location_id

    @property
    def usage(self) -> Usage:
        """What it has spent so far."""
        return self._calls.usage

    @property
    def heard(self) -> AnswerHeaders | None:
        """What the headers of the last answer said."""
        return self._calls.heard

    @property
    def uses_previous_token(self) -> bool:
        """Whether GHL refused the location's token and took the one before it."""
        return self._calls.uses_previous_token

    async def search_contacts(self, search: ContactSearch) -> SearchPage:
        """One page of contacts that match, at most `search.page_limit` (1 to 500).

        Raises:
            GhlError: any branch; RequestRejected when GHL does not take the filters.
        """
        body = msgspec.json.encode(search.body(self.location_id))
        decode = partial(decode_search, detailed=search.detailed)
        return await self._calls.call(Request("POST", "/contacts/search", "/contacts/search", body=body), decode)

    async def search_all_pages(self, search: ContactSearch) -> AsyncIterator[SearchPage]:
        """Every page of a search, by cursor. Ends at an empty page, at the total, or at a cursor that comes again."""
        seen: set[tuple[str, ...]] = set()
        received = 0
        while True:
            page = await self.search_contacts(search)
            yield page
            received += len(page.contacts) + page.unreadable
            cursor = page.next_cursor
            all_received = page.total is not None and received >= page.total
            if cursor is None or all_received or (mark := tuple(map(str, cursor))) in seen:
                return
            seen.add(mark)
            search = search.following(cursor)

    async def contact(self, contact_id: str, *, detailed: bool = False) -> Contact:
        """The contact with this id, as GHL has it now (a search lags behind writes by up to a minute).

        Args:
            contact_id: whose.
            detailed: whether its details are read too.

        Raises:
            ContactNotFound: the id is unknown or deleted, or no id at all; that one is not sent.
            GhlError: any other branch.
        """
        request = Request("GET", CONTACT_ROUTE, f"/contacts/{contact_id}")
        if not is_contact_id(contact_id):
            raise ContactNotFound(self._calls.facts(request))
        contact = await self._calls.call(request, decode_detailed_contact if detailed else decode_contact)
        if contact is None:
            raise UnreadableAnswer(self._calls.facts(request))
        return contact

    async def duplicate_of(self, email: str, *, detailed: bool = False) -> Contact | None:
        """The contact that GHL would call a duplicate of this address; takes addresses that `eq` refuses as too long.

        Raises:
            GhlError: any branch.
        """
        params = {"locationId": self.location_id, "email": email}
        route = "/contacts/search/duplicate"
        decode = decode_detailed_contact if detailed else decode_contact
        return await self._calls.call(Request("GET", route, route, params=params), decode)

    async def exported_messages(self, export: MessageExport) -> MessagePage:
        """One page of the location's messages. A cursor that rested for some two minutes is refused.

        Raises:
            GhlError: any branch; RequestRejected, most likely, for a cursor that died (GHL documents no answer for it).
        """
        params = export.params(self.location_id)
        request = Request("GET", EXPORT_ROUTE, EXPORT_ROUTE, params=params, version=CONVERSATIONS_VERSION)
        return await self._calls.call(request, decode_messages)

    async def location(self) -> Location:
        """The location's own record. Raises GhlError."""
        path = f"/locations/{self.location_id}"
        return await self._calls.call(Request("GET", "/locations/{locationId}", path), decode_location)

    async def custom_fields(self) -> tuple[CustomField, ...]:
        """The fields that the location defined for its contacts. Raises GhlError; ScopeMissing without its scope."""
        path = f"/locations/{self.location_id}/customFields"
        request = Request("GET", CUSTOM_FIELDS_ROUTE, path, params={"model": "contact"})
        return await self._calls.call(request, decode_custom_fields)

    async def opportunities(self, after: Mapping[str, str] | None = None) -> OpportunityPage:
        """One page of the location's opportunities, newest first; `after` is the cursor of the page before.

        Raises:
            GhlError: any branch; ScopeMissing without its scope.
        """
        # This one route spells its parameter with an underscore.
        params = {"location_id": self.location_id, "limit": str(MOST_OPPORTUNITIES), **(after or {})}
        request = Request("GET", OPPORTUNITIES_ROUTE, OPPORTUNITIES_ROUTE, params=params)
        return await self._calls.call(request, decode_opportunities)

    async def users(self) -> tuple[User, ...]:
        """The location's staff. Raises GhlError."""
        params = {"locationId": self.location_id}
        return await self._calls.call(Request("GET", "/users/", "/users/", params=params), decode_users)

    async def calendars(self) -> tuple[Calendar, ...]:
        """The location's calendars, those that are switched off included. Raises GhlError; ScopeMissing."""
        request = Request(
            "GET", CALENDARS_ROUTE, CALENDARS_ROUTE, {"locationId": self.location_id}, version=CALENDARS_VERSION
        )
        return await self._calls.call(request, decode_calendars)

    async def calendar(self, calendar_id: str) -> Calendar:
        """The calendar with this id.

        Raises:
            CalendarNotFound: there is none, or it can be no id; that one is not sent.
            GhlError: any other branch; LocationAccessDenied, most likely, for another location's calendar.
        """
        request = Request("GET", CALENDAR_ROUTE, f"/calendars/{calendar_id}", version=CALENDARS_VERSION)
        if not is_calendar_id(calendar_id):
            raise CalendarNotFound(self._calls.facts(request))
        return await self._calls.call(request, decode_calendar)

    async def free_slots(self, calendar_id: str, start: datetime, end: datetime) -> tuple[str, ...]:
        """The calendar's free times, as GHL writes them: with the offset of the calendar's zone.

        Args:
            calendar_id: whose.
            start: aware.
            end: aware, at most 31 days after `start`.

        Raises:
            CalendarNotFound: there is no such calendar.
            GhlError: any other branch.
        """
        # Any parameter that GHL does not know, such as a locationId, is refused with 422.
        params = {"startDate": str(_milliseconds(start)), "endDate": str(_milliseconds(end))}
        path = f"/calendars/{calendar_id}/free-slots"
        request = Request("GET", FREE_SLOTS_ROUTE, path, params, version=CALENDARS_VERSION)
        if not is_calendar_id(calendar_id):
            raise CalendarNotFound(self._calls.facts(request))
        return await self._calls.call(request, decode_free_slots)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@asynccontextmanager
async def open_client(
    *, transport: httpx.AsyncBaseTransport | None = None, **options: Unpack[CallOptions]
) -> AsyncIterator[LocationClient]:
    """A client of its own for one location: its token cannot be sent for another, its pool is not shared.

    Raises nothing by itself: no connection is made before the first call.
    """
    async with open_calls(transport=transport, **options) as calls:
        yield LocationClient(calls)
