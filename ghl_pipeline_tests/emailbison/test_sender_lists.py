"""Lists of accounts: all of their pages or an error, whatever the pages say of each other."""

import traceback
from collections.abc import Sequence

import httpx
import pytest
from pydantic import SecretStr

from ghl_pipeline.emailbison.client import WorkspaceClient, open_workspace
from ghl_pipeline.emailbison.errors import EmailBisonError, EmailBisonRefused, EmailBisonUnavailable
from ghl_pipeline.emailbison.sender_lists import SenderEmail, read_sender
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline_tests.emailbison.conftest import QUICK
from ghl_pipeline_tests.emailbison.test_client import TOKEN, answering

BASE = "https://bison.example.com/api/sender-emails"
ELSEWHERE = "https://elsewhere.example.net/api/sender-emails?page=2"


def page(ids: Sequence[object], *, next_link: str | None = None, **meta: object) -> httpx.Response:
    rows = [{"id": id_, "email": f"canary.{id_}@example.com", "status": "Connected"} for id_ in ids]
    return httpx.Response(200, json={"data": rows, "links": {"next": next_link}, "meta": meta})


async def ids_from(transport: httpx.MockTransport) -> list[int]:
    async with open_workspace(
        base_url="https://bison.example.com",
        workspace_id=1,
        token=SecretStr(TOKEN),
        timeout_seconds=1.0,
        policy=QUICK,
        transport=transport,
    ) as client:
        return [sender.id for sender in (await client.sender_emails()).accounts]


async def test_all_pages_are_read(client: WorkspaceClient, workspace: Workspace) -> None:
    for _ in range(44):
        workspace.mailboxes.add()

    listed = await client.sender_emails()
    senders = listed.accounts

    assert listed.is_counted
    assert [sender.id for sender in senders] == list(range(1, 48))
    assert senders[4] == SenderEmail(5, "sam.5@example.net", "Sam Sender 5", "Connected", 25)
    assert client.calls == 4


async def test_a_campaigns_accounts_are_read_likewise(client: WorkspaceClient, workspace: Workspace) -> None:
    for _ in range(44):
        workspace.mailboxes.add()
    workspace.mailboxes.add_campaign(5, "Autumn", tuple(range(10, 40)))

    senders = await client.campaign_senders(5)

    assert senders is not None
    assert [sender.id for sender in senders] == list(range(10, 40))
    assert await client.campaign_senders(6) is None


async def test_the_token_says_whose_it_is(client: WorkspaceClient, workspace: Workspace) -> None:
    assert await client.workspace_of_token() == workspace.id


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(403), httpx.Response(200, json={"data": []})])
async def test_an_instance_that_does_not_say_whose_the_token_is_is_believed(answer: httpx.Response) -> None:
    transport, _ = answering(answer)
    async with open_workspace(
        base_url="https://bison.example.com",
        workspace_id=1,
        token=SecretStr(TOKEN),
        timeout_seconds=1.0,
        policy=QUICK,
        transport=transport,
    ) as client:
        assert await client.workspace_of_token() is None


async def test_a_list_without_any_word_of_pages_is_one_page() -> None:
    transport, _ = answering(httpx.Response(200, json={"data": [{"id": 1}, {"id": 2}]}))
    assert await ids_from(transport) == [1, 2]


async def test_a_link_elsewhere_is_not_followed_where_the_numbers_of_the_pages_lead_on() -> None:
    transport, asked = answering(
        page([1, 2], next_link=ELSEWHERE, current_page=1, last_page=2, total=3),
        page([3], current_page=2, last_page=2, total=3),
    )

    assert await ids_from(transport) == [1, 2, 3]
    assert {request.url.host for request in asked} == {"bison.example.com"}


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        pytest.param([page([1], next_link=ELSEWHERE)], EmailBisonUnavailable, id="a link elsewhere alone"),
        pytest.param(
            [page([1, 2], current_page=1, last_page=1, total=3)], EmailBisonUnavailable, id="fewer than it says"
        ),
        pytest.param(
            [page([1, 2], current_page=1, last_page=2, total=4), page([3], current_page=2, last_page=2, total=3)],
            EmailBisonUnavailable,
            id="changed meanwhile",
        ),
        pytest.param(
            [page([1, 2], current_page=1, last_page=2, total=4), httpx.Response(200, json={"data": [{"id": 3}]})],
            EmailBisonUnavailable,
            id="its later pages say nothing",
        ),
        pytest.param(
            [page([1, 2], current_page=1, last_page=9, total=18)], EmailBisonRefused, id="always the first page"
        ),
        pytest.param(
            [page([1], next_link=f"{BASE}?page=2"), page([2], next_link=f"{BASE}?page=3"),
             page([1], next_link=f"{BASE}?page=4")],
            EmailBisonRefused,
            id="in a circle under new numbers",
        ),
        pytest.param([page([1], next_link=f"{BASE}?page=2"), page([2], next_link=f"{BASE}?page=2")],
                     EmailBisonRefused, id="the same page again"),
        pytest.param([page([1, None])], EmailBisonUnavailable, id="a row without an id"),
        pytest.param([page([1], next_link=f"{BASE}?page=2"), httpx.Response(500)],
                     EmailBisonUnavailable, id="a page that fails"),
    ],
)  # fmt: skip
async def test_a_list_that_is_not_whole_is_an_error_that_says_nobodys_address(
    answers: list[httpx.Response], error: type[EmailBisonError]
) -> None:
    transport, _ = answering(*answers)

    with pytest.raises(error) as caught:
        await ids_from(transport)

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "canary." not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "12", "email_address": " a@example.com ", "status": " Connected"},
         SenderEmail(12, "a@example.com", None, "Connected")),
        ({"id": 12, "email": 5, "name": "", "status": None, "daily_limit": "25"}, SenderEmail(12, daily_limit=25)),
        ({"id": 12, "daily_limit": 10**12}, SenderEmail(12)),
        ({"id": 12, "daily_limit": -1}, SenderEmail(12)),
        ({"id": True}, None),
        ({"id": 0}, None),
        ({"id": 2**63}, None),
        ({"id": "a@example.com"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_row_is_read_as_far_as_it_says_something(row: dict[str, object], expected: SenderEmail | None) -> None:
    assert read_sender(row) == expected
    assert "example.com" not in repr(read_sender(row))
