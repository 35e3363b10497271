"""Reading a request's body within bounds: of one body, of all that are in hand at once, and of time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

# Of all bodies that are being read or stored. At 5 MiB each that is 25 at once; usual ones have 2 KiB.
MOST_BYTES_IN_HAND = 128 * 1024 * 1024
# Both senders have the body ready when they connect; one that trickles holds memory for nothing.
READ_WITHIN_SECONDS = 10.0
# Digits of a length that cannot be meant; Python refuses to read numbers of thousands of digits.
_LONGEST_LENGTH = 18


class Bodies:
    """Takes bodies up to `most_bytes` each."""

    def __init__(self, most_bytes: int, *, most_in_hand: int = MOST_BYTES_IN_HAND) -> None:
        self._most_bytes = most_bytes
        self._most_in_hand = most_in_hand
        self._in_hand = 0

    def refuse_announced(self, request: Request) -> None:
        """Refuses by the length that the request announces, before a byte of the body is read.

        Raises:
            HTTPException: 413.
        """
        announced = request.headers.get("content-length", "0").strip()
        if len(announced) > _LONGEST_LENGTH or (announced.isdecimal() and int(announced) > self._most_bytes):
            raise _too_large()

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body; its bytes count as in hand until the block ends.

        Raises:
            HTTPException: 413 as soon as it is too large; 408 when it takes too long; 503 when too much is in hand; 400
                when the sender hangs up.
        """
        size = 0
        chunks: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(READ_WITHIN_SECONDS):
                    async for chunk in request.stream():
                        size += len(chunk)
                        self._in_hand += len(chunk)
                        self._refuse_excess(size)
                        chunks.append(chunk)
            except TimeoutError:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "too_slow") from None
            except ClientDisconnect:
                raise HTTPException(HTTPStatus.BAD_REQUEST, "hung_up") from None
            yield b"".join(chunks)
        finally:
            self._in_hand -= size

    def _refuse_excess(self, size: int) -> None:
        if size > self._most_bytes:
            raise _too_large()
        if self._in_hand > self._most_in_hand:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "busy")


def _too_large() -> HTTPException:
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large")
