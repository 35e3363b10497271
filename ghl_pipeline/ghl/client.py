"""Calls to one location of the GHL API: throttled, retried, typed, and searching only.

There is deliberately no method that creates or changes a contact here.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TypeVar

import aiohttp
import httpx
import msgspec
from pydantic import SecretStr

from ghl_pipeline.ghl.answer_headers import AnswerHeaders, read_headers
from ghl_pipeline.ghl.connections import ConnectionsClient, watch_sending
from ghl_pipeline.ghl.errors import (
    CONTACT_ROUTE,
    CallFacts,
    ContactNotFound,
    DailyQuotaReached,
    GhlError,
    GhlTimeout,
    GhlUnreachable,
    RateLimited,
    UnreadableAnswer,
    error_for_status,
)
from ghl_pipeline.ghl.ids import is_contact_id
from ghl_pipeline.ghl.payloads import (
    Contact,
    Location,
    SearchPage,
    User,
    decode_contact,
    decode_error,
    decode_location,
    decode_search,
    decode_users,
)
from ghl_pipeline.ghl.retries import LONGEST_PAUSE_SECONDS, CallBudget, RetryPolicy, call_with_retries
from ghl_pipeline.ghl.search import ContactSearch
from ghl_pipeline.ghl.throttle import Throttle, quota_resets_at

T = TypeVar("T")

# The version each OpenAPI document names for these routes; GHL answers 401 without one.
API_VERSION = "2021-07-28"
# Enough for a page's lookups side by side; the throttle, not the pool, is what limits.
MAX_CONNECTIONS = 20
# The longest a refusal can mean is until the daily quota starts anew.
LONGEST_RETRY_AFTER = 86_400.0


@dataclass(slots=True)
class Usage:
    """What a client has spent: requests sent (each attempt counts), and seconds waited on the limit."""

    calls: int = 0
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    route: str
    path: str
    params: dict[str, str] | None = None
    body: bytes | None = None


class LocationClient:
    """The API as one location sees it. Its token and its connections are its own; its `repr` shows neither.

    `heard` is what the headers of its last answer said, of success or refusal; None before the first.
    """

    def __init__(
        self, location_id: str, http: httpx.AsyncClient, throttle: Throttle, policy: RetryPolicy, timeout_seconds: float
    ) -> None:
        self.location_id = location_id
        self.usage = Usage()
        self.heard: AnswerHeaders | None = None
        self._http = http
        self._throttle = throttle
        self._policy = policy
        self._timeout = timeout_seconds
        # A slot of the throttle is for now, so it is asked for when a connection is free, never before.
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)

    def __repr__(self) -> str:
        return f"LocationClient({self.location_id})"

    async def search_contacts(self, search: ContactSearch) -> SearchPage:
        """One page of contacts that match, at most `search.page_limit` (1 to 500).

        Raises:
            GhlError: any branch; RequestRejected when GHL does not take the filters.
        """
        body = msgspec.json.encode(search.body(self.location_id))
        return await self._call(_Request("POST", "/contacts/search", "/contacts/search", body=body), decode_search)

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

    async def contact(self, contact_id: str) -> Contact:
        """The contact with this id, as GHL has it now (a search lags behind writes by up to a minute).

        Raises:
            ContactNotFound: the id is unknown or deleted, or no id at all; that one is not sent.
            GhlError: any other branch.
        """
        request = _Request("GET", CONTACT_ROUTE, f"/contacts/{contact_id}")
        if not is_contact_id(contact_id):
            raise ContactNotFound(self._facts(request))
        contact = await self._call(request, decode_contact)
        if contact is None:
            raise UnreadableAnswer(self._facts(request))
        return contact

    async def duplicate_of(self, email: str) -> Contact | None:
        """The contact that GHL would call a duplicate of this address; takes addresses that `eq` refuses as too long.

        Raises:
            GhlError: any branch.
        """
        params = {"locationId": self.location_id, "email": email}
        route = "/contacts/search/duplicate"
        return await self._call(_Request("GET", route, route, params=params), decode_contact)

    async def location(self) -> Location:
        """The location's own record. Raises GhlError."""
        path = f"/locations/{self.location_id}"
        return await self._call(_Request("GET", "/locations/{locationId}", path), decode_location)

    async def users(self) -> tuple[User, ...]:
        """The location's staff. Raises GhlError."""
        params = {"locationId": self.location_id}
        return await self._call(_Request("GET", "/users/", "/users/", params=params), decode_users)

    async def _call(self, request: _Request, decode: Callable[[bytes], T]) -> T:
        async def attempt(budget: CallBudget) -> T:
            async with self._connections:
                waited = await self._throttle.acquire(self._facts(request))
                self.usage.waited_seconds += waited
                with budget.clock(), watch_sending() as sent:
                    answer = await self._send(request, min(self._timeout, budget.remaining_seconds()))
            if sent.at is not None:
                await self._throttle.sent(sent.at)
            # Raised here, where no foreign exception is being handled: as its `__context__` that one would carry the
            # request, with its token and query, into whatever prints or stores the error.
            if isinstance(answer, GhlError):
                raise answer
            self.heard = read_headers(answer.headers, datetime.now(UTC))
            await self._learn_limit(answer)
            if not answer.is_success:
                raise await self._refusal(request, answer)
            try:
                return decode(answer.content)
            except msgspec.DecodeError:
                pass
            raise UnreadableAnswer(self._facts(request, answer))

        return await call_with_retries(self._policy, attempt)

    async def _send(self, request: _Request, timeout_seconds: float) -> httpx.Response | GhlError:
        self.usage.calls += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._http.request(
                    request.method, request.path, params=request.params, content=request.body
                )
        except TimeoutError:
            return GhlTimeout(self._facts(request))
        # aiohttp's own, too: the transport translates most of them, and lets one for an answer that is no HTTP through
        # with the request's headers, and so the token, inside. ValueError: a token with a line break, a reason phrase
        # that is no text.
        except (httpx.HTTPError, aiohttp.ClientError, ValueError):
            return GhlUnreachable(self._facts(request))
        return response

    async def _refusal(self, request: _Request, response: httpx.Response) -> GhlError:
        """The error of an answer that is no success. Tells the throttle of a 429."""
        said = decode_error(response.content)
        facts = self._facts(request, response, said.trace_id)
        error = error_for_status(facts, said.message, said.duplicate_of)
        if not isinstance(error, RateLimited):
            return error
        if response.headers.get("X-RateLimit-Daily-Remaining", "").strip() == "0":
            return DailyQuotaReached(facts, resets_at=quota_resets_at(datetime.now(UTC)))
        # "At once", as a Retry-After of 0 or a date gone by says, was refused just now: a whole interval, then.
        await self._throttle.refused(min(facts.retry_after, LONGEST_PAUSE_SECONDS) if facts.retry_after else None)
        return error

    async def _learn_limit(self, response: httpx.Response) -> None:
        """Passes the limit in GHL's headers on; sandbox accounts have 25 per 10 s instead of 100."""
        try:
            limit = int(response.headers["X-RateLimit-Max"])
            interval = int(response.headers["X-RateLimit-Interval-Milliseconds"]) / 1000
        except (KeyError, ValueError):
            return
        await self._throttle.learn(limit, interval)

    def _facts(
        self, request: _Request, response: httpx.Response | None = None, trace_id: str | None = None
    ) -> CallFacts:
        if response is None:
            return CallFacts(self.location_id, request.method, request.route)
        return CallFacts(
            self.location_id,
            request.method,
            request.route,
            status=response.status_code,
            trace_id=trace_id,
            retry_after=retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC)),
        )


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Reads a Retry-After header (RFC 9110 10.2.3): seconds, or an HTTP date. Unreadable counts as absent.

    Returns:
        Seconds from `now`, 0 for a date gone by, at most a day.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return min(max(0.0, seconds), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None
    try:
        return min(max(0.0, (parsedate_to_datetime(value) - now).total_seconds()), LONGEST_RETRY_AFTER)
    except (ValueError, TypeError, OverflowError):
        return None


@cache
def _certificates() -> ssl.SSLContext:
    # Loading them takes 29 ms in which no other location moves; every client can use the same.
    return httpx.create_ssl_context()


@asynccontextmanager
async def open_client(
    *,
    base_url: str,
    location_id: str,
    token: SecretStr,
    throttle: Throttle,
    policy: RetryPolicy,
    timeout_seconds: float,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[LocationClient]:
    """A client of its own for one location: its token cannot be sent for another, its pool is not shared.

    Raises nothing by itself: no connection is made before the first call.
    """
    headers = {
        "Authorization": f"Bearer {token.get_secret_value()}",
        "Version": API_VERSION,
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    async with ConnectionsClient(
        base_url=base_url,
        headers=headers,
        # `LocationClient` times the call as a whole. httpx times each phase, which a server that trickles never runs
        # into, and its timeout could not be told from a refused connection: the transport calls both ConnectTimeout.
        timeout=None,
        limits=limits,
        transport=transport,
        verify=_certificates(),
    ) as http:
        yield LocationClient(location_id, http, throttle, policy, timeout_seconds)
