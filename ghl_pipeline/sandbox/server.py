"""The sandbox as a Starlette application: what GHL's gateway does before and after a route answers.

In this order: the token names the location, the rate limit lets the request in or not, the Version header and the
scope are looked at, mishaps happen, the route answers. The routes are `api.py`, the sandbox's own `control.py` and
`webhook_control.py`, `marketplace_control.py`, `replies_control.py`; beside GHL, `emailbison.py`, `calendly.py` and
`llm.py` answer below prefixes of their own.
Nothing of a request or an answer is ever logged.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.sandbox.api import ROUTES, Call, Route
from ghl_pipeline.sandbox.calendly import calendly_routes
from ghl_pipeline.sandbox.control import control_routes
from ghl_pipeline.sandbox.emailbison import emailbison_routes
from ghl_pipeline.sandbox.faults import FaultDice, Faults, Mishap
from ghl_pipeline.sandbox.llm import llm_routes
from ghl_pipeline.sandbox.marketplace_control import marketplace_routes
from ghl_pipeline.sandbox.replies_control import reply_routes
from ghl_pipeline.sandbox.responses import Answer, Refusal, encode
from ghl_pipeline.sandbox.transport import bearer_token, delay, respond
from ghl_pipeline.sandbox.webhook_control import webhook_routes
from ghl_pipeline.sandbox.world import Location, World

VERSIONS: Final = frozenset({"2021-04-15", "2021-07-28", "2023-02-21", "v3"})
"""Values of the Version header that were seen to be taken everywhere."""
UNKNOWN_ROUTE: Final = "unknown route"
_FAILURES: Final = {
    400: "Bad Request",
    401: "Invalid token: access token is invalid",
    403: "You do not have permission to access this resource",
    500: "Internal server error",
    503: "Service Unavailable",
}
_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(world: World) -> Starlette:
    """The application that answers for `world`."""
    paths = [Path(route.path, _endpoint(world, route), methods=[route.method]) for route in ROUTES]
    every_method = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    unknown = Path("/{path:path}", _endpoint(world, None), methods=every_method)
    own = [*control_routes(world), *webhook_routes(world), *marketplace_routes(world), *reply_routes(world)]
    others = [*emailbison_routes(world), *calendly_routes(world), *llm_routes(world)]
    return Starlette(routes=[*own, *others, *paths, unknown])


def _endpoint(world: World, route: Route | None) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        name = route.name if route else UNKNOWN_ROUTE
        content = await request.body()
        with world.lock:
            arrived = world.clock()  # under the lock, so that arrivals are in order
            location = world.location_of(bearer_token(request))
            if location is None:
                world.unidentified[name] = world.unidentified.get(name, 0) + 1
                return _response(Refusal(401, "Invalid token: access token is invalid").answer())
            dice = world.faults.of(location.id)
            fails = dice.fails()
            refused = _refused_by_limit(location, dice, arrived, busy=fails and dice.faults.fail_status == 429)
            date = formatdate(arrived + dice.faults.clock_shift_seconds, usegmt=True)
            headers = {"Date": date, **location.limiter.headers(arrived)}
            mishap = Mishap.NONE if refused else _failure(dice.faults) if fails else dice.roll(name)
        if not refused:
            hang = dice.faults.hang_seconds if mishap is Mishap.HANG else 0.0
            await delay(request, dice.faults.latency_seconds + hang)
        with world.lock:
            call = Call(location, request.path_params, request.query_params, content)
            answer = refused or _answer(call, route, request.headers.get("version"), dice.faults, mishap)
            location.statistics.answered(name, answer.status)
        return _response(answer, headers, mishap)

    return endpoint


def _failure(faults: Faults) -> Mishap:
    return Mishap.DROPPED if faults.fail_status is None else Mishap.FAILED


def _refused_by_limit(location: Location, dice: FaultDice, now: float, *, busy: bool) -> Answer | None:
    """The 429, when there is no slot, a storm is on or the request is to fail so; it uses no slot."""
    if not dice.in_storm(now) and not busy and location.limiter.admit(now):
        location.statistics.admitted(now)
        return None
    # GHL's body of a 429 is not documented; this is the form of its other errors.
    refusal = Refusal(429, "Too many requests").answer()
    seconds = dice.faults.retry_after
    if seconds is None:
        return refusal
    text = formatdate(now + seconds, usegmt=True) if dice.faults.retry_after_as_date else f"{seconds:g}"
    return Answer(refusal.body, 429, {"Retry-After": text})


def _answer(call: Call, route: Route | None, version: str | None, faults: Faults, mishap: Mishap) -> Answer:
    try:
        if faults.token_revoked:
            raise Refusal(401, "Invalid token: access token is invalid")
        _check_version(version)
        if route is None:
            raise Refusal(404, "Not Found")
        if route.scope in faults.missing_scopes:
            raise Refusal(401, "The token is not authorized for this scope.")
        if mishap is Mishap.SERVER_ERROR:
            raise Refusal(faults.error_status, "Internal server error")
        if mishap is Mishap.FAILED and faults.fail_status is not None:
            raise Refusal(faults.fail_status, _FAILURES[faults.fail_status])
        if mishap is Mishap.SEARCH_CONTEXT_LOST:
            raise Refusal(faults.search_context_status, "No search context found for id: point in time expired")
        return route.answer(call)
    except Refusal as refusal:
        return refusal.answer()
    except Exception as error:  # noqa: BLE001 - a mistake of the sandbox must not show what it was asked
        _log.error("The sandbox failed on %s: %s", route.name if route else UNKNOWN_ROUTE, type(error).__name__)
        return Refusal(500, "Internal server error").answer()


def _check_version(version: str | None) -> None:
    """The answers of 2026-08 to a missing, an unknown and a senseless Version."""
    if version is None:
        raise Refusal(401, "version header was not found.")
    if version in VERSIONS:
        return
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", version):
        raise Refusal(401, "version header is invalid")
    raise Refusal(400, f"Invalid API version segment '{version[:40]}' at position 0")


def _response(answer: Answer, headers: dict[str, str] | None = None, mishap: Mishap = Mishap.NONE) -> Response:
    return respond(encode(answer.body), answer.status, {**(headers or {}), **answer.headers}, mishap)
