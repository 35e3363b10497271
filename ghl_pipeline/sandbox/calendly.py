"""Calendly's API under `/_calendly`: who a token is, event types page by page, and the free times of one.

URIs in questions and answers begin with Calendly's own address, whatever host is asked, and so do the links to further
pages: only their tokens lead on. Errors are those of Calendly's documents: a title, a message, and details.
"""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.sandbox.calendly_payloads import available_time, event_type_object, user_object
from ghl_pipeline.sandbox.calendly_users import API, CalendlyUser, CalendlyUsers, EventType
from ghl_pipeline.sandbox.faults import FaultDice, Mishap
from ghl_pipeline.sandbox.free_times import answers_nothing
from ghl_pipeline.sandbox.responses import Answer, JsonObject
from ghl_pipeline.sandbox.transport import bearer_token, delay, respond
from ghl_pipeline.sandbox.world import World

PREFIX: Final = "/_calendly"
MOST_PER_PAGE: Final = 100
_TITLES: Final = {
    400: "Invalid Argument",
    401: "Unauthenticated",
    403: "Permission Denied",
    404: "Resource Not Found",
    429: "Too Many Requests",
}


@dataclass(frozen=True)
class CalendlyCall:
    """A request with a valid token."""

    user: CalendlyUser
    users: CalendlyUsers
    query: Mapping[str, str]
    now: float
    dice: FaultDice


