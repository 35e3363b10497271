"""Which calendar is found: each step in its turn, what is remembered, and what makes it be forgotten."""

import pytest

from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline_tests.availability.conftest import RULES, WIDGET, Agency, Place

GET = "GET /calendars/{id}"
LIST = "GET /calendars/"
SLOTS = "GET /calendars/{id}/free-slots"
ZONE = "GET /locations/{id}"


async def test_the_id_in_a_link_is_asked_for_and_remembered(agency: Agency, place: Place) -> None:
    calendar = place.ghl.calendars.add("Roof inspection")
    place.set(f"{WIDGET}/booking/{calendar.id}")
    report = await agency.refresh(place)
    assert (report.state, report.resolved_by, report.provider) == ("fresh", "id_in_link", "ghl")
    assert place.requests() == {GET: 1, ZONE: 1, SLOTS: 1}
    assert place.slots() == place.free(calendar)
    row = place.row()
    assert (row["provider"], row["provider_calendar_id"], row["time_zone"]) == ("ghl", calendar.id, "America/New_York")
    again = await agency.refresh(place)
    assert (again.resolved_by, again.requests, again.added, again.removed) == ("cache", 2, 0, 0)


@pytest.mark.parametrize("form", ["booking", "bookings"])
@pytest.mark.parametrize("slug", ["slug", "widget_slug"])
async def test_a_slug_is_matched_against_the_locations_calendars(
    agency: Agency, place: Place, form: str, slug: str
) -> None:
    place.ghl.calendars.add("Another")
    wanted = place.ghl.calendars.add("Roof inspection", slug="roof-a", widget_slug="roof-b")
    place.set(f"{WIDGET}/{form}/{getattr(wanted, slug).upper()}?x=1")
    report = await agency.refresh(place)
    assert (report.state, report.resolved_by) == ("fresh", "slug")
    assert place.row()["provider_calendar_id"] == wanted.id
    assert GET not in place.requests()


async def test_what_looks_like_an_id_may_be_a_slug(agency: Agency, place: Place) -> None:
    calendar = place.ghl.calendars.add("Roof", widget_slug="roofinspectionwithacme")
    place.set(f"{WIDGET}/bookings/roofinspectionwithacme")
    report = await agency.refresh(place)
    assert (report.resolved_by, place.row()["provider_calendar_id"]) == ("slug", calendar.id)


async def test_an_inactive_calendar_is_passed_over_for_an_active_one_of_the_same_slug(
    agency: Agency, place: Place
) -> None:
    place.ghl.calendars.add("Old", widget_slug="roof", is_active=False)
    active = place.ghl.calendars.add("New", widget_slug="roof")
    place.set(f"{WIDGET}/bookings/roof")
    await agency.refresh(place)
    assert place.row()["provider_calendar_id"] == active.id


async def test_a_calendar_of_another_location_is_not_used(agency: Agency, place: Place) -> None:
    foreign = agency.place("Other").ghl.calendars.add("Foreign")
    place.set(f"{WIDGET}/booking/{foreign.id}")
    report = await agency.refresh(place)
    assert (report.state, report.reason, report.slots) == ("stale", "link_not_found", 0)


async def test_calendly_is_asked_by_the_scheduling_url(agency: Agency, host: CalendlyUser) -> None:
    place = agency.place("No GHL token", with_token=False)
    for number in range(130):
        host.add_event_type(f"Filler {number}")
    wanted = host.add_event_type("Intro call")
    place.set("http://www.calendly.com/ADA/Intro-Call/?month=2026-12", calendly=host)
    report = await agency.refresh(place)
    assert (report.state, report.provider, report.resolved_by) == ("fresh", "calendly", "scheduling_url")
    assert report.requests == 4  # who it is, two pages, the free times
    row = place.row()
    assert (row["provider_calendar_id"], row["time_zone"]) == (wanted.uri, host.time_zone)
    again = await agency.refresh(place)
    assert (again.resolved_by, again.requests) == ("cache", 1)
    assert place.requests() == {}


async def test_a_teams_page_is_found_in_the_organization_and_only_by_an_administrator(
    agency: Agency, host: CalendlyUser, place: Place
) -> None:
    admin, member = host, agency.sandbox.world.calendly.add("member", is_admin=False)
    admin.add_event_type("Intro", team="acme-team", pooling_type="round_robin")
    place.set("https://calendly.com/acme-team/intro", calendly=admin)
    assert (await agency.refresh(place)).state == "fresh"
    other = agency.place("Member")
    other.set("https://calendly.com/acme-team/intro", calendly=member)
    report = await agency.refresh(other)
    assert (report.state, report.reason) == ("stale", "link_not_found")


