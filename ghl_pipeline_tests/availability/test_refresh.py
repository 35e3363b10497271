"""What becomes of the stored free times: a failure keeps them, an empty answer has to be explained."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import text

from ghl_pipeline.availability.availability import AvailabilityRules
from ghl_pipeline.sandbox.calendars import Calendar
from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline.sandbox.free_times import OpenHours
from ghl_pipeline_tests.availability.conftest import RULES, WIDGET, Agency, Place, in_hours

SLOTS = "GET /calendars/{id}/free-slots"
CALENDAR = "GET /calendars/{id}"
CALENDLY_SLOTS = "CALENDLY GET /event_type_available_times"
SHORT = AvailabilityRules(client_seconds=1.0, run_seconds=30.0)


def rules_for(faults: Mapping[str, object]) -> AvailabilityRules:
    """A short time where it is waited for to pass; a machine that is busy must not make others run out of it."""
    return SHORT if "hang_rate" in faults else RULES


@pytest.fixture
def calendar(place: Place) -> Calendar:
    made = place.ghl.calendars.add("Roof")
    place.set(f"{WIDGET}/bookings/roof")
    return made


async def test_a_fresh_look_writes_the_differences_only(agency: Agency, place: Place, calendar: Calendar) -> None:
    await agency.refresh(place)
    before = place.slots()
    taken, gone = before[0], in_hours(-2)
    place.store_slots(*gone)
    place.ghl.calendars.book(calendar.id, taken)
    report = await agency.refresh(place)
    assert (report.added, report.removed) == (0, 2)
    assert place.slots() == before[1:] == place.free(calendar)
    row = place.row()
    assert (row["state"], row["reason"], row["stale_since"]) == ("fresh", None, None)
    assert row["refreshed_at"] == row["tried_at"]


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"error_rate": 1.0, "routes": (SLOTS,)}, "provider_error"),
        ({"error_rate": 1.0}, "provider_error"),
        ({"garbage_rate": 1.0, "routes": (SLOTS,)}, "unreadable"),
        ({"drop_rate": 1.0, "routes": (SLOTS,)}, "unreachable"),
        ({"hang_rate": 1.0, "hang_seconds": 30.0, "routes": (SLOTS,)}, "timeout"),
        ({"hang_rate": 1.0, "hang_seconds": 30.0}, "timeout"),
        ({"storm_requests": 50}, "rate_limited"),
        ({"token_revoked": True}, "token_refused"),
        ({"missing_scopes": ("calendars.readonly",)}, "scope_missing"),
    ],
)
@pytest.mark.parametrize("is_known", [True, False], ids=["remembered", "unresolved"])
async def test_a_failure_keeps_the_old_times_and_says_since_when_and_why(
    agency: Agency, place: Place, calendar: Calendar, faults: dict[str, object], reason: str, is_known: bool
) -> None:
    if is_known:
        await agency.refresh(place)
    old = place.slots() or place.store_slots(*in_hours(2, 5))
    agency.sandbox.faults(place.id, **faults)
    result = await agency.availability(rules_for(faults)).refresh([place.id])
    assert (result.reports[0].state, result.reports[0].reason) == ("stale", reason)
    assert [failure.location_id for failure in result.failures] == [place.id]
    assert place.slots() == old
    row = place.row()
    assert (row["state"], row["reason"], row["stale_since"]) == ("stale", reason, row["tried_at"])
    since = row["stale_since"]
    await agency.refresh(place, rules_for(faults))
    assert place.row()["stale_since"] == since
    agency.sandbox.faults()
    assert (await agency.refresh(place)).state == "fresh"
    assert place.slots() == place.free(calendar)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"error_rate": 1.0}, "provider_error"),
        ({"garbage_rate": 1.0}, "unreadable"),
        ({"drop_rate": 1.0}, "unreachable"),
        ({"hang_rate": 1.0, "hang_seconds": 30.0}, "timeout"),
        ({"storm_requests": 50}, "rate_limited"),
        ({"token_revoked": True}, "calendly_token_refused"),
        ({"fail_at": 1, "fail_requests": None, "fail_status": 400}, "rejected"),
    ],
)
async def test_a_failure_of_calendly_does_too(
    agency: Agency, place: Place, host: CalendlyUser, faults: dict[str, object], reason: str
) -> None:
    host.add_event_type("Intro")
    place.set("https://calendly.com/ada/intro", calendly=host)
    await agency.refresh(place)
    old = place.slots()
    assert old
    agency.sandbox.faults(host.faults_key, **faults)
    result = await agency.availability(rules_for(faults)).refresh([place.id])
    assert (result.reports[0].state, result.reports[0].reason) == ("stale", reason)
    assert len(result.failures) == 1
    assert place.slots() == old


async def test_times_that_passed_meanwhile_are_no_free_times_also_of_a_stale_calendar(
    agency: Agency, place: Place, calendar: Calendar
) -> None:
    kept = place.store_slots(*in_hours(3))
    place.store_slots(*in_hours(-3))
    agency.sandbox.faults(place.id, error_rate=1.0)
    await agency.availability().refresh([place.id])
    assert place.slots() == kept


async def test_one_empty_answer_does_not_outweigh_times_that_were_there(
    agency: Agency, place: Place, calendar: Calendar
) -> None:
    await agency.refresh(place)
    old = place.slots()
    agency.sandbox.faults(place.id, empty_calendars=(calendar.id,))
    for _ in range(2):  # a run right after it proves nothing more
        result = await agency.availability().refresh([place.id])
        assert (result.failures, place.state(), place.slots()) == ((), ("stale", "empty_unconfirmed"), old)
    an_hour_ago = in_hours(-1)[0]
    place.change(tried_at=an_hour_ago, stale_since=an_hour_ago)
    report = await agency.refresh(place)
    assert (report.state, report.slots, report.removed) == ("no_slots", 0, len(old))
    row = place.row()
    assert (row["state"], row["reason"], row["stale_since"]) == ("no_slots", None, None)
    assert place.slots() == []
    agency.sandbox.faults()
    assert (await agency.refresh(place)).slots == len(old)


async def test_a_failure_between_two_empty_answers_makes_the_second_a_first(
    agency: Agency, place: Place, calendar: Calendar
) -> None:
    await agency.refresh(place)
    place.change(state="stale", reason="timeout", tried_at=in_hours(-1)[0], stale_since=in_hours(-9)[0])
    agency.sandbox.faults(place.id, empty_calendars=("*",))
    assert (await agency.refresh(place)).reason == "empty_unconfirmed"
    assert place.slots()


async def test_a_calendar_that_never_had_times_has_none_at_once(agency: Agency, place: Place) -> None:
    place.ghl.calendars.add("Roof", hours=())
    place.set(f"{WIDGET}/bookings/roof")
    for _ in range(2):
        result = await agency.availability().refresh([place.id])
        assert (result.failures, result.reports[0].state, place.state()) == ((), "no_slots", ("no_slots", None))


async def test_an_empty_answer_of_a_calendar_that_cannot_be_read_is_unexplained(
    agency: Agency, place: Place, calendar: Calendar
) -> None:
    await agency.refresh(place)
    old = place.slots()
    place.change(state="stale", reason="empty_unconfirmed", tried_at=in_hours(-1)[0])
    agency.sandbox.faults(place.id, empty_calendars=("*",), error_rate=1.0, routes=(CALENDAR, "GET /calendars/"))
    (report,) = (await agency.availability().refresh([place.id])).reports
    assert (report.state, report.reason) == ("stale", "provider_error")
    assert place.slots() == old


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_calendar_that_is_switched_off_or_gone_keeps_its_times_as_stale(
    agency: Agency, place: Place, calendar: Calendar, is_deleted: bool
) -> None:
    await agency.refresh(place)
    old = place.slots()
    if is_deleted:
        place.ghl.calendars.remove(calendar.id)
    else:
        place.ghl.calendars.change(calendar.id, is_active=False)
    result = await agency.availability().refresh([place.id])
    expected = "link_not_found" if is_deleted else "calendar_inactive"
    assert (result.failures, place.state(), place.slots()) == ((), ("stale", expected), old)


async def test_an_event_type_of_calendly_without_times_is_looked_up_before_that_is_believed(
    agency: Agency, place: Place, host: CalendlyUser
) -> None:
    event_type = host.add_event_type("Intro")
    place.set("https://calendly.com/ada/intro", calendly=host)
    await agency.refresh(place)
    host.change_event_type(event_type.uuid, hours=())
    assert (await agency.refresh(place)).reason == "empty_unconfirmed"
    place.change(tried_at=in_hours(-1)[0])
    report = await agency.refresh(place)
    assert (report.state, report.requests) == ("no_slots", 1 + 2)
    host.change_event_type(event_type.uuid, active=False, hours=(OpenHours(),))
    assert (await agency.refresh(place)).reason == "calendar_inactive"


@pytest.mark.parametrize(
    ("link", "reason"),
    [("https://example.com/book", "unknown_page"), ("https://calendly.com/d/abc/intro", "calendly_single_use"),
     ("https://calendly.com/ada", "calendly_profile"), ("tel:none", "not_a_link")],
)  # fmt: skip
async def test_an_unsupported_link_is_a_state_and_no_failure_and_asks_nobody(
    agency: Agency, place: Place, link: str, reason: str
) -> None:
    place.set(link)
    place.store_slots(*in_hours(1))  # of the link that was there before
    for _ in range(2):
        result = await agency.availability().refresh([place.id])
        assert (result.failures, result.reports[0].requests, result.reports[0].slots) == ((), 0, 0)
        assert place.state() == ("unsupported", reason)
    assert place.row()["stale_since"] is None


async def test_a_calendly_link_without_a_token_waits_for_one(agency: Agency, place: Place, host: CalendlyUser) -> None:
    host.add_event_type("Intro")
    place.set("https://calendly.com/ada/intro")
    assert (await agency.availability().refresh([place.id])).failures == ()
    assert place.state() == ("stale", "calendly_token_missing")
    place.set(calendly=host)
    assert (await agency.refresh(place)).state == "fresh"


async def test_without_a_ghl_token_the_client_is_told_so(agency: Agency) -> None:
    place = agency.place("No token", with_token=False)
    place.set(f"{WIDGET}/bookings/roof")
    result = await agency.availability().refresh([place.id])
    assert [failure.error_class for failure in result.failures] == ["TokenMissing"]
    assert place.state() == ("stale", "token_missing")


async def test_a_client_without_a_calendar_is_left_alone(agency: Agency, place: Place) -> None:
    result = await agency.availability().refresh([place.id])
    assert (result.failures, result.reports[0].state, result.reports[0].requests) == ((), None, 0)


async def test_what_was_asked_for_a_link_that_changed_meanwhile_is_not_written(
    agency: Agency, place: Place, calendar: Calendar
) -> None:
    agency.sandbox.faults(place.id, latency_seconds=0.3)
    work = agency.availability().refresh([place.id])
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.2)  # the sandbox answers only after that
    place.set(f"{WIDGET}/bookings/another")
    (report,) = (await task).reports
    assert report.changed_meanwhile
    assert (place.slots(), place.row()["tried_at"]) == ([], None)


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"])
async def test_in_any_zone_the_stored_times_are_those_of_the_calendar(agency: Agency, place: Place, zone: str) -> None:
    calendar = place.ghl.calendars.add("Roof", time_zone=zone, hours=(OpenHours(days=(0, 1, 2, 3, 4, 5, 6)),))
    place.set(f"{WIDGET}/booking/{calendar.id}")
    await agency.refresh(place)
    slots = place.slots()
    assert slots == place.free(calendar)
    assert all(later - earlier >= timedelta(minutes=30) for earlier, later in pairwise(slots))


async def test_every_state_and_attempt_is_on_record_by_location(
    agency: Agency, place: Place, calendar: Calendar
) -> None:
    await agency.refresh(place)
    agency.sandbox.faults(place.id, error_rate=1.0)
    await agency.refresh(place)
    query = text("SELECT state, error_class FROM location_attempts WHERE capability = 'availability' ORDER BY id")
    with agency.engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(query)] == [("succeeded", None), ("failed", "GhlServerError")]
