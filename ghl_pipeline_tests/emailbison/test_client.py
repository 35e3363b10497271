"""The EmailBison client against the sandbox: pages, times, retries, refusals, and what an error may say."""

import asyncio
import json
import traceback
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr

from ghl_pipeline.emailbison.client import WorkspaceClient, open_workspace
from ghl_pipeline.emailbison.errors import (
    EmailBisonAccessDenied,
    EmailBisonError,
    EmailBisonRefused,
    EmailBisonUnavailable,
)
from ghl_pipeline.emailbison.payloads import EventRow
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline_tests.emailbison.conftest import QUICK, replies
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

TOKEN = "9|canaryTokenOfNobody"


async def events(client: WorkspaceClient, start: datetime, end: datetime | None = None, *types: str) -> list[EventRow]:
    return [row async for page in client.events(start, end, types) for row in page]


async def test_events_come_whole_and_equal_to_the_webhooks_over_many_pages(
    client: WorkspaceClient, workspace: Workspace
) -> None:
    times = replies(workspace, 40)

    rows = await events(client, times[0])

    assert [row.created_at for row in rows] == times[::-1]
    assert [json.loads(row.body) for row in rows] == [event.payload for event in reversed(workspace.events)]
    assert client.calls == 3


async def test_only_events_of_the_asked_time_are_given(client: WorkspaceClient, workspace: Workspace) -> None:
    times = replies(workspace, 10)

    rows = await events(client, times[3], times[7])

    assert [row.created_at for row in rows] == times[6:2:-1]


async def test_the_log_is_left_as_soon_as_it_is_before_the_asked_time(
    client: WorkspaceClient, workspace: Workspace
) -> None:
    times = replies(workspace, 150, every=timedelta(seconds=1))

    rows = await events(client, times[-20])

    assert len(rows) == 20
    assert client.calls <= 3


async def test_a_log_of_all_days_is_read_by_the_day_it_is_asked_for(
    client: WorkspaceClient, workspace: Workspace
) -> None:
    times = replies(workspace, 9, every=timedelta(days=1))

    assert len(await events(client, times[0])) == 9
    assert len(await events(client, times[4])) == 5
    assert len(await events(client, times[4], times[4] + timedelta(seconds=1))) == 1


async def test_types_are_asked_for_one_by_one(client: WorkspaceClient, workspace: Workspace) -> None:
    lead, now = workspace.leads[1], int(datetime.now(UTC).timestamp() * 1000)
    kinds = [BisonEvent.LEAD_REPLIED, BisonEvent.EMAIL_SENT, BisonEvent.LEAD_INTERESTED]
    for kind in kinds:
        workspace.happens(kind, lead, now=now)

    rows = await events(client, datetime.now(UTC) - timedelta(hours=1), None, "LEAD_REPLIED", "LEAD_INTERESTED")

    assert [json.loads(row.body)["event"]["type"] for row in rows] == ["LEAD_REPLIED", "LEAD_INTERESTED"]


async def test_an_empty_log_is_one_call(client: WorkspaceClient) -> None:
    assert await events(client, datetime.now(UTC) - timedelta(days=10)) == []
    assert client.calls == 1


async def test_a_reply_is_read_as_it_is_now(client: WorkspaceClient, workspace: Workspace) -> None:
    replies(workspace, 1)
    reply = next(iter(workspace.replies.values()))

    found = await client.reply(reply.id)

    assert (found["id"], found["lead_id"], found["text_body"]) == (reply.id, reply.lead_id, reply.text)
    with pytest.raises(EmailBisonRefused) as refusal:
        await client.reply(1)
    assert refusal.value.status == 404


@pytest.mark.parametrize(
    "faults", [{"error_rate": 1.0, "times": 2}, {"drop_rate": 1.0, "times": 2}, {"garbage_rate": 1.0, "times": 2}]
)
async def test_a_passing_fault_costs_only_more_calls(
    client: WorkspaceClient, workspace: Workspace, sandbox: Sandbox, faults: dict[str, object]
) -> None:
    times = replies(workspace, 3)
    sandbox.faults(workspace.faults_key, **faults)

    assert len(await events(client, times[0])) == 3
    assert client.calls == 3


async def test_a_server_that_stays_broken_is_given_up(
    client: WorkspaceClient, workspace: Workspace, sandbox: Sandbox
) -> None:
    sandbox.faults(workspace.faults_key, error_rate=1.0, error_status=503)

    with pytest.raises(EmailBisonUnavailable) as outage:
        await events(client, datetime.now(UTC))
    assert (outage.value.status, client.calls) == (503, QUICK.max_attempts)


async def test_a_server_that_hangs_is_given_up_in_time(
    client: WorkspaceClient, workspace: Workspace, sandbox: Sandbox
) -> None:
    sandbox.faults(workspace.faults_key, hang_rate=1.0, hang_seconds=10.0)

    async with asyncio.timeout(9):
        with pytest.raises(EmailBisonUnavailable, match="no answer in time"):
            await events(client, datetime.now(UTC))


