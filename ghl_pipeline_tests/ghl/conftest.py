"""Clients as the pipeline opens them, and a throttle without a limit for tests that are not about it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp
import httpx
import pytest
from aiohttp.abc import ResolveResult
from pydantic import SecretStr

from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.errors import CallFacts
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.throttle import Throttle
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

QUICK = RetryPolicy(max_attempts=3, max_429=3, deadline_seconds=30, first_pause_seconds=0.01)
SLOW_NAME = "slow.example"
SLOW_NAME_SECONDS = 0.4


@dataclass
class Unlimited:
    """A throttle that lets every request through and remembers what it was told."""

    acquired: int = 0
    refusals: list[float | None] = field(default_factory=list)
    learned: list[tuple[int, float]] = field(default_factory=list)

    async def sent(self, at: float) -> None:
        """Has no slot to move."""

    async def acquire(self, facts: CallFacts) -> float:
        self.acquired += 1
        return 0.0

    async def refused(self, pause_seconds: float | None) -> None:
        self.refusals.append(pause_seconds)

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        self.learned.append((max_requests, interval_seconds))


class Connector:
    """Opens clients; all are closed at the end of the test."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack

    async def __call__(
        self,
        location: Location,
        throttle: Throttle | None = None,
        *,
        token: str | None = None,
        location_id: str | None = None,
        url: str | None = None,
        policy: RetryPolicy = QUICK,
        timeout: float = 10.0,  # noqa: ASYNC109 - handed on, nothing here waits
    ) -> LocationClient:
        """A client of the sandbox for the location; what is given replaces what the location has."""
        client = open_client(
            base_url=url or self._url,
            location_id=location_id or location.id,
            token=SecretStr(token or location.token),
            throttle=throttle or Unlimited(),
            policy=policy,
            timeout_seconds=timeout,
        )
        return await self._stack.enter_async_context(client)

    async def answered_by(
        self, handler: Callable[[httpx.Request], httpx.Response], policy: RetryPolicy = QUICK
    ) -> LocationClient:
        """A client whose requests `handler` answers, for answers that the sandbox does not give."""
        client = open_client(
            base_url="https://ghl.example",
            location_id="LocationAAAAAAAAAAAA",
            token=SecretStr("pit-00000000-0000-0000-0000-000000000000"),
            throttle=Unlimited(),
            policy=policy,
            timeout_seconds=10.0,
            transport=httpx.MockTransport(handler),
        )
        return await self._stack.enter_async_context(client)


@pytest.fixture
async def connect(sandbox: Sandbox) -> AsyncIterator[Connector]:
    async with AsyncExitStack() as stack:
        yield Connector(sandbox.url, stack)


@pytest.fixture
def location(sandbox: Sandbox) -> Location:
    return sandbox.add_location()


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name means this machine, and takes `SLOW_NAME_SECONDS` to look up; the names that were."""
    asked: list[str] = []

    async def resolve(
        _: object, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        asked.append(host)
        await asyncio.sleep(SLOW_NAME_SECONDS)
        found = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        return [found]

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)
    return asked
