"""A plain HTTP client for the sandbox, so that nothing here depends on the client the sandbox is made to test."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


class Caller:
    """Speaks to the sandbox with one location's token."""

    def __init__(self, client: httpx.AsyncClient, location: Location) -> None:
        self.http = client
        self.location = location

    async def search(self, **body: Any) -> httpx.Response:
        """A search of the location; `pageLimit` is 100 unless given, and None leaves a property out."""
        whole = {"locationId": self.location.id, "pageLimit": 100, **body}
        return await self.http.post("/contacts/search", json={k: v for k, v in whole.items() if v is not None})

    async def found(self, *filters: Any, **body: Any) -> list[str]:
        """The first names a search finds, in its order."""
        response = await self.search(filters=list(filters), **body)
        assert response.status_code == 200, response.text
        return [item.get("firstName") for item in response.json()["contacts"]]


def leaf(field: str, operator: str, *value: object) -> dict[str, object]:
    """A filter leaf; without a value it has none."""
    return {"field": field, "operator": operator, **({"value": value[0]} if value else {})}


def any_of(*filters: object) -> dict[str, object]:
    return {"group": "OR", "filters": list(filters)}


def all_of(*filters: object) -> dict[str, object]:
    return {"group": "AND", "filters": list(filters)}


@pytest.fixture
async def caller_of(sandbox: Sandbox) -> AsyncIterator[Callable[[Location], Caller]]:
    """Makes callers whose connections are closed at the end of the test."""
    async with AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = []

        def make(location: Location) -> Caller:
            headers = {"Authorization": f"Bearer {location.token}", "Version": "2021-07-28"}
            # verify=False: there is no TLS, and loading the certificates costs more than the test.
            clients.append(httpx.AsyncClient(base_url=sandbox.url, headers=headers, verify=False))
            stack.push_async_callback(clients[-1].aclose)
            return Caller(clients[-1], location)

        yield make


@pytest.fixture
def location(sandbox: Sandbox) -> Location:
    return sandbox.add_location()


@pytest.fixture
def caller(caller_of: Callable[[Location], Caller], location: Location) -> Caller:
    return caller_of(location)
