"""`GET /metrics`: who may read it, and an answer that comes soon whatever becomes of the database.

The receiver faces the internet. Without METRICS_TOKEN nobody may ask, unless METRICS_WITHOUT_TOKEN lets programs of
this machine: then only by itself and by a name of loopback. A proxy on the same machine, which would ask for anybody,
is known by the headers that proxies add or by the name that it was asked by, and so is a page in a browser here whose
own name was made to lead here (DNS rebinding). One that says neither, as nginx unless it is told to, cannot be told
apart: therefore nobody is let in by default. Everybody else is told that there is no such path.
"""

import asyncio
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ghl_pipeline.database.connection import opened
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.operations.metrics.exposition import CONTENT_TYPE, exposed
from ghl_pipeline.operations.metrics.readings import Reading, read_metrics
from ghl_pipeline.webhooks.receiving.counts import SHARE_EVERY_SECONDS, Counts, Shared, added_up
from ghl_pipeline.webhooks.receiving.own_threads import NoFreeThread, OwnThread

log = logging.getLogger(__name__)

METRICS_PATH: Final = "/metrics"
# Prometheus waits 10 s for a scrape, unless told otherwise.
READ_WITHIN_SECONDS: Final = 5.0
# Several that scrape, or a person who reloads, cost the database one reading.
CACHED_SECONDS: Final = 10.0
# How long the last values are told while a slow reading goes on. One of 10,000 locations on a busy machine takes longer
# than a scrape waits, and each would come too late for the next one.
STALE_SECONDS: Final = 60.0
# What proxies and content networks add to what they pass on.
PROXY_HEADERS: Final = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via", "cf-connecting-ip",
    "true-client-ip",
)  # fmt: skip
_OWN_NAME: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


def may_read(request: Request, token: SecretStr | None) -> bool:
    """Whether the request has the token; where there is none, whether it comes from this machine and no proxy."""
    if token is not None:
        given = request.headers.get("authorization", "").encode()
        return hmac.compare_digest(given, f"Bearer {token.get_secret_value()}".encode())
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    if not all(_OWN_NAME.fullmatch(name) for name in request.headers.getlist("host") or [""]):
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class DatabaseReader:
    """The last reading of the database, and a new one when it is too old. One at a time, in a thread of its own."""

    def __init__(self, read: Callable[[], Reading], thread: OwnThread) -> None:
        self._read = read
        self._thread = thread
        self._reading: Reading | None = None
        self._question: asyncio.Task[Reading | None] | None = None

    async def latest(self) -> Reading | None:
        """The values as of a few seconds ago, of a minute while a reading takes long; None when there are none."""
        if self._is_younger_than(CACHED_SECONDS):
            return self._reading
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._ask(), name="reading metrics")
        done, _ = await asyncio.wait([self._question], timeout=READ_WITHIN_SECONDS)
        if done:
            return self._question.result()
        return self._reading if self._is_younger_than(STALE_SECONDS) else None

    def _is_younger_than(self, seconds: float) -> bool:
        return self._reading is not None and time.monotonic() - self._reading.read_at < seconds

    async def close(self) -> None:
        """Waits for the reading that is under way."""
        if self._question is not None:
            await asyncio.wait([self._question])

    async def _ask(self) -> Reading | None:
        try:
            self._reading = await self._thread.run(self._read)
        except (PipelineError, SQLAlchemyError, NoFreeThread) as error:
            log.warning("the database could not be read for metrics: %s", type(error).__name__)
            return None
        return self._reading


def database_reading(engine: Engine, *, per_location_up_to: int) -> Callable[[], Reading]:
    """Reads the database; see `readings.read_metrics`."""

    def read() -> Reading:
        with opened(engine) as connection:
            try:
                return read_metrics(connection, per_location_up_to=per_location_up_to)
            except DBAPIError:
                connection.invalidate()
                raise

    return read


@dataclass
class Scraping:
    """The route, and what has to go on beside it.

    Attributes:
        counts: of this process.
        read: the database; blocks.
        token: that a request must have; None: see `may_read`.
        shared: where the other processes leave theirs.
        open_to_this_machine: whether anybody may ask where there is no token.
    """

    counts: Counts
    read: Callable[[], Reading]
    token: SecretStr | None
    shared: Shared
    open_to_this_machine: bool = False
    _thread: OwnThread = field(default_factory=lambda: OwnThread("reading metrics"), init=False)
    # Not the one that reads, which may be at it for longer than a scrape waits.
    _writer: OwnThread = field(default_factory=lambda: OwnThread("writing metrics"), init=False)
    _reader: DatabaseReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = DatabaseReader(self.read, self._thread)

    async def answer(self, request: Request) -> Response:
        """Everything that is known, in Prometheus's format.

        Raises:
            HTTPException: 404, whoever may not read it; 503, too many ask at once.
        """
        is_closed = self.token is None and not self.open_to_this_machine
        if is_closed or not may_read(request, self.token):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        reading = await self._reader.latest()
        # A text without the database's values is short.
        try:
            content = self._text(None) if reading is None else await self._writer.run(self._text, reading)
        except NoFreeThread:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "busy") from None
        return Response(content, headers={"content-type": CONTENT_TYPE})

    def _text(self, reading: Reading | None) -> bytes:
        own, distributions = added_up(self.counts.told(), self.shared.others())
        return exposed(reading, own, distributions)

    async def share(self) -> None:
        """Leaves this process's counts for the others, again and again."""
        while self.shared.folder is not None:
            try:
                await self._writer.run(self.shared.write, self.counts.told())
            except NoFreeThread:
                log.warning("the counts of this process could not be left for the others: its thread is busy")
            await asyncio.sleep(SHARE_EVERY_SECONDS)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._reader.close()
        self._thread.close()
        self._writer.close()
