"""One call to one location of the GHL API: throttled, retried, its answer read or its refusal told as an error.

What may be asked is not decided here: `client.py` reads and searches, `contact_writer.py` creates and changes.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import NotRequired, TypedDict, TypeVar, Unpack

import aiohttp
import httpx
import msgspec
from pydantic import SecretStr

from ghl_pipeline.ghl.answer_headers import AnswerHeaders, read_headers
from ghl_pipeline.ghl.connections import ConnectionsClient, watch_sending
from ghl_pipeline.ghl.errors import (
    CallFacts,
    DailyQuotaReached,
    GhlError,
    GhlTimeout,
    GhlUnreachable,
    LocationAccessDenied,
    RateLimited,
    TokenRejected,
    UnreadableAnswer,
    error_for_status,
)
from ghl_pipeline.ghl.location_tokens import LocationTokens, Which
from ghl_pipeline.ghl.payloads import decode_error
from ghl_pipeline.ghl.retries import LONGEST_PAUSE_SECONDS, CallBudget, RetryPolicy, call_with_retries
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
    """What has been spent: requests sent (each attempt counts), and seconds waited on the limit."""

    calls: int = 0
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. `route` is the path's template, which errors and logs may show.

    `version` is the API version of the route, where it is not the one of contacts. `is_repeatable`: sending it twice
    does what sending it once does; one that is not is tried again only when GHL refused it for its rate.
    """

    method: str
    route: str
    path: str
    params: dict[str, str] | None = None
    body: bytes | None = None
    version: str = API_VERSION
    is_repeatable: bool = True


class LocationCalls:
    """The API as one location reaches it. Its tokens and its connections are its own; its `repr` shows neither.

    `heard` is what the headers of its last answer said, of success or refusal; None before the first.
    """

    def __init__(
        self,
        location_id: str,
        tokens: LocationTokens,
        http: httpx.AsyncClient,
        *,
        throttle: Throttle,
        policy: RetryPolicy,
        timeout_seconds: float,
    ) -> None:
        self.location_id = location_id
        self._tokens = tokens
        self.usage = Usage()
        self.heard: AnswerHeaders | None = None
        self._http = http
        self._throttle = throttle
        self._policy = policy
        self._timeout = timeout_seconds
        # A slot of the throttle is for now, so it is asked for when a connection is free, never before.
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)

    def __repr__(self) -> str:
        return f"LocationCalls({self.location_id})"

    @property
    def uses_previous_token(self) -> bool:
        """Whether GHL refused the location's token and took the one before it."""
        return self._tokens.in_use is Which.PREVIOUS

    async def call(self, request: Request, decode: Callable[[bytes], T]) -> T:
        """Sends a request, as often as the policy and its nature allow, and reads the answer.

        When GHL refuses the token, the request is sent with the location's other one, if there is one. What was refused
        for its token did nothing, so that this holds for a create, too.

        Args:
            request: what to send.
            decode: reads the body of a success; raises msgspec.DecodeError when it is not what GHL sends.

        Raises:
            GhlError: any branch; TokenRejected of the token that is stored when both are refused.
        """
        tried = self._tokens.first()
        try:
            return await self._call_with(tried, request, decode)
        except TokenRejected as error:
            refusal = error
        other = self._tokens.instead_of(tried)
        if other is None:
            raise refusal
        try:
            answer = await self._call_with(other, request, decode)
        except (TokenRejected, LocationAccessDenied) as error:
            facts = refusal.facts if tried is Which.CURRENT else error.facts
        except GhlError as error:
            if error.facts.status is not None:  # GHL said something else than that it does not know the token
                self._tokens.settle_on(other)
            raise
        else:
            self._tokens.settle_on(other)
            return answer
        raise TokenRejected(facts, "refused the token, and the one before it, too")

    async def _call_with(self, token: Which, request: Request, decode: Callable[[bytes], T]) -> T:
        async def attempt(budget: CallBudget) -> T:
            async with self._connections:
                waited = await self._throttle.acquire(self.facts(request))
                self.usage.waited_seconds += waited
                with budget.clock(), watch_sending() as sent:
                    answer = await self._send(request, token, min(self._timeout, budget.remaining_seconds()))
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
            raise UnreadableAnswer(self.facts(request, answer))

        policy = self._policy if request.is_repeatable else replace(self._policy, max_attempts=1)
        return await call_with_retries(policy, attempt)

    async def _send(self, request: Request, token: Which, timeout_seconds: float) -> httpx.Response | GhlError:
        self.usage.calls += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._http.request(
                    request.method,
                    request.path,
                    params=request.params,
                    content=request.body,
                    headers={"Version": request.version, "Authorization": self._tokens.authorization(token)},
                )
        except TimeoutError:
            return GhlTimeout(self.facts(request))
        # aiohttp's own, too: the transport translates most of them, and lets one for an answer that is no HTTP through
        # with the request's headers, and so the token, inside. ValueError: a token with a line break, a reason phrase
        # that is no text.
        except (httpx.HTTPError, aiohttp.ClientError, ValueError):
            return GhlUnreachable(self.facts(request))
        return response

    async def _refusal(self, request: Request, response: httpx.Response) -> GhlError:
        """The error of an answer that is no success. Tells the throttle of a 429."""
        said = decode_error(response.content)
        facts = self.facts(request, response, said.trace_id)
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

    def facts(self, request: Request, response: httpx.Response | None = None, trace_id: str | None = None) -> CallFacts:
        """Where an error of this request happened."""
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


class CallOptions(TypedDict):
    """How a location is reached: its token, its share of the limits, and the bounds of a call.

    `previous_token` is the one before the last rotation, which may be used until `previous_until`.
    """

    base_url: str
    location_id: str
    token: SecretStr
    throttle: Throttle
    policy: RetryPolicy
    timeout_seconds: float
    previous_token: NotRequired[SecretStr | None]
    previous_until: NotRequired[datetime | None]


@asynccontextmanager
async def open_calls(
    *, transport: httpx.AsyncBaseTransport | None = None, **options: Unpack[CallOptions]
) -> AsyncIterator[LocationCalls]:
    """Calls of its own for one location: its token cannot be sent for another, its pool is not shared.

    Raises nothing by itself: no connection is made before the first call.
    """
    headers = {
        "Version": API_VERSION,
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    async with ConnectionsClient(
        base_url=options["base_url"],
        headers=headers,
        # `LocationCalls` times the call as a whole. httpx times each phase, which a server that trickles never runs
        # into, and its timeout could not be told from a refused connection: the transport calls both ConnectTimeout.
        timeout=None,
        limits=limits,
        transport=transport,
        verify=_certificates(),
    ) as http:
        tokens = LocationTokens(
            options["location_id"], options["token"], options.get("previous_token"), options.get("previous_until")
        )
        yield LocationCalls(
            options["location_id"],
            tokens,
            http,
            throttle=options["throttle"],
            policy=options["policy"],
            timeout_seconds=options["timeout_seconds"],
        )
