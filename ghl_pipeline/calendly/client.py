"""The Calendly API (v2) as the owner of one token reaches it: who they are, what can be booked, and when.

Reading only. What a booking link means is not decided here; that is `availability/`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

import httpx
import msgspec
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type

from ghl_pipeline.calendly.errors import CalendlyAccessDenied, CalendlyError, CalendlyRefused, CalendlyUnavailable
from ghl_pipeline.calendly.payloads import (
    Account,
    EventType,
    EventTypePage,
    decode_available_times,
    decode_event_types,
    decode_me,
)
from ghl_pipeline.calendly.retries import RetryPolicy, read_pause
from ghl_pipeline.call_retries import CallClock

T = TypeVar("T")

EVENT_TYPES_ROUTE = "/event_types"
TIMES_ROUTE = "/event_type_available_times"
# At 100 a page, far more than an organization has; beyond it something repeats itself.
MOST_PAGES = 200
PAGE_SIZE = 100


class CalendlyClient:
    """Calendly as one token opens it. Its token and its connections are its own; its `repr` shows neither.

    `calls` counts the requests sent; each attempt is one.
    """

    def __init__(
        self, location_id: str, base_url: str, http: httpx.AsyncClient, timeout_seconds: float, policy: RetryPolicy
    ) -> None:
        self.location_id = location_id
        self.calls = 0
        self._base_url = base_url
        self._http = http
        self._timeout = timeout_seconds
        self._policy = policy

    def __repr__(self) -> str:
        return f"CalendlyClient({self.location_id})"

    async def me(self) -> Account:
        """Whose token it is. Raises CalendlyError."""
        return await self._get("/users/me", {}, decode_me)

    async def event_types(
        self, *, user: str | None = None, organization: str | None = None
    ) -> AsyncIterator[tuple[EventType, ...]]:
        """All event types of a user, or of an organization with those of its teams, page by page.

        Args:
            user: URI; Calendly wants one of the two.
            organization: URI.

        Raises:
            CalendlyAccessDenied: the token's owner may not see the organization's.
            CalendlyRefused: a page led back to an earlier one, or there was no end.
            CalendlyError: any other branch.
        """
        whose = {"user": user} if user is not None else {"organization": organization or ""}
        params = {**whose, "count": str(PAGE_SIZE)}
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            page: EventTypePage = await self._get(EVENT_TYPES_ROUTE, params, decode_event_types)
            yield page.event_types
            token = page.next_page_token
            if token is None:
                return
            if token in seen:
                raise CalendlyRefused(self.location_id, EVENT_TYPES_ROUTE, what="sent the same page again")
            seen.add(token)
            params = {**params, "page_token": token}
        raise CalendlyRefused(self.location_id, EVENT_TYPES_ROUTE, what=f"had no end after {MOST_PAGES} pages")

    async def available_times(self, event_type: str, start: datetime, end: datetime) -> tuple[datetime, ...]:
        """The free times of an event type, aware, UTC.

        Args:
            event_type: its URI.
            start: aware, in the future.
            end: aware; at most 31 days later, 7 before July 2026.

        Raises:
            CalendlyRefused: also for a longer span (400) and an event type that is gone (404).
            CalendlyError: any other branch.
        """
        params = {"event_type": event_type, "start_time": _instant(start), "end_time": _instant(end)}
        return await self._get(TIMES_ROUTE, params, decode_available_times)

    async def _get(self, route: str, params: Mapping[str, str], read: Callable[[bytes], T]) -> T:
        clock = CallClock(self._policy)

        async def attempt() -> T:
            answer = await self._send(route, params, min(self._timeout, clock.remaining_seconds()))
            # Raised here, where no foreign exception is being handled: as its `__context__` that one would carry the
            # request, with its token, into whatever prints or stores the error.
            if isinstance(answer, CalendlyError):
                raise answer
            if not answer.is_success:
                raise self._refusal(route, answer)
            try:
                return read(answer.content)
            except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
                pass
            raise CalendlyUnavailable(
                self.location_id, route, status=answer.status_code, what="sent no JSON of its own"
            )

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(CalendlyUnavailable), stop=clock.stop, wait=clock.pause, reraise=True
        )
        return await retrying(attempt)

    async def _send(
        self, route: str, params: Mapping[str, str], timeout_seconds: float
    ) -> httpx.Response | CalendlyError:
        self.calls += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._http.get(f"{self._base_url}{route}", params=dict(params))
        except TimeoutError:
            return CalendlyUnavailable(self.location_id, route, what="gave no answer in time", timed_out=True)
        # ValueError: a token with a line break; InvalidURL: a base URL that is none. Neither is a HTTPError.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return CalendlyUnavailable(self.location_id, route, what="could not be reached")

    def _refusal(self, route: str, answer: httpx.Response) -> CalendlyError:
        status = answer.status_code
        if status in (401, 403):
            return CalendlyAccessDenied(self.location_id, route, status=status)
        if status in (408, 429) or status >= 500:
            after = read_pause(answer.headers, status)
            return CalendlyUnavailable(self.location_id, route, status=status, retry_after=after)
        return CalendlyRefused(self.location_id, route, status=status)


@asynccontextmanager
async def open_calendly(
    *,
    base_url: str,
    location_id: str,
    token: SecretStr,
    timeout_seconds: float,
    policy: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[CalendlyClient]:
    """A client of its own for one token; no connection is made before the first call.

    Args:
        base_url: of the API.
        location_id: whose calendar it is, for the texts of errors.
        token: sent to the base URL only, since neither redirects nor the links of pages are followed.
        timeout_seconds: the longest wait for one answer.
        policy: how often a call is tried; None: the usual.
        transport: for tests.
    """
    # As bytes: a token that is no ASCII would make httpx raise an error with the token in it.
    headers = {b"Authorization": b"Bearer " + token.get_secret_value().encode(), b"Accept": b"application/json"}
    # The client times the call as a whole; a server that trickles never runs into httpx's timeout of each phase.
    async with httpx.AsyncClient(
        headers=headers,
        timeout=None,  # noqa: S113
        transport=transport,
        verify=_certificates(),
    ) as http:
        yield CalendlyClient(location_id, base_url.rstrip("/"), http, timeout_seconds, policy or RetryPolicy())


@cache
def _certificates() -> ssl.SSLContext:
    # Loading them takes 29 ms in which no other client moves; every one can use the same.
    return httpx.create_ssl_context()


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
