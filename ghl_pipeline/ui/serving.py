"""The UI's server: who may be let in where it listens, how it starts and how it ends."""

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from ghl_pipeline.errors import InvalidInput

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 3000
MOST_FRAME_BYTES: Final = 1024 * 1024
# Requests that are under way end, or are cut off; then what still hangs in threads (a question to the database, to a
# code server) is left. Supervisors kill after 10 s.
ANSWER_WITHIN_SECONDS: Final = 3
END_WITHIN_SECONDS: Final = 5.0


def require_guarded(listener: socket.socket, *, has_password: bool, behind_proxy: bool) -> None:
    """Lets a socket beyond loopback pass only when somebody asks who comes.

    Raises:
        InvalidInput: nobody would.
    """
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    if address.is_loopback or has_password or behind_proxy:
        return
    raise InvalidInput(
        f"Whoever reaches the UI can start and stop everything, and {address} is reached from other machines. Leave it "
        "on 127.0.0.1 and come by ssh -L, or set UI_PASSWORD, or give --behind-proxy when a proxy in front of it logs "
        "people in."
    )


def url_of(listener: socket.socket) -> str:
    """Where the UI is, with the address that is listened at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serves until SIGTERM or Ctrl-C, then raises `SystemExit`, as `ends_on_signals` has it."""
    config = uvicorn.Config(
        app,
        # The strict one: it refuses a second Host header, and a body whose length is said twice.
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MOST_FRAME_BYTES,
        lifespan="on",
        access_log=False,  # ours leaves query strings out
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=ANSWER_WITHIN_SECONDS,
    )
    uvicorn.Server(config).run([listener])


@contextlib.contextmanager
def ends_on_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the process with 0, at any moment from here on, and within seconds whatever hangs."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in handlers:  # told twice is told once
            signal.signal(each, signal.SIG_IGN)
        timer = threading.Timer(END_WITHIN_SECONDS, _end_at_once)
        timer.daemon = True
        timer.start()
        raise SystemExit(0)

    handlers = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _end_at_once() -> None:
    log.warning("something still hangs; ending without it")
    logging.shutdown()
    os._exit(0)
