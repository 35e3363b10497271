"""Running the receiver: its database connections, its server, how it starts and how it stops.

uvicorn serves; it logs no request, because the paths hold secrets. On SIGTERM or Ctrl-C it takes no connection more,
stores and answers what it has, and ends. What the routes do is in `receiver.py`.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from ghl_pipeline.database.connection import database_urls, opened, unavailable
from ghl_pipeline.listening import log_like_a_server
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.inbox.store_events import Suspects, store_deliveries
from ghl_pipeline.webhooks.receiving.bodies import Bodies
from ghl_pipeline.webhooks.receiving.connections import receiver_engine
from ghl_pipeline.webhooks.receiving.counts import Counts, Shared
from ghl_pipeline.webhooks.receiving.group_commit import GroupCommit
from ghl_pipeline.webhooks.receiving.health import Health
from ghl_pipeline.webhooks.receiving.known_senders import KnownSenders
from ghl_pipeline.webhooks.receiving.receiver import Receiver
from ghl_pipeline.webhooks.receiving.scraping import Scraping, database_reading
from ghl_pipeline.webhooks.receiving.senders import Sender, read_senders
from ghl_pipeline.webhooks.receiving.signatures import Signatures
from ghl_pipeline.webhooks.receiving.tally import Tally

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8788
TELL_EVERY_SECONDS: Final = 60.0
# More than a proxy keeps an idle connection (60 to 75 s is usual), so that it is never the receiver that closes one
# just as the next event is sent on it.
KEEP_ALIVE_SECONDS: Final = 90
# Open requests for what is being stored end sooner (6 s); this cuts off bodies that trickle in. What hangs then is
# waited for a second, and what keeps the process after that, another one: supervisors kill after 10 s.
STOP_WITHIN_SECONDS: Final = 7
CLOSE_WITHIN_SECONDS: Final = 1.0
END_WITHIN_SECONDS: Final = 1.0
# A child imports for two seconds, and for more than uvicorn's five on a busy machine: it would be killed before it ever
# served, again and again.
CHILD_ANSWERS_WITHIN_SECONDS: Final = 60
MOST_CONNECTIONS: Final = 4096
# Files that are open beside the connections of senders: of the database, of the event loop, of the interpreter.
FILES_IN_RESERVE: Final = 128
FEW_CONNECTIONS: Final = 1024
# The writer's thread needs the interpreter back after each answer of the database; a busy event loop gives it up after
# this time. At 500 a second it makes no difference; at 750, p99 was 19 to 22 ms in four of five runs (78 in one), and
# 42 and 80 ms in two with Python's 5 ms.
SWITCH_THREADS_SECONDS: Final = 0.001


def create_receiver(
    settings: Settings, engine: Engine, ended: Callable[[], None] = lambda: None, counts_folder: Path | None = None
) -> Starlette:
    """The receiver as an ASGI application on the dashboard database; disposes the engine when it ends.

    Args:
        settings: of the receiver.
        engine: from `receiver_engine`.
        ended: called when everything is closed, or hangs and was left.
        counts_folder: where its processes leave each other what they counted; None: it is the only one.

    Raises:
        ConfigurationError: a key of GHL in the settings is none.
    """
    health = Health(engine)
    counts = Counts(waiting=lambda: inbox.waiting)
    inbox = GroupCommit(partial(store_deliveries, engine, suspects=Suspects()), count=counts.stored)
    metrics = Scraping(
        counts,
        database_reading(engine, per_location_up_to=settings.metrics_per_location_up_to),
        settings.metrics_token,
        Shared(counts_folder),
        open_to_this_machine=settings.metrics_without_token,
    )
    known = KnownSenders(partial(_read_senders, engine))
    tally = Tally()
    receiver = Receiver(
        signatures=Signatures.from_settings(settings),
        known=known,
        bodies=Bodies(settings.webhook_max_bytes),
        inbox=inbox,
        tally=tally,
        counts=counts,
        metrics=metrics.answer,
        is_alive=health.is_alive,
        tolerance_seconds=settings.webhook_tolerance_seconds,
    )

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        # However the server logs: a line of its access log holds the path, and so the secret.
        logging.getLogger("uvicorn.access").disabled = True
        inbox.start()
        beside = [
            asyncio.create_task(_tell(tally), name="telling what was received"),
            asyncio.create_task(metrics.share(), name="sharing what was counted"),
            asyncio.create_task(_stop_with_parent(), name="looking after the parent process"),
        ]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await _closed(inbox.close(), known.close(), health.close(), metrics.close())
            receiver.reader.close()
            tally.tell()
            engine.dispose()
            ended()

    return receiver.application(running)


def _read_senders(engine: Engine) -> dict[str, Sender]:
    with opened(engine) as connection:
        try:
            return read_senders(connection)
        except DBAPIError as error:
            raise unavailable(engine.url, error) from None


async def _closed(*closing: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(CLOSE_WITHIN_SECONDS):
            await asyncio.gather(*closing)
    except TimeoutError:
        log.error("the database hangs; stopping without its answer")  # noqa: TRY400 - the trace says nothing more


async def _tell(tally: Tally) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY_SECONDS)
        tally.tell()


# --- the server


@dataclass(frozen=True)
class _Application:
    """Makes the application in the process that serves it: it is sent to child processes, connections cannot be."""

    settings: Settings
    log_level: int
    counts_folder: Path | None

    def __call__(self) -> Starlette:
        log_like_a_server(self.log_level)
        sys.setswitchinterval(SWITCH_THREADS_SECONDS)
        engine = receiver_engine(database_urls(self.settings).app)
        return create_receiver(self.settings, engine, _end_soon, self.counts_folder)


def _end_soon() -> None:
    """Ends the process if it does not end by itself, whatever hangs in it."""

    def end() -> None:
        log.error("something still hangs; ending without it")
        logging.shutdown()
        os._exit(1)

    timer = threading.Timer(END_WITHIN_SECONDS, end)
    timer.daemon = True
    timer.start()


async def _stop_with_parent() -> None:
    """Stops a child whose parent was killed: it would go on holding the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(parent.sentinel, gone.set)  # readable when the parent ends, however it ends
    try:
        await gone.wait()
    finally:
        loop.remove_reader(parent.sentinel)
    log.error("the parent process is gone; stopping")
    signal.raise_signal(signal.SIGTERM)


