"""Reading a request's body within bounds: of one body, of all that are in hand at once, and of time.

Strangers have room of their own: what anybody can send must not take the room of those who proved who they are. And no
client has all of it, or one that sends large bodies would send the others away.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

_MIB = 1024 * 1024
# Of all bodies with a client's secret that are being read or stored. At 5 MiB each that is 25 at once; usual ones have
# 2 KiB.
MOST_BYTES_IN_HAND: Final = 128 * _MIB
# Of one client; of all that proved nothing yet.
MOST_BYTES_OF_ONE: Final = 32 * _MIB
MOST_BYTES_OF_STRANGERS: Final = 32 * _MIB
# Of all that GHL signed.
MOST_BYTES_OF_APPS: Final = 64 * _MIB
# Both senders have the body ready when they connect; one that trickles holds memory for nothing.
READ_WITHIN_SECONDS: Final = 10.0
# Digits of a length that cannot be meant; Python refuses to read numbers of thousands of digits.
_LONGEST_LENGTH = 18


class Room:
    """Bytes that are in hand, in all and of each holder."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._all = 0
        self._of: Counter[str] = Counter()

    def take(self, holder: str, size: int) -> None:
        """Counts bytes as in hand.

        Raises:
            HTTPException: 503; they would be too many, and are not counted.
        """
        if self._all + size > self._most or self._of[holder] + size > self._most_of_one:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "busy")
        self._all += size
        self._of[holder] += size

    def give_back(self, holder: str, size: int) -> None:
        """The bytes are in hand no more."""
        self._all -= size
        self._of[holder] -= size
        if not self._of[holder]:
            del self._of[holder]


@dataclass(eq=False, slots=True)
class Body:
    """A body that was read.

    Attributes:
        content: as it came.
    """

    _room: Room
    _holder: str
    _size: int = 0
    content: bytes = b""

    def is_of(self, room: Room, holder: str) -> None:
        """Counts the body in another room from now on.

        Raises:
            HTTPException: 503; there is no room.
        """
        room.take(holder, self._size)
        self._room.give_back(self._holder, self._size)
        self._room, self._holder = room, holder

    def grow(self, size: int) -> None:
        """Counts more bytes of it; raises as `Room.take`."""
        self._room.take(self._holder, size)
        self._size += size

    def let_go(self) -> None:
        """Counts none of it."""
        self._room.give_back(self._holder, self._size)
        self._size = 0


class Bodies:
    """Takes bodies up to `most_bytes` each."""

    def __init__(
        self,
        most_bytes: int,
        *,
        most_in_hand: int = MOST_BYTES_IN_HAND,
        most_of_one: int = MOST_BYTES_OF_ONE,
        most_of_strangers: int = MOST_BYTES_OF_STRANGERS,
        most_of_apps: int = MOST_BYTES_OF_APPS,
    ) -> None:
        self._most_bytes = most_bytes
        # One body of the largest size fits anywhere.
        in_hand, of_one, of_apps, of_strangers = (
            max(most, most_bytes) for most in (most_in_hand, most_of_one, most_of_apps, most_of_strangers)
        )
        self._clients = Room(in_hand, of_one)
        self._apps = Room(of_apps, of_apps)
        self._strangers = Room(of_strangers, of_strangers)

    def refuse_announced(self, request: Request) -> None:
        """Refuses by the length that the request announces, before a byte of the body is read.

        Raises:
            HTTPException: 413.
        """
        announced = request.headers.get("content-length", "0").strip()
        if len(announced) > _LONGEST_LENGTH or (announced.isdecimal() and int(announced) > self._most_bytes):
            raise _too_large()

    def of_stranger(self, request: Request) -> contextlib.AbstractAsyncContextManager[Body]:
        """See `_read`: the body of somebody who proves with it who they are."""
        return self._read(request, Body(self._strangers, ""))

    def of_client(self, request: Request, location_id: str) -> contextlib.AbstractAsyncContextManager[Body]:
        """See `_read`: the body of somebody who has a client's secret."""
        return self._read(request, Body(self._clients, location_id))

    def is_signed(self, body: Body) -> None:
        """Notes that a stranger's body is GHL's.

        Raises:
            HTTPException: 503; too much is in hand.
        """
        body.is_of(self._apps, "")

    @contextlib.asynccontextmanager
    async def _read(self, request: Request, body: Body) -> AsyncIterator[Body]:
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
                        if size > self._most_bytes:
                            raise _too_large()
                        body.grow(len(chunk))
                        chunks.append(chunk)
            except TimeoutError:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "too_slow") from None
            except ClientDisconnect:
                raise HTTPException(HTTPStatus.BAD_REQUEST, "hung_up") from None
            body.content = b"".join(chunks)
            chunks.clear()
            yield body
        finally:
            body.let_go()
            body.content = b""


def _too_large() -> HTTPException:
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large")