@pytest.mark.parametrize(
    "link",
    [f"{WIDGET}/bookings/gone", f"{WIDGET}/booking/Qx7mKp2Lw9ZtRb4NcVd8", "https://calendly.com/ada/gone",
     "https://example.com/book", None],
)  # fmt: skip
async def test_a_link_that_leads_nowhere_leaves_the_clients_own_calendar(
    agency: Agency, place: Place, host: CalendlyUser, link: str | None
) -> None:
    auto = place.ghl.calendars.add("Auto booking")
    place.set(link, auto, host)
    for _ in range(2):
        report = await agency.refresh(place)
        assert (report.state, report.resolved_by) == ("fresh", "auto_booking_calendar")
    assert place.slots() == place.free(auto)


async def test_the_calendar_that_stands_in_is_left_as_soon_as_the_link_leads_somewhere(
    agency: Agency, place: Place
) -> None:
    auto = place.ghl.calendars.add("Auto booking")
    place.set(f"{WIDGET}/bookings/roof", auto)
    assert (await agency.refresh(place)).resolved_by == "auto_booking_calendar"
    wanted = place.ghl.calendars.add("Roof")
    assert (await agency.refresh(place)).resolved_by == "slug"
    assert place.row()["provider_calendar_id"] == wanted.id


async def test_a_step_that_hangs_costs_its_share_of_the_time_and_not_the_others(agency: Agency, place: Place) -> None:
    auto = place.ghl.calendars.add("Auto booking")
    place.ghl.calendars.add("Roof")
    place.set(f"{WIDGET}/bookings/roof", auto)
    agency.sandbox.faults(place.id, hang_rate=1.0, hang_seconds=60.0, routes=(LIST,))
    report = await agency.refresh(place)
    assert (report.state, report.resolved_by) == ("fresh", "auto_booking_calendar")
    assert report.seconds < 0.75 * RULES.client_seconds
    agency.sandbox.faults()
    assert (await agency.refresh(place)).resolved_by == "slug"


async def test_what_was_remembered_is_forgotten_with_the_link_also_when_the_dashboard_changes_it(
    agency: Agency, place: Place
) -> None:
    first, second = place.ghl.calendars.add("First"), place.ghl.calendars.add("Second")
    place.set(f"{WIDGET}/booking/{first.id}")
    await agency.refresh(place)
    place.change(booking_link=f"{WIDGET}/booking/{second.id}")
    assert (await agency.refresh(place)).resolved_by == "id_in_link"
    assert place.row()["provider_calendar_id"] == second.id


async def test_a_slug_that_went_to_another_calendar_is_followed(agency: Agency, place: Place) -> None:
    first = place.ghl.calendars.add("Roof")
    place.set(f"{WIDGET}/bookings/roof")
    await agency.refresh(place)
    place.ghl.calendars.change(first.id, slug="old", widget_slug="old")
    second = place.ghl.calendars.add("Roof")
    assert (await agency.refresh(place)).resolved_by == "slug"
    assert place.row()["provider_calendar_id"] == second.id


async def test_a_remembered_event_type_that_is_gone_is_looked_for_again(agency: Agency, host: CalendlyUser) -> None:
    place = agency.place()
    gone = host.add_event_type("Intro")
    place.set("https://calendly.com/ada/intro", calendly=host)
    await agency.refresh(place)
    del host.event_types[gone.uuid]
    new = host.add_event_type("Intro")
    report = await agency.refresh(place)
    assert (report.state, report.resolved_by) == ("fresh", "scheduling_url")
    assert place.row()["provider_calendar_id"] == new.uri


async def test_a_calendly_account_of_before_july_2026_is_asked_week_by_week(agency: Agency, place: Place) -> None:
    host = agency.sandbox.world.calendly.add("old", longest_days=7)
    event_type = host.add_event_type("Intro")
    place.set("https://calendly.com/old/intro", calendly=host)
    report = await agency.refresh(place)
    assert (report.state, report.requests) == ("fresh", 2 + 1 + 5)
    slots = place.slots()
    assert len(slots) == len(set(slots)) > 200
    assert event_type.uri == place.row()["provider_calendar_id"]
