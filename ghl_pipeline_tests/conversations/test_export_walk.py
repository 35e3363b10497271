"""A walk through an export ends with every message, whatever GHL says when a cursor is dead; or it says so."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ghl_pipeline.conversations.export_walk import ExportStuck, ExportWalk
from ghl_pipeline.ghl.client import open_client
from ghl_pipeline.ghl.errors import DailyQuotaReached, GhlError, RequestRejected, TokenRejected
from ghl_pipeline.ghl.message_payloads import MessageExport
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline_tests.conversations.conftest import Unthrottled

BEGIN = datetime(2026, 4, 1, tzinfo=UTC)
ONCE = RetryPolicy(max_attempts=1, max_429=0, deadline_seconds=5.0, first_pause_seconds=0.001)


class FakeExport:
    """An export of messages at given seconds, two a page; `refuse` answers what it likes to requests with a cursor."""

    def __init__(self, seconds: list[int], refuse: Callable[[int], httpx.Response | None] = lambda _: None) -> None:
        self.seconds = seconds
        self.requests = 0
        self._refuse = refuse
        self._with_cursor = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        query = request.url.params
        start = datetime.fromisoformat(query["startDate"]) if "startDate" in query else BEGIN
        wanted = [(n, s) for n, s in enumerate(self.seconds) if BEGIN + timedelta(seconds=s) >= start]
        at = 0
        if "cursor" in query:
            self._with_cursor += 1
            if (refused := self._refuse(self._with_cursor)) is not None:
                return refused
            at = int(query["cursor"])
        page = wanted[at : at + 2]
        items: list[dict[str, Any]] = [
            {
                "id": f"message{n}",
                "direction": "inbound",
                "dateAdded": (BEGIN + timedelta(seconds=s)).isoformat(),
                "messageType": "TYPE_SMS",
            }
            for n, s in page
        ]
        following = str(at + 2) if at + 2 < len(wanted) else None
        return httpx.Response(200, json={"messages": items, "nextCursor": following, "total": len(wanted)})


async def walked(export: FakeExport) -> tuple[list[str], ExportWalk]:
    """The ids of all messages handed out, and the walk."""
    ids = []
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            open_client(
                base_url="https://ghl.example",
                location_id="LocationAAAAAAAAAAAA",
                token=SecretStr("pit-00000000-0000-0000-0000-000000000000"),
                throttle=Unthrottled(),
                policy=ONCE,
                timeout_seconds=5.0,
                transport=httpx.MockTransport(export),
            )
        )
        walk = ExportWalk(client, MessageExport(start=BEGIN))
        async for page in walk.pages():
            ids += [message.id for message in page.messages]
    return ids, walk


def refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"statusCode": status, "message": message})


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Invalid cursor"),
        (404, "Cursor not found"),
        (410, "Gone"),
        (422, "cursor expired"),
        (403, "The token does not have access to this location."),
        (400, "No search context found for id: point in time expired"),
        (500, "Internal server error"),
    ],
)
async def test_whatever_a_dead_cursor_is_called_the_walk_goes_on(status: int, message: str) -> None:
    export = FakeExport([0, 1, 2, 3, 4, 5], lambda _: refusal(status, message))
    ids, walk = await walked(export)
    assert list(dict.fromkeys(ids)) == [f"message{n}" for n in range(6)]
    assert walk.restarts > 0
    assert walk.latest == BEGIN + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (lambda: refusal(401, "Invalid token: access token is invalid"), TokenRejected),
        (lambda: httpx.Response(429, headers={"X-RateLimit-Daily-Remaining": "0"}), DailyQuotaReached),
    ],
)
async def test_what_is_not_the_cursors_ends_the_walk(
    refused: Callable[[], httpx.Response], error: type[GhlError]
) -> None:
    export = FakeExport([0, 1, 2, 3], lambda _: refused())
    with pytest.raises(error):
        await walked(export)
    assert export.requests == 2


async def test_a_refusal_without_a_cursor_ends_the_walk() -> None:
    class Refusing(FakeExport):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            self.requests += 1
            return refusal(422, "startDate must be something else")

    export = Refusing([])
    with pytest.raises(RequestRejected):
        await walked(export)
    assert export.requests == 1


async def test_cursors_that_always_die_where_dates_do_not_move_end_it() -> None:
    export = FakeExport([7] * 6, lambda _: refusal(400, "Invalid cursor"))
    with pytest.raises(ExportStuck, match=r"RequestRejected \(400\)"):
        await walked(export)
    assert export.requests == 6


async def test_how_far_it_is_cannot_be_said_before_messages_were_seen_to_ascend() -> None:
    _, flat = await walked(FakeExport([7] * 3))
    assert (flat.reached, flat.latest) == (None, BEGIN + timedelta(seconds=7))
    _, rising = await walked(FakeExport([7, 7, 8]))
    assert rising.reached == rising.latest == BEGIN + timedelta(seconds=8)
    _, falling = await walked(FakeExport([9, 8, 7]))
    assert (falling.reached, falling.latest) == (None, BEGIN + timedelta(seconds=9))


@settings(max_examples=150, deadline=None)
@given(
    seconds=st.lists(st.integers(0, 8), max_size=14),
    dies=st.sets(st.integers(1, 20)),
    newest_first=st.booleans(),
)
async def test_every_message_is_handed_out_or_the_walk_says_that_it_is_stuck(
    seconds: list[int], dies: set[int], newest_first: bool
) -> None:
    export = FakeExport(
        sorted(seconds, reverse=newest_first),
        lambda number: refusal(400, "Invalid cursor") if number in dies else None,
    )
    try:
        ids, _ = await walked(export)
    except ExportStuck:
        assert dies
    else:
        assert set(ids) == {f"message{n}" for n in range(len(seconds))}
    assert export.requests <= 100
