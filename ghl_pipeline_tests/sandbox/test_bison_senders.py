"""EmailBison's mailboxes: the lists, what can go wrong with their pages, who writes to whom, and replies by them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent, BisonLead
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

NOW = 1_790_000_000_000


@pytest.fixture
def workspace(sandbox: Sandbox) -> Workspace:
    leads = [BisonLead(id=number, email=f"lead.{number}@example.com") for number in range(1, 10)]
    return sandbox.world.add_workspace(sandbox.add_location().id, leads=leads)


@pytest.fixture
async def api(sandbox: Sandbox, workspace: Workspace) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {workspace.token}"}
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/emailbison", headers=headers, verify=False) as client:
        yield client


async def page(api: httpx.AsyncClient, number: int = 1, path: str = "/api/sender-emails") -> Any:
    response = await api.get(path, params={"page": number})
    assert response.status_code == 200, response.text
    return response.json()


async def test_mailboxes_come_fifteen_a_page_with_their_status(api: httpx.AsyncClient, workspace: Workspace) -> None:
    for _ in range(37):
        workspace.mailboxes.add()
    workspace.mailboxes.change(2, status="Disconnected", daily_limit=5)
    workspace.mailboxes.change(40, broken=True, selectable=False)
    pages = [await page(api, number) for number in (1, 2, 3)]
    assert [[row["id"] for row in each["data"]] for each in pages] == [
        list(range(1, 16)),
        list(range(16, 31)),
        list(range(31, 41)),
    ]
    assert pages[0]["links"]["next"].endswith("/emailbison/api/sender-emails?page=2")
    assert (pages[2]["links"]["next"], pages[2]["meta"]["total"]) == (None, 40)
    rows = [row for each in pages for row in each["data"]]
    assert [(row["status"], row["daily_limit"]) for row in rows[:2]] == [("Connected", 25), ("Disconnected", 5)]
    assert rows[39]["status"] == "Connected"
    assert not {"broken", "selectable"} & rows[39].keys()
    assert workspace.mailboxes.remove(40)
    assert not workspace.mailboxes.remove(40)
    assert (await page(api, 3))["meta"]["total"] == 39
    assert workspace.mailboxes.add().id == 41  # ids are not given twice


async def test_a_campaign_lists_the_mailboxes_that_it_sends_by(api: httpx.AsyncClient, workspace: Workspace) -> None:
    for _ in range(17):
        workspace.mailboxes.add()
    workspace.mailboxes.add_campaign(7, "Roofs", (2, 19, 99))
    first = await page(api, path="/api/campaigns/1/sender-emails")
    assert (len(first["data"]), first["meta"]["total"]) == (15, 20)
    listed = await page(api, path="/api/campaigns/7/sender-emails")
    assert [row["id"] for row in listed["data"]] == [2, 19]
    assert (await api.get("/api/campaigns/8/sender-emails")).status_code == 404


async def test_pages_fail_go_in_circles_and_lead_elsewhere(
    sandbox: Sandbox, api: httpx.AsyncClient, workspace: Workspace
) -> None:
    for _ in range(60):
        workspace.mailboxes.add()
    sandbox.faults(workspace.faults_key, failing_pages=[2, 4], error_status=502)
    statuses = [(await api.get("/api/sender-emails", params={"page": n})).status_code for n in range(1, 6)]
    assert statuses == [200, 502, 200, 502, 200]
    sandbox.faults(workspace.faults_key, pages_loop=True)
    links = [(await page(api, number))["links"]["next"].rpartition("=")[2] for number in (1, 2, 3)]
    assert links == ["2", "1", "1"]
    sandbox.faults(workspace.faults_key, foreign_next_link=True)
    assert (await page(api))["links"]["next"] == "https://elsewhere.example.net/api/sender-emails?page=2"
    assert (await page(api, 5))["links"]["next"] is None
    sandbox.faults(workspace.faults_key, error_rate=1.0, routes=["EMAILBISON GET /api/sender-emails"])
    assert (await api.get("/api/sender-emails")).status_code == 500


async def test_a_lead_keeps_its_sender_and_campaign_in_all_that_is_told_of_it(
    api: httpx.AsyncClient, workspace: Workspace
) -> None:
    mailboxes, lead = workspace.mailboxes, workspace.leads[4]
    mailboxes.add_campaign(7, "Roofs", (2, 3))
    mailboxes.enroll(lead.id, 7)
    kinds = (BisonEvent.EMAIL_SENT, BisonEvent.LEAD_REPLIED, BisonEvent.LEAD_INTERESTED)

    def told() -> set[tuple[int, int]]:
        events: list[Any] = [workspace.happens(kind, lead, now=NOW).payload["data"] for kind in kinds]
        return {(data["campaign"]["id"], data["sender_email"]["id"]) for data in events}

    assert told() == {(7, 2)}
    mailboxes.add()
    mailboxes.remove(2)
    assert told() == {(7, 2)}  # as EmailBison's leads keep a sender that is gone
    reply_id = workspace.events[-1].reply_id
    reply = (await api.get(f"/api/replies/{reply_id}")).json()["data"]
    assert (reply["campaign_id"], reply["sender_email_id"]) == (7, 2)
    mailboxes.enroll(lead.id, 7, sender_id=3)
    assert told() == {(7, 3)}
    others: Any = workspace.happens(BisonEvent.LEAD_REPLIED, workspace.leads[5], now=NOW).payload["data"]
    assert others["campaign"] == {"id": 1, "name": "Spring Outreach"}
    with pytest.raises(InvalidInput):
        mailboxes.enroll(lead.id, 8)


async def test_a_disconnected_account_is_listed_as_such_from_its_event_on(
    api: httpx.AsyncClient, workspace: Workspace
) -> None:
    event: Any = workspace.happens(BisonEvent.EMAIL_ACCOUNT_DISCONNECTED, workspace.leads[1], now=NOW).payload["data"]
    sender = event["sender_email"]
    assert sender["status"] == "Disconnected"
    assert (await api.get(f"/api/sender-emails/{sender['id']}")).json()["data"] == sender


class Inbox:
    """A lead's reply, to be answered."""

    def __init__(self, api: httpx.AsyncClient, workspace: Workspace) -> None:
        self.api, self.workspace = api, workspace
        self.reply_id = workspace.happens(BisonEvent.LEAD_REPLIED, workspace.leads[1], now=NOW).reply_id

    async def answer(self, **fields: object) -> httpx.Response:
        body = {
            "message": "Hello",
            "sender_email_id": 1,
            "to_emails": [{"name": None, "email_address": "lead.1@example.com"}],
            **fields,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return await self.api.post(f"/api/replies/{self.reply_id}/reply", json=body)


@pytest.fixture
def inbox(api: httpx.AsyncClient, workspace: Workspace) -> Inbox:
    return Inbox(api, workspace)


async def test_a_reply_is_sent_by_the_mailbox_that_is_named(inbox: Inbox, api: httpx.AsyncClient) -> None:
    response = await inbox.answer(sender_email_id=3)
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert (data["success"], data["reply"]["folder"], data["reply"]["sender_email_id"]) == (True, "Sent", 3)
    assert data["reply"]["parent_id"] == inbox.reply_id
    [sent] = inbox.workspace.sent
    assert (sent.id, sent.text, sent.to_email) == (data["reply"]["id"], "Hello", "lead.1@example.com")
    assert (await api.get(f"/api/replies/{sent.id}")).json()["data"]["folder"] == "Sent"
    to_all = await inbox.answer(reply_all=True, sender_email_id=None, to_emails=None)
    assert to_all.json()["data"]["reply"]["sender_email_id"] == inbox.workspace.mailboxes.sender_for(1).id


@pytest.mark.parametrize("state", ["unknown", "removed", "unselectable"])
async def test_a_sender_that_is_not_the_workspace_s_is_refused_with_422(inbox: Inbox, state: str) -> None:
    if state == "removed":
        inbox.workspace.mailboxes.remove(1)
    elif state == "unselectable":
        inbox.workspace.mailboxes.change(1, selectable=False)
    response = await inbox.answer(sender_email_id=99 if state == "unknown" else 1)
    text = "The selected sender email id is invalid."
    assert response.status_code == 422
    assert response.json() == {"message": text, "errors": {"sender_email_id": [text]}}
    assert inbox.workspace.sent == []


@pytest.mark.parametrize("fields", [{"status": "Disconnected"}, {"status": "Not connected"}, {"broken": True}])
async def test_a_mailbox_that_cannot_send_is_a_400(inbox: Inbox, fields: dict[str, object]) -> None:
    inbox.workspace.mailboxes.change(1, **fields)
    response = await inbox.answer()
    assert response.status_code == 400
    assert response.json()["data"]["success"] is False
    assert response.json()["data"]["message"].startswith("Error sending email. Please re-connect this email account:")
    assert inbox.workspace.sent == []
    assert (await inbox.answer(sender_email_id=2)).status_code == 200


@pytest.mark.parametrize("field", ["message", "sender_email_id", "to_emails"])
async def test_a_reply_that_lacks_something_is_a_422(inbox: Inbox, field: str) -> None:
    response = await inbox.answer(**{field: None})
    assert (response.status_code, list(response.json()["errors"])) == (422, [field])


async def test_an_answer_that_breaks_off_was_sent_all_the_same(sandbox: Sandbox, inbox: Inbox) -> None:
    sandbox.faults(inbox.workspace.faults_key, drop_rate=1.0)
    with pytest.raises(httpx.RemoteProtocolError):
        await inbox.answer()
    assert len(inbox.workspace.sent) == 1
    counts: Any = inbox.workspace.statistics.as_counts()
    assert counts["by_route"] == {"EMAILBISON POST /api/replies/{id}/reply": {"200": 1}}


async def test_mailboxes_are_changed_from_another_process(sandbox: Sandbox, workspace: Workspace) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:

        async def change(**body: object) -> httpx.Response:
            return await client.post("/_sandbox/senders", json={"workspace": workspace.id, **body})

        order = {"add": [{"name": "New", "id": 12}], "change": {"1": {"status": "Disconnected"}}, "remove": [2, 77]}
        assert (await change(**order)).json() == {"added": [12], "removed": 1}
        assert [(each.id, each.status) for each in workspace.senders] == [
            (1, "Disconnected"),
            (3, "Connected"),
            (12, "Connected"),
        ]
        orders: list[dict[str, object]] = [
            {"add": [{"id": 1}]},
            {"change": {"99": {}}},
            {"add": [{"colour": 1}]},
            {"workspace": 5},
        ]
        for senseless in orders:
            assert (await change(**senseless)).status_code == 422
