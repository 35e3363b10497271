"""EmailBison's API under `/emailbison/api`: events, replies and leads of the workspace that a token opens.

Its mailboxes are `emailbison_senders.py`, pages and refusals `emailbison_calls.py`.


Paged and refused as Laravel does it, and as was seen live: 15 rows a page whatever is asked for, cursors for the
events, and `links.next` without the filters of the request. An unreadable cursor silently means the first page.
"""

import base64
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from itertools import islice
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.sandbox.emailbison_calls import (
    PAGE,
    BisonCall,
    BisonRoute,
    by_id,
    not_found,
    numbered,
    unprocessable,
)
from ghl_pipeline.sandbox.emailbison_payloads import EVENT_NAMES, api_lead, api_reply
from ghl_pipeline.sandbox.emailbison_senders import (
    get_sender_email,
    list_campaign_senders,
    list_sender_emails,
    post_reply,
)
from ghl_pipeline.sandbox.faults import FaultDice, Mishap
from ghl_pipeline.sandbox.responses import Answer, JsonObject, moment
from ghl_pipeline.sandbox.transport import bearer_token, delay, respond
from ghl_pipeline.sandbox.workspaces import LIMITS, RecordedEvent, Workspace
from ghl_pipeline.sandbox.world import World

PREFIX: Final = "/emailbison"
EVENTS_KEPT: Final = timedelta(days=10)


def emailbison_routes(world: World) -> list[Path]:
    """The routes, for `world`."""
    paths = [Path(PREFIX + route.path, _endpoint(world, route), methods=[route.method]) for route in ROUTES]
    return [*paths, Path(PREFIX + "/{path:path}", _endpoint(world, None))]


def _endpoint(world: World, route: BisonRoute | None) -> Callable[[Request], Awaitable[Response]]:
    name = route.name if route else "EMAILBISON unknown route"

    async def endpoint(request: Request) -> Response:
        content = await request.body()
        with world.lock:
            arrived = world.clock()
            workspace = world.workspaces.of_token(bearer_token(request))
            if workspace is None:
                world.unidentified[name] = world.unidentified.get(name, 0) + 1
                return _response(Answer({"message": "Unauthenticated."}, 401))
            dice = world.faults.of(workspace.faults_key)
            refused = _refused(workspace, dice, arrived)
            mishap = Mishap.NONE if refused else dice.roll(name)
        if not refused:
            hang = dice.faults.hang_seconds if mishap is Mishap.HANG else 0.0
            await delay(request, dice.faults.latency_seconds + hang)
        with world.lock:
            url = str(request.url.replace(query=""))
            query, faults = request.query_params, dice.faults
            call = BisonCall(workspace, url, request.path_params, query, arrived, faults, content)
            answer = refused or _answer(call, route, dice, mishap)
            workspace.statistics.answered(name, answer.status)
        return _response(answer, mishap)

    return endpoint


def _refused(workspace: Workspace, dice: FaultDice, now: float) -> Answer | None:
    """The 429 of Laravel's throttle, when too much was asked or a storm is on, or the 401 of a withdrawn token."""
    if dice.faults.token_revoked:
        return Answer({"message": "Unauthenticated."}, 401)
    if not dice.in_storm(now) and workspace.limiter.admit(now):
        workspace.statistics.admitted(now)
        return None
    seconds = LIMITS.interval_seconds if dice.faults.retry_after is None else dice.faults.retry_after
    after = formatdate(now + seconds, usegmt=True) if dice.faults.retry_after_as_date else f"{seconds:g}"
    headers = {"Retry-After": after, "X-RateLimit-Limit": str(LIMITS.requests), "X-RateLimit-Remaining": "0"}
    return Answer({"message": "Too Many Attempts."}, 429, headers)


def _answer(call: BisonCall, route: BisonRoute | None, dice: FaultDice, mishap: Mishap) -> Answer:
    if mishap is Mishap.SERVER_ERROR:
        return Answer({"message": "Server Error"}, dice.faults.error_status)
    if route is None:
        return not_found()
    return route.answer(call)


# --- the routes


