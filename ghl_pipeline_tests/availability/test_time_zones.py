"""In which zone a calendar is: read, read again, and never taken for read when it was not."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline_tests.availability.conftest import RULES, WIDGET, Agency, Place

ZONE = "GET /locations/{id}"


@pytest.fixture
def linked(place: Place) -> Place:
    calendar = place.ghl.calendars.add("Roof")
    place.set(f"{WIDGET}/booking/{calendar.id}")
    return place


def read_days_ago(place: Place, days: int) -> None:
    """As if the zone had been read so many days ago."""
    digest = str(place.row()["resolved_from"]).partition(" ")[0]
    place.change(resolved_from=f"{digest} {(datetime.now(UTC) - timedelta(days=days)).date()}")


@pytest.mark.parametrize(
    "faults",
    [{"error_rate": 1.0}, {"missing_scopes": ("locations.readonly",)}, {"garbage_rate": 1.0}, {"drop_rate": 1.0}],
)
async def test_a_zone_that_could_not_be_read_is_said_and_neither_stored_nor_remembered(
    agency: Agency, linked: Place, faults: dict[str, object]
) -> None:
    agency.sandbox.faults(linked.id, **faults, routes=(ZONE,))
    report = await agency.refresh(linked)
    assert (report.state, report.reason) == ("fresh", "time_zone_unread")
    assert linked.row()["time_zone"] is None, "whoever reads it uses the client's own"
    agency.sandbox.faults()
    report = await agency.refresh(linked)
    assert (report.state, report.reason, report.resolved_by) == ("fresh", None, "id_in_link")
    assert linked.row()["time_zone"] == "America/New_York"
    assert (await agency.refresh(linked)).resolved_by == "cache"


async def test_a_location_that_hangs_when_it_is_asked_for_its_zone_makes_no_calendar_stale(
    agency: Agency, linked: Place
) -> None:
    agency.sandbox.faults(linked.id, hang_rate=1.0, hang_seconds=60.0, routes=(ZONE,))
    result = await agency.availability().refresh([linked.id])
    (report,) = result.reports
    assert (result.failures, report.state, report.reason) == ((), "fresh", "time_zone_unread")
    assert report.seconds < 0.75 * RULES.client_seconds
    assert linked.slots()


async def test_a_location_that_moved_is_noticed_within_a_day(agency: Agency, linked: Place) -> None:
    await agency.refresh(linked)
    linked.ghl.time_zone = ZoneInfo("America/Los_Angeles")
    await agency.refresh(linked)
    assert (linked.row()["time_zone"], linked.requests()[ZONE]) == ("America/New_York", 1)
    read_days_ago(linked, 1)
    report = await agency.refresh(linked)
    assert (report.resolved_by, linked.row()["time_zone"]) == ("cache", "America/Los_Angeles")
    await agency.refresh(linked)
    assert linked.requests()[ZONE] == 2


async def test_a_zone_that_was_stored_without_being_read_is_read_now(agency: Agency, linked: Place) -> None:
    await agency.refresh(linked)
    linked.change(resolved_from=str(linked.row()["resolved_from"]).partition(" ")[0], time_zone="UTC")
    await agency.refresh(linked)
    assert linked.row()["time_zone"] == "America/New_York"


@pytest.mark.parametrize(("days", "reason"), [(1, None), (2, "time_zone_unread")])
async def test_a_zone_that_was_read_stays_while_it_cannot_be_read_again_and_that_is_said_after_a_day(
    agency: Agency, linked: Place, days: int, reason: str | None
) -> None:
    await agency.refresh(linked)
    read_days_ago(linked, days)
    agency.sandbox.faults(linked.id, error_rate=1.0, routes=(ZONE,))
    for _ in range(2):
        report = await agency.refresh(linked)
        assert (report.state, report.reason, report.resolved_by) == ("fresh", reason, "cache")
        assert linked.row()["time_zone"] == "America/New_York"
    agency.sandbox.faults()
    assert (await agency.refresh(linked)).reason is None


async def test_of_calendly_it_is_the_accounts_and_read_once_a_day(
    agency: Agency, place: Place, host: CalendlyUser
) -> None:
    host.add_event_type("Intro")
    place.set("https://calendly.com/ada/intro", calendly=host)
    assert (await agency.refresh(place)).requests == 3
    assert (await agency.refresh(place)).requests == 1
    read_days_ago(place, 1)
    place.change(time_zone="Europe/Berlin")
    assert (await agency.refresh(place)).requests == 2
    assert place.row()["time_zone"] == host.time_zone


async def test_a_zone_of_one_provider_is_not_taken_for_anothers(
    agency: Agency, place: Place, host: CalendlyUser
) -> None:
    host.add_event_type("Intro")
    place.set("https://calendly.com/ada/intro", calendly=host)
    await agency.refresh(place)
    calendar = place.ghl.calendars.add("Roof")
    place.set(f"{WIDGET}/booking/{calendar.id}")
    agency.sandbox.faults(place.id, error_rate=1.0, routes=(ZONE,))
    assert (await agency.refresh(place)).reason == "time_zone_unread"
    assert place.row()["time_zone"] is None
    with agency.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM availability_slots")).scalar_one() > 0