async def test_a_429_is_waited_for_as_long_as_it_says(
    client: WorkspaceClient, workspace: Workspace, sandbox: Sandbox
) -> None:
    sandbox.faults(workspace.faults_key, storm_requests=1, retry_after=1)
    loop = asyncio.get_running_loop()
    began = loop.time()

    await events(client, datetime.now(UTC))

    assert client.calls == 2
    assert loop.time() - began >= 0.9


async def test_a_retry_after_of_an_hour_is_an_outage(
    client: WorkspaceClient, workspace: Workspace, sandbox: Sandbox
) -> None:
    sandbox.faults(workspace.faults_key, storm_requests=1, retry_after=3600)

    with pytest.raises(EmailBisonUnavailable) as refusal:
        await events(client, datetime.now(UTC))
    assert (refusal.value.retry_after, client.calls) == (3600.0, 1)


async def test_a_withdrawn_token_is_not_tried_twice(
    client: WorkspaceClient, workspace: Workspace, sandbox: Sandbox
) -> None:
    sandbox.faults(workspace.faults_key, token_revoked=True)

    with pytest.raises(EmailBisonAccessDenied, match="set-emailbison"):
        await events(client, datetime.now(UTC))
    assert client.calls == 1


# --- what no sandbox does


def answering(*answers: httpx.Response) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A server with these answers, the last one for ever, and what it was asked."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answers[min(len(asked), len(answers)) - 1]

    return httpx.MockTransport(answer), asked


def page(*numbers: int, **more: object) -> httpx.Response:
    rows = [
        {"payload": {"event": {"type": "LEAD_REPLIED", "workspace_id": 1}, "data": {"reply": {"id": number}}}}
        for number in numbers
    ]
    return httpx.Response(200, json={"data": rows, **more})


async def read_from(transport: httpx.MockTransport) -> list[int]:
    async with open_workspace(
        base_url="https://bison.example.com",
        workspace_id=1,
        token=SecretStr(TOKEN),
        timeout_seconds=1.0,
        policy=QUICK,
        transport=transport,
    ) as client:
        rows = await events(client, datetime.now(UTC) - timedelta(days=1))
    return [json.loads(row.body)["data"]["reply"]["id"] for row in rows]


async def test_every_page_is_asked_for_with_all_parameters_although_the_link_leaves_them_out() -> None:
    base = "https://bison.example.com/api/events"
    transport, asked = answering(
        page(1, links={"next": f"{base}?cursor=abc"}), page(2, meta={"next_cursor": "def"}), page(3)
    )

    assert await read_from(transport) == [1, 2, 3]
    assert [request.url.params.get("cursor") for request in asked] == [None, "abc", "def"]
    assert {request.url.params["pagination_type"] for request in asked} == {"cursor"}
    assert all("start_date" in request.url.params for request in asked)


async def test_numbered_pages_are_followed_where_there_is_no_cursor() -> None:
    transport, asked = answering(
        page(1, meta={"current_page": 1, "last_page": 3}),
        page(2, links={"next": "/api/events?page=3"}),
        page(3, meta={"current_page": 3, "last_page": 3}, links={"next": None}),
    )

    assert await read_from(transport) == [1, 2, 3]
    assert [request.url.params.get("page") for request in asked] == [None, "2", "3"]


async def test_a_link_to_another_host_is_not_followed() -> None:
    transport, asked = answering(page(1, links={"next": "https://elsewhere.example.net/api/events?cursor=abc"}))

    assert await read_from(transport) == [1]
    assert len(asked) == 1


async def test_a_redirect_does_not_take_the_token_along() -> None:
    transport, asked = answering(httpx.Response(302, headers={"Location": "https://elsewhere.example.net/"}))

    with pytest.raises(EmailBisonRefused):
        await read_from(transport)
    assert [request.url.host for request in asked] == ["bison.example.com"]


async def test_pages_in_a_circle_are_an_error_and_no_end() -> None:
    transport, asked = answering(page(1, meta={"next_cursor": "abc"}))

    with pytest.raises(EmailBisonRefused, match="same page again"):
        await read_from(transport)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, text=f"{TOKEN} canary@example.com"),
        httpx.Response(422, json={"message": "canary@example.com"}),
        httpx.Response(200, text='{"data": "canary@example.com"}'),
        httpx.Response(200, text="<html>canary@example.com</html>"),
        httpx.Response(200, text="[" * 100_000),
    ],
)
async def test_no_error_says_the_token_or_what_was_answered(answer: httpx.Response) -> None:
    transport, _ = answering(answer)

    with pytest.raises(EmailBisonError) as caught:
        await read_from(transport)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "canary@example.com" not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}é", f"{TOKEN}\r\nHost: elsewhere.example.net", ""])
async def test_a_token_that_no_header_takes_is_an_error_without_the_token(sandbox: Sandbox, token: str) -> None:
    async with open_workspace(
        base_url=f"{sandbox.url}/emailbison",
        workspace_id=1,
        token=SecretStr(token),
        timeout_seconds=1.0,
        policy=QUICK,
    ) as client:
        with pytest.raises(EmailBisonError) as caught:
            await events(client, datetime.now(UTC))
    assert TOKEN not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


async def test_a_client_shows_only_whose_it_is(client: WorkspaceClient, workspace: Workspace) -> None:
    assert repr(client) == f"WorkspaceClient({workspace.id})"