def list_events(call: BisonCall) -> Answer:
    """The events of the last ten days, newest first, by cursor; `start_date` and `end_date` are included."""
    query, errors = call.query, dict[str, list[str]]()
    oldest = datetime.fromtimestamp(call.now, UTC) - EVENTS_KEPT
    start = _date("start_date", query.get("start_date"), errors) or oldest
    end = _date("end_date", query.get("end_date"), errors, ends=True) or datetime.max.replace(tzinfo=UTC)
    kind = query.get("type", "").upper()
    if kind and kind not in EVENT_NAMES:
        errors["type"] = ["The selected type is invalid."]
    if not errors and "end_date" in query and end < start:
        errors["end_date"] = ["The end date field must be a date after or equal to start date."]
    if errors:
        return unprocessable(errors)
    after, events = _cursor_id(query.get("cursor")), call.workspace.events
    from_ms, to_ms = (each.timestamp() * 1000 for each in (max(start, oldest), end))
    before = len(events) if after is None else bisect_left(events, after, key=lambda event: event.id)
    wanted = (
        event
        for event in map(events.__getitem__, range(before - 1, -1, -1))
        if from_ms <= event.created_at <= to_ms and (not kind or event.kind == kind)
    )
    chosen = list(islice(wanted, PAGE + 1))
    following = _cursor(chosen[PAGE - 1].id) if len(chosen) > PAGE else None
    return Answer(
        {
            "data": [_event_row(event) for event in chosen[:PAGE]],
            "links": {
                "first": None,
                "last": None,
                "prev": None,
                "next": f"{call.url}?cursor={following}" if following else None,  # without the filters, as seen live
            },
            "meta": {"path": call.url, "per_page": PAGE, "next_cursor": following, "prev_cursor": None},
        }
    )


def get_reply(call: BisonCall) -> Answer:
    """One mail of the master inbox."""
    reply = by_id(call, call.workspace.replies)
    if reply is None:
        return not_found()
    lead = call.workspace.leads.get(reply.lead_id) if reply.lead_id is not None else None
    return Answer({"data": api_reply(reply, lead)})


def list_leads(call: BisonCall) -> Answer:
    """The leads, page by page; `search` looks into e-mails and names, `email` is ignored."""
    text = call.query.get("search", "").strip().lower()
    leads = [
        lead
        for lead in call.workspace.leads.values()
        if not text or text in f"{lead.email} {lead.first_name} {lead.last_name}".lower()
    ]
    return numbered(call, leads, api_lead)


def get_lead(call: BisonCall) -> Answer:
    """One lead."""
    lead = by_id(call, call.workspace.leads)
    return not_found() if lead is None else Answer({"data": api_lead(lead)})


def get_user(call: BisonCall) -> Answer:
    """Whose token it is: the one route that says to which workspace a token belongs."""
    workspace = call.workspace
    return Answer(
        {
            "data": {
                "id": 1,
                "name": "Sample Operator",
                "email": "operator@example.com",
                "workspace": {"id": workspace.id, "name": workspace.name, "personal_team": False, "main": False},
            }
        }
    )


ROUTES: Final = (
    BisonRoute("/api/events", list_events),
    BisonRoute("/api/replies/{id}", get_reply),
    BisonRoute("/api/leads", list_leads),
    BisonRoute("/api/leads/{id}", get_lead),
    BisonRoute("/api/sender-emails", list_sender_emails),
    BisonRoute("/api/sender-emails/{id}", get_sender_email),
    BisonRoute("/api/campaigns/{id}/sender-emails", list_campaign_senders),
    BisonRoute("/api/replies/{id}/reply", post_reply, "POST"),
    BisonRoute("/api/users", get_user),
)


# --- rows and parameters


def _event_row(event: RecordedEvent) -> JsonObject:
    deliveries = [
        {"id": event.id * 10 + number, "status": "delivered", "created_at": moment(event.created_at)}
        for number in range(event.deliveries)
    ]
    return {
        "id": event.id,
        "uuid": event.uuid,
        "payload": event.payload,
        "webhook_deliveries": deliveries,
        "created_at": moment(event.created_at),
        "updated_at": moment(event.created_at),
    }


def _date(name: str, text: str | None, errors: dict[str, list[str]], *, ends: bool = False) -> datetime | None:
    """A moment, or a day: it begins at midnight UTC, and as an end it is included whole."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        errors[name] = [f"The {name.replace('_', ' ')} field must be a valid date."]
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    is_day = len(text) == len("2026-04-01")
    return found + timedelta(days=1, milliseconds=-1) if ends and is_day else found


def _cursor(event_id: int) -> str:
    content = msgspec.json.encode({"events.id": event_id, "_pointsToNextItems": True})
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _cursor_id(text: str | None) -> int | None:
    if not text:
        return None
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return int(str(msgspec.json.decode(content, type=dict[str, object])["events.id"]))
    except (ValueError, KeyError, msgspec.DecodeError):
        return None


def _response(answer: Answer, mishap: Mishap = Mishap.NONE) -> Response:
    return respond(msgspec.json.encode(answer.body), answer.status, answer.headers, mishap)