class _Refused(Exception):
    """Ends a call with an error answer; never leaves this module."""

    def __init__(self, status: int, message: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        body: JsonObject = {"title": _TITLES.get(status, "Internal Server Error"), "message": message}
        if details:
            body["details"] = [{"parameter": name, "message": text} for name, text in details.items()]
        self.answer = Answer(body, status)


def calendly_routes(world: World) -> list[Path]:
    """The routes, for `world`."""
    paths = [Path(PREFIX + path, _endpoint(world, path, act), methods=["GET"]) for path, act in ROUTES.items()]
    return [*paths, Path(PREFIX + "/{path:path}", _endpoint(world, "unknown route", None))]


def _endpoint(
    world: World, path: str, act: Callable[[CalendlyCall], Answer] | None
) -> Callable[[Request], Awaitable[Response]]:
    name = f"CALENDLY GET {path}"

    async def endpoint(request: Request) -> Response:
        await request.body()
        with world.lock:
            arrived = world.clock()
            user = world.calendly.of_token(bearer_token(request))
            if user is None:
                world.unidentified[name] = world.unidentified.get(name, 0) + 1
                return _response(_Refused(401, "The access token is invalid").answer)
            dice = world.faults.of(user.faults_key)
            fails = dice.fails()
            refused = _refused(user, dice, arrived, busy=fails and dice.faults.fail_status == 429)
            mishap = Mishap.NONE if refused else _failure(dice) if fails else dice.roll(name)
            headers = _rate_headers(user, arrived)
        if not refused:
            hang = dice.faults.hang_seconds if mishap is Mishap.HANG else 0.0
            await delay(request, dice.faults.latency_seconds + hang)
        with world.lock:
            call = CalendlyCall(user, world.calendly, request.query_params, world.clock(), dice)
            answer = refused or _answer(call, act, mishap)
            user.statistics.answered(name, answer.status)
        return _response(Answer(answer.body, answer.status, {**headers, **answer.headers}), mishap)

    return endpoint


def _failure(dice: FaultDice) -> Mishap:
    return Mishap.DROPPED if dice.faults.fail_status is None else Mishap.FAILED


def _refused(user: CalendlyUser, dice: FaultDice, now: float, *, busy: bool) -> Answer | None:
    """The 401 of a withdrawn token, or the 429 when too much was asked, a storm is on or the request is to fail so."""
    if dice.faults.token_revoked:
        return _Refused(401, "The access token is expired").answer
    if not dice.in_storm(now) and not busy and user.limiter.admit(now):
        user.statistics.admitted(now)
        return None
    seconds = user.limiter.limits.interval_seconds if dice.faults.retry_after is None else dice.faults.retry_after
    body = _Refused(429, "You have exceeded the rate limit. Please retry after the rate limit window resets.").answer
    return Answer(body.body, 429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{seconds:.0f}"})


def _rate_headers(user: CalendlyUser, now: float) -> dict[str, str]:
    left = user.limiter.headers(now)["X-RateLimit-Remaining"]
    limits = user.limiter.limits
    return {
        "X-RateLimit-Limit": str(limits.requests),
        "X-RateLimit-Remaining": left,
        "X-RateLimit-Reset": f"{limits.interval_seconds:.0f}",
    }


def _answer(call: CalendlyCall, act: Callable[[CalendlyCall], Answer] | None, mishap: Mishap) -> Answer:
    try:
        if mishap is Mishap.SERVER_ERROR:
            raise _Refused(call.dice.faults.error_status, "An unexpected error occurred. Please try again later.")
        if mishap is Mishap.FAILED and call.dice.faults.fail_status is not None:
            raise _Refused(call.dice.faults.fail_status, "The request failed.")
        if act is None:
            raise _Refused(404, "The server could not find the requested resource.")
        return act(call)
    except _Refused as refused:
        return refused.answer


# --- the routes


def get_me(call: CalendlyCall) -> Answer:
    """Whose token it is."""
    return Answer({"resource": user_object(call.user)})


def list_event_types(call: CalendlyCall) -> Answer:
    """The event types of a user or of an organization, 20 a page unless `count` says otherwise."""
    query = call.query
    if not query.get("user") and not query.get("organization"):
        raise _invalid(user="must be present, or organization")
    rows = [
        (owner, each)
        for owner in _owners(call)
        for each in owner.event_types.values()
        # A team's pages are the organization's, not the user's.
        if ("active" not in query or each.active is (query["active"].lower() == "true"))
        and (query.get("organization") or each.team is None)
    ]
    count = query.get("count", "20")
    if not count.isdecimal() or not 1 <= int(count) <= MOST_PER_PAGE:
        raise _invalid(count=f"must be between 1 and {MOST_PER_PAGE}")
    size, start = int(count), _position(query.get("page_token"))
    following = start + size if start + size < len(rows) else None
    if call.dice.faults.pages_loop and start > 0:
        following = 0
    before = max(0, start - size) if start > 0 else None
    return Answer(
        {
            "collection": [event_type_object(owner, each) for owner, each in rows[start : start + size]],
            "pagination": {
                "count": len(rows[start : start + size]),
                "next_page": _page_link(query, following),
                "previous_page": _page_link(query, before),
                "next_page_token": _token(following),
                "previous_page_token": _token(before),
            },
        }
    )


def list_available_times(call: CalendlyCall) -> Answer:
    """The free times of an event type: at most `longest_days` at once, beginning in the future, all on one page."""
    query, user = call.query, call.user
    missing = {name: "can't be blank" for name in ("event_type", "start_time", "end_time") if not query.get(name)}
    if missing:
        raise _invalid(**missing)
    start, end = (_moment(name, query[name]) for name in ("start_time", "end_time"))
    if start.timestamp() <= call.now:
        raise _invalid(start_time="must be in the future")
    if end <= start:
        raise _invalid(end_time="must be after start_time")
    if end - start > timedelta(days=user.longest_days):
        raise _invalid(end_time=f"must be within {user.longest_days} days of start_time")
    owner, event_type = _known(call, query["event_type"])
    moments = []
    if event_type.active and not answers_nothing(event_type.uuid, call.dice.faults.empty_calendars):
        zone = ZoneInfo(owner.time_zone)
        moments = event_type.schedule.free(zone, start.timestamp(), end.timestamp(), call.now)
    return Answer({"collection": [available_time(event_type, each) for each in moments]})


ROUTES: Final[dict[str, Callable[[CalendlyCall], Answer]]] = {
    "/users/me": get_me,
    "/event_types": list_event_types,
    "/event_type_available_times": list_available_times,
}


# --- what a question means


def _owners(call: CalendlyCall) -> list[CalendlyUser]:
    asked = call.query.get("organization")
    if asked:
        if asked != call.user.organization or not call.user.is_admin:
            raise _Refused(403, "You do not have permission to access this resource.")
        return call.users.of_organization(asked)
    user = next((each for each in call.users if each.uri == call.query["user"]), None)
    own = user is not None and (
        user is call.user or (call.user.is_admin and user.organization == call.user.organization)
    )
    if user is None or not own:
        raise _Refused(403, "You do not have permission to access this resource.")
    return [user]


def _known(call: CalendlyCall, uri: str) -> tuple[CalendlyUser, EventType]:
    for owner in call.users.of_organization(call.user.organization):
        for event_type in owner.event_types.values():
            if event_type.uri == uri and (owner is call.user or call.user.is_admin):
                return owner, event_type
    raise _Refused(404, "The server could not find the requested resource.")


def _invalid(**details: str) -> _Refused:
    return _Refused(400, "The supplied parameters are invalid.", details)


def _moment(name: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _invalid(**{name: "is not a valid ISO 8601 time"}) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _token(position: int | None) -> str | None:
    return None if position is None else base64.urlsafe_b64encode(json.dumps({"at": position}).encode()).decode()


def _position(token: str | None) -> int:
    if not token:
        return 0
    try:
        return max(0, int(msgspec.json.decode(base64.urlsafe_b64decode(token), type=dict[str, int])["at"]))
    except (ValueError, KeyError, msgspec.DecodeError):
        raise _invalid(page_token="is invalid") from None  # noqa: S106 - the name of a parameter


def _page_link(query: Mapping[str, str], position: int | None) -> str | None:
    token = _token(position)
    return None if token is None else f"{API}/event_types?{urlencode({**query, 'page_token': token})}"


def _response(answer: Answer, mishap: Mishap = Mishap.NONE) -> Response:
    return respond(msgspec.json.encode(answer.body), answer.status, answer.headers, mishap)
