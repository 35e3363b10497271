"""aiohttp's connections under httpx's interface, and the moment at which a request leaves through one.

aiohttp takes half the processor time of httpx's own transport (docs/decisions/0019-aiohttp-under-httpx.md). The moment
matters to the throttle: a slot is a time, and a busy process may send a request later than its slot.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient


@dataclass(slots=True)
class Sent:
    """When a request's headers were written, on `time.monotonic()`; None before that."""

    at: float | None = None


# What is being sent in this context. The object is shared with tasks that aiohttp makes to write.
_sending: ContextVar[Sent | None] = ContextVar("sending", default=None)


@contextmanager
def watch_sending() -> Iterator[Sent]:
    """Within the block, the last request of this task tells when it left."""
    sent = Sent()
    token = _sending.set(sent)
    try:
        yield sent
    finally:
        _sending.reset(token)


async def _note(_: aiohttp.ClientSession, __: SimpleNamespace, ___: aiohttp.TraceRequestHeadersSentParams) -> None:
    sent = _sending.get()
    if sent is not None:
        sent.at = time.monotonic()


def _trace() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note)
    trace.freeze()
    return trace


class _WatchedTransport(AiohttpTransport):
    def get_client(self) -> aiohttp.ClientSession:
        session = super().get_client()
        session.trace_configs.append(_trace())
        return session


class ConnectionsClient(HttpxAiohttpClient):
    """An httpx client on aiohttp's connections, the proxies of the environment included."""

    # httpx calls both by keyword, but for the proxy.
    def _init_transport(  # type: ignore[override]
        self, *, transport: httpx.AsyncBaseTransport | None = None, **kwargs: Any
    ) -> httpx.AsyncBaseTransport:
        return transport or _WatchedTransport(**kwargs)

    def _init_proxy_transport(self, proxy: httpx.Proxy, **kwargs: Any) -> httpx.AsyncBaseTransport:  # type: ignore[override]
        return _WatchedTransport(proxy=proxy, **kwargs)
