"""GHL's calendars: what the list, GET and the free slots answer, what they refuse, and what can go wrong with them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.calendars import Calendar
from ghl_pipeline.sandbox.free_times import OpenHours, Schedule
from ghl_pipeline.sandbox.server import create_app
from ghl_pipeline.sandbox.world import Location, World
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller

SLOTS = "GET /calendars/{id}/free-slots"
MONDAY_MORNING = datetime(2026, 10, 26, 6, 0, tzinfo=ZoneInfo("America/New_York"))


class Desk:
    """One calendar of a location in New York, asked on the Monday before summer time ends there."""

    def __init__(self, http: httpx.AsyncClient, world: World, location: Location, calendar: Calendar) -> None:
        self.http, self.world, self.location, self.calendar = http, world, location, calendar

    async def ask(self, days: float = 7, *, start: datetime = MONDAY_MORNING, **params: object) -> httpx.Response:
        begins = round(start.timestamp() * 1000)
        asked = {"startDate": begins, "endDate": begins + round(days * 86_400_000), **params}
        return await self.http.get(
            f"/calendars/{self.calendar.id}/free-slots",
            params={name: str(value) for name, value in asked.items() if value is not None},
        )

    async def days(self, days: float = 7, **params: Any) -> dict[str, list[str]]:
        response = await self.ask(days, **params)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body.pop("traceId")
        return {day: slots["slots"] for day, slots in body.items()}


@pytest.fixture
async def desk() -> Any:
    world = World(clock=MONDAY_MORNING.timestamp)
    location = world.add_location(time_zone="America/New_York")
    calendar = location.calendars.add("Intro Call", hours=[{"opens": 9 * 60, "closes": 10 * 60}])
    headers = {"Authorization": f"Bearer {location.token}", "Version": "2021-04-15"}
    transport = httpx.ASGITransport(create_app(world))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=headers) as client:
        yield Desk(client, world, location, calendar)


async def test_free_slots_are_keyed_by_day_with_the_offset_of_the_moment(desk: Desk) -> None:
    days = await desk.days(14)
    assert next(iter(days)) == "2026-10-26"
    assert days["2026-10-30"] == ["2026-10-30T09:00:00-04:00", "2026-10-30T09:30:00-04:00"]
    assert days["2026-11-02"] == ["2026-11-02T09:00:00-05:00", "2026-11-02T09:30:00-05:00"]
    assert not {"2026-10-31", "2026-11-01"} & days.keys()  # a weekend; days without slots are absent


async def test_slots_are_given_in_another_zone_when_asked(desk: Desk) -> None:
    days = await desk.days(1, timezone="Asia/Tokyo")
    assert days == {"2026-10-26": ["2026-10-26T22:00:00+09:00", "2026-10-26T22:30:00+09:00"]}


async def test_neither_the_past_nor_what_is_taken_or_too_soon_or_too_far_is_free(desk: Desk) -> None:
    calendars, calendar_id = desk.location.calendars, desk.calendar.id
    assert "2026-10-23" not in await desk.days(7, start=MONDAY_MORNING - timedelta(days=4))
    calendars.book(calendar_id, datetime(2026, 10, 26, 13, 0, tzinfo=UTC))
    assert (await desk.days(1))["2026-10-26"] == ["2026-10-26T09:30:00-04:00"]
    calendars.change(calendar_id, notice_minutes=24 * 60, days_ahead=2)
    assert list(await desk.days(7)) == ["2026-10-27"]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"days": 31.0001}, "31 days"),
        ({"days": -1}, "after startDate"),
        ({"locationId": "x"}, "property locationId should not exist"),
        ({"startDate": "2026-10-26"}, "startDate must be a number"),
        ({"endDate": None}, "endDate must be a number"),
        ({"timezone": "America/Nowhere"}, "timezone"),
    ],
)
async def test_what_the_free_slots_refuse_with_422(desk: Desk, params: dict[str, Any], named: str) -> None:
    response = await desk.ask(**params)
    assert response.status_code == 422
    assert named in str(response.json()["message"])


async def test_31_days_are_taken_and_have_every_slot(desk: Desk) -> None:
    days = await desk.days(31)
    expected = desk.location.calendars.free(desk.calendar.id, MONDAY_MORNING, MONDAY_MORNING + timedelta(days=31))
    assert [slot for slots in days.values() for slot in slots] == [each.isoformat() for each in expected]
    assert len(expected) == 2 * 23  # the 31st day ends before the calendar opens


async def test_calendars_are_listed_and_shown_with_their_slugs(desk: Desk) -> None:
    draft = desk.location.calendars.add("Draft", is_active=False, slug="own", group_id="g1", days_ahead=10)

    async def listed(**params: str) -> list[str]:
        response = await desk.http.get("/calendars/", params={"locationId": desk.location.id, **params})
        assert response.status_code == 200, response.text
        return [each["name"] for each in response.json()["calendars"]]

    assert await listed() == ["Intro Call", "Draft"]
    assert await listed(showDrafted="false") == ["Intro Call"]
    assert await listed(groupId="g1") == ["Draft"]
    shown = (await desk.http.get(f"/calendars/{desk.calendar.id}")).json()["calendar"]
    assert (shown["slug"], shown["widgetSlug"], shown["isActive"]) == ("intro-call", "intro-call", True)
    assert shown["openHours"] == [
        {
            "daysOfTheWeek": [1, 2, 3, 4, 5],
            "hours": [{"openHour": 9, "openMinute": 0, "closeHour": 10, "closeMinute": 0}],
        }
    ]
    shown = (await desk.http.get(f"/calendars/{draft.id}")).json()["calendar"]
    assert (shown["slug"], shown["widgetSlug"], shown["isActive"]) == ("own", "own", False)
    assert (await desk.http.get("/calendars/", params={"locationId": "another"})).status_code == 403
    assert (await desk.http.get("/calendars/")).status_code == 422


async def test_a_slug_moves_and_a_calendar_goes(desk: Desk) -> None:
    desk.location.calendars.change(desk.calendar.id, widget_slug="elsewhere")
    shown = (await desk.http.get(f"/calendars/{desk.calendar.id}")).json()["calendar"]
    assert (shown["slug"], shown["widgetSlug"]) == ("intro-call", "elsewhere")
    assert desk.location.calendars.remove(desk.calendar.id)
    for path in (f"/calendars/{desk.calendar.id}", f"/calendars/{'x' * 20}"):
        assert (await desk.http.get(path)).status_code == 400
    assert (await desk.ask()).status_code == 400


async def test_a_draft_and_an_emptied_calendar_answer_without_slots(sandbox: Sandbox, desk: Desk) -> None:
    other = desk.location.calendars.add("Other")
    desk.location.calendars.change(desk.calendar.id, is_active=False)
    assert await desk.days() == {}
    desk.location.calendars.change(desk.calendar.id, is_active=True)
    assert await desk.days()
    shared = Sandbox(sandbox.url, desk.world)
    for empty in ([desk.calendar.id], ["*"]):
        shared.faults(desk.location.id, empty_calendars=empty)
        assert await desk.days() == {}
    shared.faults(desk.location.id, empty_calendars=[other.id])
    assert await desk.days()


async def test_the_faults_of_a_location_are_those_of_its_calendars(sandbox: Sandbox, caller: Caller) -> None:
    location = caller.location
    calendar = location.calendars.add("Intro Call")
    now = int(sandbox.world.clock() * 1000)
    params = {"startDate": now, "endDate": now + 86_400_000}

    async def status(path: str = f"/calendars/{calendar.id}/free-slots") -> int:
        return (await caller.http.get(path, params=params if path.endswith("slots") else {})).status_code

    sandbox.faults(location.id, error_rate=1.0, error_status=503, routes=[SLOTS])
    assert [await status(), await status(f"/calendars/{calendar.id}")] == [503, 200]
    sandbox.faults(location.id, missing_scopes=["calendars.readonly"])
    assert [await status(), await status(f"/calendars/{calendar.id}")] == [401, 401]
    sandbox.faults(location.id, hang_rate=1.0, hang_seconds=5, routes=[SLOTS])
    with pytest.raises(httpx.ReadTimeout):
        await caller.http.get(f"/calendars/{calendar.id}/free-slots", params=params, timeout=0.2)
    sandbox.faults(location.id)
    assert await status() == 200
    assert sandbox.stats(location.id)["by_route"][SLOTS]["503"] == 1


async def test_calendars_are_made_and_changed_from_another_process(sandbox: Sandbox, location: Location) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:

        async def change(**body: object) -> httpx.Response:
            return await client.post("/_sandbox/calendars", json={"location": location.id, **body})

        hours = [{"days": [5], "opens": 600, "closes": 660}]
        [first, second] = (await change(add=[{"name": "One", "hours": hours}, {"name": "Two"}])).json()["added"]
        assert (await change(change={first: {"widget_slug": "moved"}}, delete=[second])).json()["deleted"] == 1
        shown = (await client.get("/_sandbox/calendars")).json()["locations"][location.id]
        assert shown == [{"id": first, "name": "One", "widget_slug": "moved", "is_active": True}]
        assert location.calendars.by_id[first].schedule.hours == (OpenHours(days=(5,), opens=600, closes=660),)
        orders: list[dict[str, object]] = [
            {"add": [{"colour": 1}]},
            {"change": {second: {}}},
            {"add": [{"time_zone": "Mars"}]},
        ]
        for senseless in orders:
            assert (await change(**senseless)).status_code == 422


def test_a_location_s_calendars_and_contacts_keep_their_ids_whatever_else_is_made() -> None:
    one, two = World(seed=3).add_location(), World(seed=3).add_location()
    two.add(first_name="Ada")
    assert one.calendars.add("A").id == two.calendars.add("A").id
    assert one.calendars.add("B").id != one.calendars.add("B").id


def test_what_a_calendar_does_not_have_is_refused(location: Location) -> None:
    for fields in ({"colour": "red"}, {"minutes": 0}, {"time_zone": "Mars/Olympus"}, {"hours": [{"days": [7]}]}):
        with pytest.raises(InvalidInput):
            location.calendars.add("Intro", **fields)
    with pytest.raises(InvalidInput):
        location.calendars.change("unknown", is_active=False)


NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 3, 8), [0, 1, 3, 4]),  # 02:30 does not exist
        (date(2026, 11, 1), [0, 1, 2, 3, 4]),  # 01:30 occurs twice and is offered once
    ],
)
def test_wall_clock_times_on_the_days_when_the_clocks_change(day: date, expected: list[int]) -> None:
    hours = (OpenHours(days=(6,), opens=30, closes=300),)
    begins = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).timestamp()
    free = Schedule(hours=hours, every=60, minutes=30).free(NEW_YORK, begins, begins + 86_400, 0)
    assert [(each.hour, each.minute) for each in free] == [(hour, 30) for hour in expected]


@given(
    start=st.integers(0, 365 * 24 * 60).map(lambda minute: 1_790_000_000 + 60 * minute),
    length=st.integers(0, 31 * 86_400),
    cut=st.floats(0, 1),
    zone=st.sampled_from(["America/New_York", "UTC", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_two_parts_of_a_time_have_together_what_the_whole_has(start: int, length: int, cut: float, zone: str) -> None:
    schedule = Schedule(hours=(OpenHours(days=tuple(range(7)), opens=0, closes=1440),), every=45, minutes=45)
    middle, end = start + int(length * cut), start + length

    def free(begin: float, finish: float) -> list[datetime]:
        return schedule.free(ZoneInfo(zone), begin, finish, now=start)

    whole = free(start, end)
    assert sorted({*free(start, middle), *free(middle, end)}) == whole == sorted(set(whole))
    assert all(start <= each.timestamp() <= end for each in whole)
