"""Calendly's API as the sandbox has it: tokens, event types page by page, free times, and what it refuses."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

TIMES = "/event_type_available_times"


class Host:
    """Speaks with one user's token."""

    def __init__(self, http: httpx.AsyncClient, sandbox: Sandbox, user: CalendlyUser) -> None:
        self.http, self.sandbox, self.user = http, sandbox, user

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(path, params=params, headers={"Authorization": f"Bearer {self.user.token}"})

    async def times(self, uuid: str, days: float = 7, *, start: timedelta = timedelta(minutes=1)) -> httpx.Response:
        begins = self.now + start
        uri = f"https://api.calendly.com/event_types/{uuid}"
        return await self.get(TIMES, event_type=uri, start_time=text(begins), end_time=text(begins + timedelta(days)))

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.sandbox.world.clock(), UTC)


def text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000000Z"


def details(response: httpx.Response) -> set[str]:
    assert response.status_code == 400
    body = response.json()
    assert (body["title"], body["message"]) == ("Invalid Argument", "The supplied parameters are invalid.")
    return {each["parameter"] for each in body["details"]}


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/_calendly", verify=False) as client:
        yield client


@pytest.fixture
def host(http: httpx.AsyncClient, sandbox: Sandbox) -> Host:
    return Host(http, sandbox, sandbox.world.calendly.add("ada-hopper", time_zone="Europe/Berlin"))


async def test_a_token_tells_whose_it_is_and_another_opens_nothing(host: Host) -> None:
    me = (await host.get("/users/me")).json()["resource"]
    assert (me["uri"], me["current_organization"]) == (host.user.uri, host.user.organization)
    assert (me["timezone"], me["scheduling_url"]) == ("Europe/Berlin", "https://calendly.com/ada-hopper")
    refused = await host.http.get("/users/me", headers={"Authorization": "Bearer none"})
    assert (refused.status_code, refused.json()["title"]) == (401, "Unauthenticated")
    assert host.user.token not in repr(host.user)


async def test_event_types_come_page_by_page_by_token(host: Host) -> None:
    made = [host.user.add_event_type(f"Call {number}") for number in range(45)]
    seen: list[str] = []
    params: dict[str, str] = {}
    while True:
        body = (await host.get("/event_types", user=host.user.uri, **params)).json()
        seen += [each["scheduling_url"] for each in body["collection"]]
        following = body["pagination"]["next_page_token"]
        if following is None:
            break
        assert body["pagination"]["next_page"].startswith("https://api.calendly.com/event_types?")
        params = {"page_token": following}
    assert seen == [f"https://calendly.com/ada-hopper/call-{number}" for number in range(45)]
    hundred = (await host.get("/event_types", user=host.user.uri, count=100)).json()["collection"]
    assert [each["uri"] for each in hundred] == [each.uri for each in made]
    host.user.change_event_type(made[0].uuid, active=False)
    inactive = (await host.get("/event_types", user=host.user.uri, active="false")).json()["collection"]
    assert [each["name"] for each in inactive] == ["Call 0"]


async def test_a_team_s_pages_are_the_organization_s(host: Host) -> None:
    colleague = host.sandbox.world.calendly.add("ben")
    stranger = host.sandbox.world.calendly.add("cleo", organization="https://api.calendly.com/organizations/other")
    own = host.user.add_event_type("Own")
    team = colleague.add_event_type("Round", team="sales", pooling_type="round_robin")
    assert (own.scheduling_url, team.scheduling_url) == (
        "https://calendly.com/ada-hopper/own",
        "https://calendly.com/sales/round",
    )

    async def names(**params: str) -> list[str]:
        return [each["name"] for each in (await host.get("/event_types", **params)).json()["collection"]]

    assert await names(user=host.user.uri) == ["Own"]
    assert await names(user=colleague.uri) == []
    assert await names(organization=host.user.organization) == ["Own", "Round"]
    assert (await host.times(team.uuid)).status_code == 200
    for params in ({"user": stranger.uri}, {"organization": stranger.organization}):
        assert (await host.get("/event_types", **params)).status_code == 403
    host.user.is_admin = False
    assert (await host.get("/event_types", organization=host.user.organization)).status_code == 403
    assert details(await host.get("/event_types")) == {"user"}
    assert details(await host.get("/event_types", user=host.user.uri, count="101")) == {"count"}
    assert details(await host.get("/event_types", user=host.user.uri, page_token="none")) == {"page_token"}


async def test_free_times_are_in_utc_and_in_order(host: Host) -> None:
    call = host.user.add_event_type("Call", minutes=60, every=60, seats=3)
    body = (await host.times(call.uuid)).json()
    expected = host.user.free(call.uuid, host.now, host.now + timedelta(days=7, minutes=1))
    assert body["collection"][0].keys() == {"status", "invitees_remaining", "start_time", "scheduling_url"}
    starts = [each["start_time"] for each in body["collection"]]
    assert starts == [text(each.astimezone(UTC)) for each in expected]
    assert len(starts) in range(35, 48)
    assert {each["invitees_remaining"] for each in body["collection"]} == {3}
    assert host.user.event_types[call.uuid].schedule.minutes == 60


