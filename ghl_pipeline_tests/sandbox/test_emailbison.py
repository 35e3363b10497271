"""EmailBison's API as the sandbox has it: tokens, pages, the events of ten days, and what it answers when it fails."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent, BisonLead
from ghl_pipeline.sandbox.responses import moment
from ghl_pipeline.sandbox.server import create_app
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline.sandbox.world import World
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

NOW = 1_790_000_000.0
DAY = 86_400


class Hands:
    """The clock of a world, to be moved by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def world(clock: Hands) -> World:
    return World(seed=1, clock=clock)


@pytest.fixture
def workspace(world: World) -> Workspace:
    leads = [BisonLead(id=number, email=f"lead.{number}@example.com") for number in range(1, 41)]
    return world.add_workspace(world.add_location().id, workspace_id=12, leads=leads)


@pytest.fixture
async def api(world: World, workspace: Workspace) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {workspace.token}"}
    transport = httpx.ASGITransport(create_app(world))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox/emailbison", headers=headers) as client:
        yield client


def happen(workspace: Workspace, clock: Hands, count: int, kind: BisonEvent = BisonEvent.LEAD_REPLIED) -> list[int]:
    """That many events a minute apart; their ids, oldest first."""
    ids = []
    for number in range(count):
        lead = workspace.leads[number % len(workspace.leads) + 1]
        ids.append(workspace.happens(kind, lead, now=int(clock.at * 1000)).id)
        clock.at += 60
    return ids


async def all_pages(api: httpx.AsyncClient, **params: str) -> list[Any]:
    """The rows of all pages, by cursor with the same filters."""
    rows: list[Any] = []
    while True:
        body = (await api.get("/api/events", params=params)).json()
        rows += body["data"]
        if body["meta"]["next_cursor"] is None:
            return rows
        params["cursor"] = body["meta"]["next_cursor"]


