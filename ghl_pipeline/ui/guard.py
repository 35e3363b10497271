"""The guard: an ASGI application around the webserver's that refuses, bounds, adds headers and keeps the access log."""

import logging
import time
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ghl_pipeline.ui.access import Access
from ghl_pipeline.ui.addresses import Address
from ghl_pipeline.ui.rules import HEALTH_PATH, READING, Asked, Place, Refusal, place_of, refusal

log = logging.getLogger(__name__)

# A backfill of 10,000 locations names each of them: some 300 kB. Run configurations are smaller.
MOST_BODY_BYTES: Final = 5 * 1024 * 1024
LONGEST_PATH_TOLD: Final = 200
TELL_REFUSALS_EVERY_SECONDS: Final = 1.0
# RFC 6455: the other side broke a rule of this one.
POLICY_VIOLATION: Final = 1008

_EVERYWHERE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Beside the webserver's own policy, which leaves open what may be loaded and who may frame it; a browser keeps to both.
# The UI writes styles and, in its playground, a script into its pages. Metadata in Markdown may bring images as data,
# never from elsewhere: elsewhere would learn who looks at what.
_PAGE_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' ws://{host} wss://{host}; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-src 'none'; frame-ancestors 'none'"
)
_FILE_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"


class Guard:
    """What stands between the network and Dagster's webserver."""

    def __init__(self, app: ASGIApp, *, served: frozenset[Address], access: Access, access_log: bool = False) -> None:
        """Wraps `app`.

        Args:
            app: the webserver's application.
            served: names under which it may be asked.
            access: what a request has to know.
            access_log: whether every request is told in the log; refused ones are in any case.
        """
        self._app = app
        self._served = served
        self._access = access
        self._access_log = access_log
        self._refusals = _RefusalLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request or websocket, or the application's lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = _asked(scope)
        if asked.path == HEALTH_PATH and asked.method in READING and not asked.websocket:
            # For supervisors, who ask by number and know no password. It says nothing but that somebody answers.
            await PlainTextResponse("ok", headers=_EVERYWHERE | {"Cache-Control": "no-store"})(scope, receive, send)
            return
        answered = _Answered(asked, send)
        refused = refusal(asked, self._served) or self._access.refusal(asked)
        if refused is None and not asked.websocket and asked.method == "POST":
            body = await _read_body(asked, receive)
            if isinstance(body, Refusal):
                refused = body
            else:
                receive = _again(body, receive)
        started = time.monotonic()
        if refused is None:
            await self._app(scope, receive, answered)
        else:
            self._refusals.tell(asked, refused)
            await _refuse(refused, scope, receive, answered)
        if self._access_log:
            log.info(
                "%s %s %s %.0f ms", asked.method, _printable(asked.path), answered.status, _milliseconds_since(started)
            )


def _asked(scope: Scope) -> Asked:
    headers: dict[str, list[str]] = {}
    for name, value in Headers(scope=scope).items():
        headers.setdefault(name.lower(), []).append(value)
    websocket = scope["type"] == "websocket"
    method = "WEBSOCKET" if websocket else scope["method"]
    return Asked(method, scope["path"], scope["query_string"].decode("latin-1"), headers, websocket)


async def _read_body(asked: Asked, receive: Receive) -> bytes | Refusal:
    """One question as a JSON object of bounded size. A list of them would be executed by nobody, and is an error."""
    too_large = Refusal(413, f"A question may have {MOST_BODY_BYTES:,} bytes.")
    length = asked.header("content-length") or "0"
    if length.isdigit() and int(length) > MOST_BODY_BYTES:
        return too_large
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return Refusal(400, "The question broke off.")
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES:
            return too_large
        more = message.get("more_body", False)
    if body.lstrip()[:1] != b"{":
        return Refusal(400, "A question is one JSON object; several at once are not taken.")
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, and after it whatever comes."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _refuse(refused: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"WWW-Authenticate": 'Basic realm="ghl-pipeline", charset="UTF-8"'} if refused.status == 401 else {}
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
        return
    await PlainTextResponse(f"{refused.text}\n", refused.status, headers)(scope, receive, send)


class _Answered:
    """A `send` that notes the status and adds the headers."""

    def __init__(self, asked: Asked, send: Send) -> None:
        self.status: int | str = "no answer"
        self._asked = asked
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            self.status = message["status"]
            self._add_headers(MutableHeaders(scope=message))
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in _EVERYWHERE.items():
            headers[name] = value
        place = place_of(self._asked.path)
        if place is Place.FILE:
            headers["Content-Security-Policy"] = _FILE_POLICY
        else:
            # A refused name is not repeated; one that is served has letters, digits and a few marks only.
            host = self._asked.header("host") if self.status != 421 else None
            headers.append("Content-Security-Policy", _PAGE_POLICY.format(host=host or "localhost"))
        if place in {Place.FILE, Place.GRAPHQL} or self.status in range(400, 500):
            headers["Cache-Control"] = "no-store"


class _RefusalLog:
    """A warning per refusal, at most one a second: a page that keeps on trying must not fill the disk."""

    def __init__(self) -> None:
        self._next = 0.0
        self._untold = 0

    def tell(self, asked: Asked, refused: Refusal) -> None:
        now = time.monotonic()
        if now < self._next:
            self._untold += 1
            return
        more = f" (+{self._untold} before)" if self._untold else ""
        log.warning("refused with %d: %s %s%s", refused.status, asked.method, _printable(asked.path), more)
        self._next, self._untold = now + TELL_REFUSALS_EVERY_SECONDS, 0


def _printable(path: str) -> str:
    """The path without its query string, with nothing in it that could pass for another line of the log."""
    return quote(path, safe="/:@!$&'()*+,;=~-._")[:LONGEST_PATH_TOLD]


def _milliseconds_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