def most_connections() -> int:
    """How many connections the process can hold open; raises its limit of open files as far as it may."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + FILES_IN_RESERVE
    # "Unlimited" is refused by some systems; then what is needed has to do.
    for tried in (most, wanted):
        if limit == resource.RLIM_INFINITY or (tried != resource.RLIM_INFINITY and tried <= limit):
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (tried, most))
            limit = tried
    files = wanted if limit == resource.RLIM_INFINITY else limit
    connections = max(min(MOST_CONNECTIONS, files - FILES_IN_RESERVE), 1)
    if connections < FEW_CONNECTIONS:
        log.warning(
            "the process may have %d files open, so it takes only %d connections at once; raise the limit (ulimit -n, "
            "LimitNOFILE)",
            limit,
            connections,
        )
    return connections


def serve(settings: Settings, listener: socket.socket, *, processes: int = 1, log_level: int = logging.INFO) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Args:
        settings: of the receiver; its database is there and migrated.
        listener: from `listen`; closed at the end.
        processes: how many share the socket.
        log_level: of the receiver's own lines.

    Raises:
        ConfigurationError: a key of GHL in the settings is none.
    """
    Signatures.from_settings(settings)  # said before anything starts, and by this process
    with _counts_folder(processes) as counts_folder:
        config = _server(_Application(settings, log_level, counts_folder), processes)
        with contextlib.closing(listener), _signals_that_end_nothing():
            if processes == 1:
                uvicorn.Server(config).run([listener])
            else:
                listener.set_inheritable(True)
                Multiprocess(config, [listener]).run()


@contextlib.contextmanager
def _counts_folder(processes: int) -> Iterator[Path | None]:
    """A folder of the receiver's own for what its processes count, when there are several."""
    if processes == 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ghl_pipeline_counts_", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _server(application: _Application, processes: int) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        factory=True,
        ws="none",
        lifespan="on",
        workers=processes,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=most_connections(),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
        timeout_worker_healthcheck=CHILD_ANSWERS_WITHIN_SECONDS,
    )


@contextlib.contextmanager
def _signals_that_end_nothing() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it once more at the end; being told to stop is not an error here."""
    handlers = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
