"""A receiver that keeps what it gets and answers what it is told to; nothing of the one that the pipeline has."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Receiver:
    url: str = ""
    received: list[Received] = field(default_factory=list)
    status_of: Callable[[int], int] = lambda number: 200
    """From the number of the request, counted from 1, to the status of its answer."""
    at_once: int = 0
    most_at_once: int = 0
    seconds: float = 0.0

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.received]


@asynccontextmanager
async def listening() -> AsyncIterator[Receiver]:
    receiver = Receiver()

    async def handle(request: web.Request) -> web.Response:
        receiver.at_once += 1
        receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
        headers = {name.lower(): value for name, value in request.headers.items()}
        receiver.received.append(Received(request.path, headers, await request.read()))
        status = receiver.status_of(len(receiver.received))
        await asyncio.sleep(receiver.seconds)
        receiver.at_once -= 1
        return web.Response(status=status)

    app = web.Application(client_max_size=10_000_000)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
