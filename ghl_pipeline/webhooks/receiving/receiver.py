"""The receiver's routes: who sent it, is it theirs to say, is it an event; then it is stored, then answered.

Each route refuses as early as it can, and in this order: size, secret, body, signature, content type, age, content,
whose it is. An answer of the 2xx kind means that the event is committed; one of the 5xx kind that its sender should try
again. Answers and log lines hold words of this project only. How the receiver is run is in `serving.py`.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ghl_pipeline.errors import DatabaseUnavailable
from ghl_pipeline.webhooks.events import Event, Provider
from ghl_pipeline.webhooks.inbox.store_events import Delivery, NotStored
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event
from ghl_pipeline.webhooks.receiving.bodies import Bodies
from ghl_pipeline.webhooks.receiving.counts import Counts
from ghl_pipeline.webhooks.receiving.group_commit import GroupCommit
from ghl_pipeline.webhooks.receiving.known_senders import KnownSenders
from ghl_pipeline.webhooks.receiving.own_threads import NoFreeThread, OwnThread
from ghl_pipeline.webhooks.receiving.scraping import METRICS_PATH
from ghl_pipeline.webhooks.receiving.senders import Sender
from ghl_pipeline.webhooks.receiving.signatures import ED25519_HEADER, RSA_HEADER, Signatures, is_any_there, is_fresh
from ghl_pipeline.webhooks.receiving.tally import Tally

log = logging.getLogger(__name__)

SECRET_HEADER: Final = "x-webhook-secret"  # noqa: S105 - a header's name
GHL_PATH: Final = "/webhooks/ghl"
SECRET_PATHS: Final = {Provider.GHL_WORKFLOW: "/webhooks/ghl/workflow", Provider.EMAILBISON: "/webhooks/emailbison"}
HEALTH_PATH: Final = "/healthz"

# Reading a body this large takes long enough to be felt by those that wait behind it.
_READ_ASIDE_FROM_BYTES = 128 * 1024
# Such bodies are read one after the other; who waits longer for that is sent away.
_READ_ASIDE_WITHIN_SECONDS = 4.0
_LONGEST_REST_SECONDS = 0.5
_TRY_AGAIN_SECONDS = "10"

Handler = Callable[[Request], Awaitable[Response]]
IsAlive = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Receiver:
    """What the routes need.

    Attributes:
        counts: of its answers, for metrics.
        metrics: tells them to whoever may read them.
        is_alive: whether the database answers now.
        tolerance_seconds: how far a signed event's own time may be from now.
        reader: reads large bodies. It has a thread of its own: one client's bodies must not keep the others' waiting.
    """

    signatures: Signatures
    known: KnownSenders
    bodies: Bodies
    inbox: GroupCommit
    tally: Tally
    counts: Counts
    metrics: Handler
    is_alive: IsAlive
    tolerance_seconds: float
    reader: OwnThread = field(default_factory=lambda: OwnThread("reader of large bodies"))

    def application(self, running: Callable[[], AbstractAsyncContextManager[None]]) -> Starlette:
        """The receiver as an ASGI application; `running` is what goes on beside its requests."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with running():
                yield

        def post(path: str, name: str, handler: Handler) -> Route:
            return Route(path, self._answered(name, handler), methods=["POST"])

        routes = [
            Route(HEALTH_PATH, self._health, methods=["GET"]),
            Route(METRICS_PATH, self.metrics, methods=["GET"]),
            post(GHL_PATH, "ghl", self._from_app),
        ]
        for provider, path in SECRET_PATHS.items():
            handler = self._from_secret_holder(provider)
            routes += [post(f"{path}/{{location_id}}{rest}", provider.value, handler) for rest in ("/{secret}", "")]
        application = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: self._no_route})
        # A redirect would repeat the path, and with it the secret, in a header.
        application.router.redirect_slashes = False
        return application

    # --- the routes

    async def _from_app(self, request: Request) -> Response:
        """An app's webhook: signed, and whose it is stands in the body."""
        self.bodies.refuse_announced(request)
        newer, older = request.headers.getlist(ED25519_HEADER), request.headers.getlist(RSA_HEADER)
        if not is_any_there(newer, older):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "wrong_signature")
        async with self.bodies.of_stranger(request) as in_hand:
            body = in_hand.content
            if not self.signatures.are_valid(body, newer, older):
                raise HTTPException(HTTPStatus.UNAUTHORIZED, "wrong_signature")
            self.bodies.is_signed(in_hand)
            _refuse_other_content(request)
            _refuse_what_is_no_text(body)
            try:
                fresh = is_fresh(body, now=datetime.now(UTC), tolerance_seconds=self.tolerance_seconds)
            except (msgspec.DecodeError, RecursionError):
                raise HTTPException(HTTPStatus.BAD_REQUEST, "unreadable") from None
            if not fresh:
                raise HTTPException(HTTPStatus.UNAUTHORIZED, "stale_timestamp")
            event = await self._event_in(Provider.GHL, body)
            # An app is installed where it is installed: what happens in other locations is noted without its content.
            sender = await self.known.of_location(event.location_id or "")
            return await self._stored(event, body, sender)

    def _from_secret_holder(self, provider: Provider) -> Handler:
        """A webhook without a signature: the secret in the path, or in a header, says whose it is."""

        async def handle(request: Request) -> Response:
            self.bodies.refuse_announced(request)
            secret = request.path_params.get("secret") or request.headers.get(SECRET_HEADER, "")
            sender = await self.known.with_secret(request.path_params["location_id"], provider, secret)
            if sender is None:
                raise HTTPException(HTTPStatus.UNAUTHORIZED, "wrong_secret")
            async with self.bodies.of_client(request, sender.location_id) as in_hand:
                body = in_hand.content
                _refuse_other_content(request)
                _refuse_what_is_no_text(body)
                event = await self._event_in(provider, body, sender.location_id)
                if event.location_id not in (None, sender.location_id):
                    raise HTTPException(HTTPStatus.FORBIDDEN, "other_location")
                if provider is Provider.EMAILBISON and (
                    sender.workspace_id is None or event.workspace_id != sender.workspace_id
                ):
                    raise HTTPException(HTTPStatus.FORBIDDEN, "other_workspace")
                return await self._stored(event, body, sender)

        return handle

    async def _event_in(self, provider: Provider, body: bytes, location_id: str | None = None) -> Event:
        try:
            if len(body) < _READ_ASIDE_FROM_BYTES:
                return read_event(provider, body, location_id=location_id)
            async with asyncio.timeout(_READ_ASIDE_WITHIN_SECONDS):
                return await self.reader.run(_read_and_rest, provider, body, location_id)
        except UnreadableEvent:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "unreadable") from None
        except (NoFreeThread, TimeoutError):
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "busy") from None

    async def _stored(self, event: Event, body: bytes, sender: Sender | None) -> Response:
        if sender is None:
            delivery = Delivery(event, body, client_id=None, location_id=event.location_id)
        else:
            delivery = Delivery(event, body, sender.client_id, sender.location_id, sender.is_active)
        stored = await self.inbox.add(delivery)
        if isinstance(stored, NotStored) and stored.is_blocked:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "blocked")
        if isinstance(stored, NotStored):
            log.error("an event of type %s could not be stored: %s", event.event_type, stored.error_class)
            raise HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR, "not_stored")
        return JSONResponse({"status": "stored" if stored.is_new else "duplicate"})

    async def _health(self, _: Request) -> Response:
        alive = await self.is_alive()
        return JSONResponse({"ok": alive}, HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE)

    # --- answers

    def _answered(self, route: str, handler: Handler) -> Handler:
        """The handler with its refusals as answers, all counted."""

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            try:
                response = await handler(request)
                reason = ""
            except HTTPException as refused:
                response, reason = _refusal(refused.status_code, refused.detail), refused.detail
            except DatabaseUnavailable:
                response, reason = _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"), "unavailable"
            except Exception as error:  # noqa: BLE001 - the server's own answer would be counted nowhere
                # The class and the place only: a text may quote the body.
                log.error(  # noqa: TRY400 - as above
                    "a bug in the route %s: %s at %s", route, type(error).__name__, _place_of(error)
                )
                response, reason = _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "failed"), "failed"
            location_id = request.path_params.get("location_id", "")
            known = location_id if self.known.has(location_id) else None
            self.tally.count(route, response.status_code, reason, known)
            self.counts.answered(route, response.status_code, reason, time.perf_counter() - began)
            return response

        return answer

    def _no_route(self, _: Request, error: Exception) -> Response:
        """No such path, or not by this method."""
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
        reason = "wrong_method" if status == HTTPStatus.METHOD_NOT_ALLOWED else "no_such_path"
        self.tally.count("other", status, reason)
        headers = error.headers if isinstance(error, HTTPException) else None
        return JSONResponse({"error": reason}, status, headers)


def _refusal(status: int, reason: str) -> Response:
    later = status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INTERNAL_SERVER_ERROR)
    return JSONResponse({"error": reason}, status, {"Retry-After": _TRY_AGAIN_SECONDS} if later else None)


def _refuse_other_content(request: Request) -> None:
    """Refuses a content type that is not JSON; none at all is taken for it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json")


def _refuse_what_is_no_text(body: bytes) -> None:
    """Refuses NUL bytes and what is not UTF-8, which no JSON holds and which reading is otherwise patient with."""
    try:
        readable = b"\x00" not in body and (body.isascii() or bool(body.decode()))
    except UnicodeDecodeError:
        readable = False
    if not readable:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "unreadable")


def _read_and_rest(provider: Provider, body: bytes, location_id: str | None) -> Event:
    """`read_event`, then a pause as long: nothing else runs while a large body is searched (5 MB up to 0.2 s)."""
    began = time.monotonic()
    try:
        return read_event(provider, body, location_id=location_id)
    finally:
        time.sleep(min(time.monotonic() - began, _LONGEST_REST_SECONDS))


def _place_of(error: Exception) -> str:
    """Where it was raised: file, line and function, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