async def test_events_come_newest_first_in_pages_of_fifteen(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    ids = happen(workspace, clock, 40)
    first = (await api.get("/api/events", params={"per_page": "100"})).json()
    assert [row["id"] for row in first["data"]] == ids[:24:-1]
    assert first["meta"]["per_page"] == 15
    assert first["links"]["next"].startswith("http://sandbox/emailbison/api/events?cursor=")
    assert [row["id"] for row in await all_pages(api)] == ids[::-1]


async def test_what_happens_while_paging_shifts_no_page(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    ids = happen(workspace, clock, 20)
    first = (await api.get("/api/events")).json()
    happen(workspace, clock, 7)
    second = (await api.get("/api/events", params={"cursor": first["meta"]["next_cursor"]})).json()
    assert [row["id"] for row in first["data"] + second["data"]] == ids[::-1]


async def test_a_row_has_the_identity_and_the_payload_of_the_webhook(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    happen(workspace, clock, 1)
    [row] = (await api.get("/api/events")).json()["data"]
    assert row.keys() == {"id", "uuid", "payload", "webhook_deliveries", "created_at", "updated_at"}
    assert row["payload"] == workspace.events[0].payload
    assert row["created_at"] == "2026-09-21T14:13:20.000000Z"
    assert row["webhook_deliveries"] == []


async def test_events_are_chosen_by_time_and_type(api: httpx.AsyncClient, workspace: Workspace, clock: Hands) -> None:
    replies = happen(workspace, clock, 5)
    clock.at += DAY
    sent = happen(workspace, clock, 5, BisonEvent.EMAIL_SENT)

    async def ids(**params: str) -> list[int]:
        return [row["id"] for row in await all_pages(api, **params)]

    assert await ids(type="email_sent") == sent[::-1]
    assert await ids(type="LEAD_REPLIED") == replies[::-1]
    assert await ids(start_date=moment(int((NOW + 180) * 1000))) == (replies[3:] + sent)[::-1]
    assert await ids(start_date="2026-09-21T14:14:20Z", end_date="2026-09-21T14:15:20Z") == replies[2:0:-1]
    assert await ids(start_date="2026-09-21", end_date="2026-09-21") == replies[::-1]


async def test_events_are_kept_for_ten_days(api: httpx.AsyncClient, workspace: Workspace, clock: Hands) -> None:
    happen(workspace, clock, 1)
    clock.at += 10 * DAY - 120
    assert len(await all_pages(api, start_date="2026-01-01")) == 1
    clock.at += 120
    assert await all_pages(api, start_date="2026-01-01") == []


async def test_the_link_to_the_next_page_forgets_the_filters(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    happen(workspace, clock, 2, BisonEvent.EMAIL_SENT)
    happen(workspace, clock, 16)
    first = (await api.get("/api/events", params={"type": "lead_replied"})).json()
    followed = (await api.get(first["links"]["next"])).json()
    kinds = [row["payload"]["event"]["type"] for row in followed["data"]]
    assert kinds == ["LEAD_REPLIED", "EMAIL_SENT", "EMAIL_SENT"]


async def test_a_cursor_that_is_none_silently_means_the_first_page(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    ids = happen(workspace, clock, 3)
    for cursor in ("nonsense", "e30", "%%%", "\u00e9"):
        rows = (await api.get("/api/events", params={"cursor": cursor})).json()["data"]
        assert [row["id"] for row in rows] == ids[::-1]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"start_date": "yesterday-ish"}, "start_date"),
        ({"end_date": "2026-13-01"}, "end_date"),
        ({"type": "lead_vanished"}, "type"),
        ({"start_date": "2026-09-21", "end_date": "2026-09-20"}, "end_date"),
    ],
)
async def test_senseless_filters_are_refused_as_laravel_does(
    api: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    response = await api.get("/api/events", params=params)
    assert response.status_code == 422
    body = response.json()
    assert body["errors"].keys() == {field}
    assert body["message"] == body["errors"][field][0]


async def test_a_token_opens_its_own_workspace_alone(
    world: World, workspace: Workspace, api: httpx.AsyncClient, clock: Hands
) -> None:
    other = world.add_workspace(workspace.location_id, leads=[BisonLead(id=1, email="other@example.com")])
    reply_id = other.happens(BisonEvent.LEAD_REPLIED, other.leads[1], now=int(NOW * 1000)).reply_id
    assert (await api.get("/api/events")).json()["data"] == []
    assert (await api.get(f"/api/replies/{reply_id}")).status_code == 404
    own = {"Authorization": f"Bearer {other.token}"}
    assert (await api.get(f"/api/replies/{reply_id}", headers=own)).json()["data"]["id"] == reply_id
    assert (await api.get("/api/users", headers=own)).json()["data"]["workspace"]["id"] == other.id
    for wrong in ("", "Bearer 1|wrong", f"Basic {other.token}"):
        response = await api.get("/api/events", headers={"Authorization": wrong})
        assert (response.status_code, response.json()) == (401, {"message": "Unauthenticated."})


def test_a_token_looks_like_one_and_stays_out_of_the_repr(workspace: Workspace) -> None:
    number, _, secret = workspace.token.partition("|")
    assert number.isdecimal()
    assert len(secret) == 40
    assert secret not in repr(workspace)


async def test_a_reply_s_subject_has_another_name_in_the_api(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    happen(workspace, clock, 1)
    event: Any = workspace.events[0].payload["data"]
    reply = (await api.get(f"/api/replies/{event['reply']['id']}")).json()["data"]
    assert reply["subject"] == event["reply"]["email_subject"]
    assert "email_subject" not in reply
    assert (reply["lead_id"], reply["lead"]["email"]) == (1, "lead.1@example.com")


async def test_leads_and_mailboxes_are_paged_by_number(api: httpx.AsyncClient) -> None:
    first = (await api.get("/api/leads", params={"per_page": "100"})).json()
    assert [lead["id"] for lead in first["data"]] == list(range(1, 16))
    assert first["meta"] == {
        "current_page": 1,
        "from": 1,
        "last_page": 3,
        "path": "http://sandbox/emailbison/api/leads",
        "per_page": 15,
        "to": 15,
        "total": 40,
    }
    assert first["links"]["prev"] is None
    last = (await api.get("/api/leads", params={"page": "3"})).json()
    assert ([lead["id"] for lead in last["data"]], last["links"]["next"]) == (list(range(31, 41)), None)
    assert (await api.get("/api/leads", params={"page": "501"})).status_code == 422
    found = (await api.get("/api/leads", params={"search": "LEAD.7@"})).json()["data"]
    assert [lead["email"] for lead in found] == ["lead.7@example.com"]
    senders = (await api.get("/api/sender-emails", params={"per_page": "2"})).json()
    assert [sender["id"] for sender in senders["data"]] == [1, 2, 3]
    assert (await api.get("/api/sender-emails/3")).json()["data"]["status"] == "Connected"
    assert (await api.get("/api/leads/7")).json()["data"]["email"] == "lead.7@example.com"


@pytest.mark.parametrize("path", ["/api/leads/99", "/api/leads/x", "/api/replies/0", "/api/nothing", "/api/leads/²"])
async def test_what_is_not_there_is_a_404(api: httpx.AsyncClient, path: str) -> None:
    response = await api.get(path)
    assert (response.status_code, response.json()) == (404, {"message": "Record not found"})


async def test_too_many_requests_are_refused_until_the_minute_is_over(
    api: httpx.AsyncClient, workspace: Workspace, clock: Hands
) -> None:
    for _ in range(3000):
        assert workspace.limiter.admit(clock())
    refused = await api.get("/api/events")
    assert (refused.status_code, refused.json()) == (429, {"message": "Too Many Attempts."})
    assert refused.headers["Retry-After"] == "60"
    clock.at += 61
    assert (await api.get("/api/events")).status_code == 200


async def test_a_workspace_has_faults_of_its_own(sandbox: Sandbox) -> None:
    location = sandbox.add_location()
    workspace = sandbox.world.add_workspace(location.id)
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:

        async def status(path: str = "/api/events") -> int:
            headers = {"Authorization": f"Bearer {workspace.token}"}
            return (await client.get(f"/emailbison{path}", headers=headers)).status_code

        async def set_faults(**faults: object) -> None:
            response = await client.post("/_sandbox/faults", json=faults)
            assert response.status_code == 200, response.text

        await set_faults(location=location.id, error_rate=1.0, token_revoked=True)
        assert await status() == 200
        await set_faults(workspace=workspace.id, error_rate=1.0, error_status=503)
        assert await status() == 503
        await set_faults(workspace=workspace.id, error_rate=1.0, routes=["EMAILBISON GET /api/events"], times=1)
        assert [await status(path) for path in ("/api/leads", "/api/events", "/api/events")] == [200, 500, 200]
        await set_faults(workspace=workspace.id, storm_requests=1, retry_after=2)
        assert [await status(), await status()] == [429, 200]
        await set_faults(workspace=workspace.id, token_revoked=True)
        assert await status() == 401
        await set_faults(workspace=workspace.id, drop_rate=1.0)
        with pytest.raises(httpx.RemoteProtocolError):
            await status()
        for senseless in ({"workspace": 5}, {"workspace": workspace.id, "location": location.id}):
            refused = await client.post("/_sandbox/faults", json={**senseless, "error_rate": 1.0})
            assert refused.status_code == 422


async def test_workspaces_and_what_they_were_asked_are_told(sandbox: Sandbox) -> None:
    location = sandbox.add_location()
    workspace = sandbox.world.add_workspace(location.id, leads=[BisonLead(id=1, email="canary@example.com")])
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        [shown] = (await client.get("/_sandbox/workspaces")).json()["workspaces"]
        assert (shown["id"], shown["location"]) == (workspace.id, location.id)
        headers = {"Authorization": f"Bearer {shown['token']}"}
        assert (await client.get(f"{shown['url']}/api/events", headers=headers)).status_code == 200
        stats = await client.get("/_sandbox/stats")
        counts = stats.json()["workspaces"][str(workspace.id)]
        assert counts["by_route"] == {"EMAILBISON GET /api/events": {"200": 1}}
        assert (counts["leads"], counts["events"]) == (1, 0)
        assert "canary" not in stats.text
        assert workspace.token not in stats.text
        await client.post("/_sandbox/stats/reset")
        counts = (await client.get("/_sandbox/stats")).json()["workspaces"][str(workspace.id)]
        assert counts["requests"] == 0
