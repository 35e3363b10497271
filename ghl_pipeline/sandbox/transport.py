"""What both of the sandbox's gateways, GHL's and EmailBison's, need of HTTP: the token, a delay, a broken answer."""

import asyncio
import contextlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ghl_pipeline.sandbox.faults import Mishap


def bearer_token(request: Request) -> str:
    """The token of the Authorization header, empty when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def delay(request: Request, seconds: float) -> None:
    """Waits, but not longer than the client does: a server must be able to stop when its clients have given up.

    The body must have been read before.
    """
    if seconds <= 0:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await request.receive()  # the body has been read, so what comes next is the client hanging up


def respond(content: bytes, status: int, headers: Mapping[str, str], mishap: Mishap = Mishap.NONE) -> Response:
    """The JSON answer, or what the mishap makes of it."""
    if mishap is Mishap.GARBAGE:
        content = b"<html><body>upstream connect error or disconnect/reset before headers</body></html>"
    kind = _BrokenResponse if mishap is Mishap.DROPPED else Response
    return kind(content, status, headers=dict(headers), media_type="application/json; charset=utf-8")


class _BrokenResponse(Response):
    """Announces the whole body, sends half of it and ends: the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body[: len(self.body) // 2]), "more_body": True})