@pytest.mark.parametrize("longest", [31, 7])
async def test_only_so_many_days_of_the_future_are_told_at_once(host: Host, longest: int) -> None:
    call = host.user.add_event_type("Call")
    host.user.longest_days = longest
    assert (await host.times(call.uuid, longest)).status_code == 200
    assert details(await host.times(call.uuid, longest + 0.01)) == {"end_time"}
    assert details(await host.times(call.uuid, -1)) == {"end_time"}
    assert details(await host.times(call.uuid, start=timedelta(minutes=-1))) == {"start_time"}
    assert details(await host.get(TIMES)) == {"event_type", "start_time", "end_time"}
    assert details(await host.get(TIMES, event_type=call.uri, start_time="soon", end_time="later")) == {"start_time"}
    unknown = await host.times("00000000-0000-4000-8000-000000000000")
    assert (unknown.status_code, unknown.json()["title"]) == (404, "Resource Not Found")


async def test_an_emptied_or_inactive_event_type_has_no_free_times(host: Host) -> None:
    one, two = host.user.add_event_type("One"), host.user.add_event_type("Two")

    async def counts() -> list[bool]:
        return [bool((await host.times(each.uuid)).json()["collection"]) for each in (one, two)]

    assert await counts() == [True, True]
    host.sandbox.faults(host.user.faults_key, empty_calendars=[one.uuid])
    assert await counts() == [False, True]
    host.sandbox.faults(host.user.faults_key)
    host.user.change_event_type(two.uuid, active=False)
    assert await counts() == [True, False]


async def test_every_answer_tells_the_limit_and_a_429_when_to_come_back(host: Host) -> None:
    slow = Host(host.http, host.sandbox, host.sandbox.world.calendly.add("free-plan", requests_per_minute=2))
    answers = [await slow.get("/users/me") for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert [each.headers["X-RateLimit-Remaining"] for each in answers] == ["1", "0", "0"]
    assert (answers[2].headers["X-RateLimit-Limit"], answers[2].headers["X-RateLimit-Reset"]) == ("2", "60")
    host.sandbox.faults(host.user.faults_key, storm_requests=1, retry_after=3)
    storm = await host.get("/users/me")
    assert (storm.status_code, storm.headers["X-RateLimit-Reset"]) == (429, "3")


async def test_a_user_has_faults_of_its_own(host: Host) -> None:
    other = Host(host.http, host.sandbox, host.sandbox.world.calendly.add("ben"))

    async def statuses(**faults: object) -> list[int]:
        order = {"calendly": host.user.slug, **faults}
        response = await host.http.post(f"{host.sandbox.url}/_sandbox/faults", json=order)
        assert response.status_code == 200, response.text
        assert (await other.get("/users/me")).status_code == 200
        return [(await host.get("/users/me")).status_code for _ in range(2)]

    assert await statuses(error_rate=1.0, error_status=503) == [503, 503]
    assert await statuses(fail_at=2, fail_status=403) == [200, 403]
    assert await statuses(fail_at=1, fail_status=429) == [429, 200]
    assert await statuses(token_revoked=True) == [401, 401]
    assert await statuses(error_rate=1.0, routes=["CALENDLY GET /event_types"]) == [200, 200]
    for broken, error in (({"drop_rate": 1.0}, httpx.RemoteProtocolError), ({"hang_rate": 1.0}, httpx.ReadTimeout)):
        host.sandbox.faults(host.user.faults_key, **broken)
        with pytest.raises(error):
            await host.http.get(
                "/users/me", headers={"Authorization": f"Bearer {host.user.token}"}, timeout=httpx.Timeout(0.3)
            )


async def test_pages_can_lead_in_a_circle(host: Host) -> None:
    for number in range(45):
        host.user.add_event_type(f"Call {number}")
    host.sandbox.faults(host.user.faults_key, pages_loop=True)
    tokens: list[str] = []
    for _ in range(3):
        params = {"page_token": tokens[-1]} if tokens else {}
        body = (await host.get("/event_types", user=host.user.uri, **params)).json()
        tokens.append(body["pagination"]["next_page_token"])
    assert tokens[0] == tokens[2] != tokens[1]


async def test_users_are_made_and_counted_from_another_process(host: Host) -> None:
    url = f"{host.sandbox.url}/_sandbox"
    order: dict[str, object] = {"user": "new-host", "create": {"longest_days": 7}, "add": [{"name": "Intro"}]}
    made = (await host.http.post(f"{url}/calendly", json=order)).json()
    user = host.sandbox.world.calendly.known("new-host")
    assert (user.token, user.longest_days, list(user.event_types)) == (made["token"], 7, made["added"])
    moved = {
        "user": "new-host",
        "change": {made["added"][0]: {"scheduling_url": "https://calendly.com/new-host/other"}},
    }
    assert (await host.http.post(f"{url}/calendly", json=moved)).status_code == 200
    shown = (await host.http.get(f"{url}/calendars")).json()["calendly"]
    assert shown[1]["event_types"][0]["scheduling_url"] == "https://calendly.com/new-host/other"
    await host.get("/users/me")
    counts = (await host.http.get(f"{url}/stats")).json()
    assert counts["calendly"]["ada-hopper"]["by_route"] == {"CALENDLY GET /users/me": {"200": 1}}
    for senseless in ({"user": "x", "create": {"plan": 1}}, {"user": "new-host", "add": [{"colour": 1}]}):
        assert (await host.http.post(f"{url}/calendly", json=senseless)).status_code == 422
    with pytest.raises(InvalidInput):
        host.sandbox.world.calendly.add("new-host")
