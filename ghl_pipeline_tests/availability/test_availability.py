"""Many clients at once: who hangs or fails delays nobody, a run ends in time, the next one starts where it ended."""

import asyncio
import time
from datetime import datetime

import pytest
from sqlalchemy import text

from ghl_pipeline.availability import refresh
from ghl_pipeline.availability.availability import AvailabilityRules
from ghl_pipeline.availability.client_calendars import calendar_locations, longest_waiting_first
from ghl_pipeline.availability.outcomes import State
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline_tests.availability.conftest import WIDGET, Agency, Place, in_hours

# A share of a client's time is for each of its calls, and this machine may be busy with other tests.
RULES = AvailabilityRules(client_seconds=16.0, run_seconds=60.0)


def clients(agency: Agency, number: int) -> list[Place]:
    """Clients with a calendar each, every other found by slug, every fifth at Calendly."""
    places = []
    for each in range(number):
        place = agency.place(f"Client {each}")
        if each % 5 == 0:
            host = agency.sandbox.world.calendly.add(f"host-{each}")
            host.add_event_type("Intro")
            place.set(f"https://calendly.com/host-{each}/intro", calendly=host)
        else:
            calendar = place.ghl.calendars.add("Roof")
            place.set(f"{WIDGET}/bookings/roof" if each % 2 else f"{WIDGET}/booking/{calendar.id}")
        places.append(place)
    return places


@pytest.mark.slow
async def test_fifty_clients_of_which_some_hang_fail_or_moved(agency: Agency) -> None:
    places = clients(agency, 50)
    assert (await agency.availability(RULES).refresh([place.id for place in places])).counts()["fresh"] == 50
    before = {place.id: place.slots() for place in places}
    hanging, failing, moved = places[1:10:2], places[11:20:2], places[21:30:2]
    for number in (*range(1, 10, 2), *range(11, 20, 2)):
        amiss_how = {"hang_rate": 1.0, "hang_seconds": 60.0} if number < 10 else {"error_rate": 1.0}
        for key in (places[number].id, f"calendly host-{number}"):
            agency.sandbox.faults(key, **amiss_how)
    links = {place.id: place.row()["booking_link"] for place in moved}
    for place in moved:
        place.change(booking_link=f"{WIDGET}/bookings/moved-away")
    started = datetime.now().astimezone()
    begun = time.monotonic()
    result = await agency.availability(RULES).refresh([place.id for place in places])
    assert time.monotonic() - begun < RULES.run_seconds
    counts = result.counts()
    assert (counts["fresh"], counts["stale"], counts["not_reached"]) == (35, 15, 0)
    assert result.by_reason(State.STALE) == {"timeout": 5, "provider_error": 5, "link_not_found": 5}
    assert {failure.location_id for failure in result.failures} == {place.id for place in (*hanging, *failing)}
    amiss = {place.id for place in (*hanging, *failing, *moved)}
    for place in places:
        row = place.row()
        assert place.slots() == before[place.id]
        if place.id in amiss:
            assert (row["state"], row["stale_since"]) == ("stale", row["tried_at"])
        else:
            assert row["state"] == "fresh"
            assert isinstance(row["refreshed_at"], datetime)
            assert row["refreshed_at"] >= started
    # Nobody who is well waited for those that hang.
    slowest = max(report.seconds for report in result.reports if report.state is State.FRESH)
    assert slowest < RULES.client_seconds
    agency.sandbox.faults()
    for place in moved:
        place.change(booking_link=links[place.id])
    assert (await agency.availability(RULES).refresh(sorted(amiss))).counts()["fresh"] == 15


async def test_a_run_ends_before_its_time_and_the_next_begins_with_those_that_waited_longest(agency: Agency) -> None:
    places = clients(agency, 20)
    for place in places:
        for key in (place.id, f"calendly host-{places.index(place)}"):
            agency.sandbox.faults(key, hang_rate=1.0, hang_seconds=60.0)
    rules = AvailabilityRules(client_seconds=0.5, run_seconds=2.0)
    ids = [place.id for place in places]
    begun = time.monotonic()
    first = await agency.availability(rules).refresh(ids, concurrency=1)
    assert time.monotonic() - begun < rules.run_seconds
    reached = [report.location for report in first.reports]
    assert 2 <= len(reached) < len(ids)
    assert sorted((*reached, *first.not_reached)) == sorted(ids)
    assert first.not_reached == tuple(id_ for id_ in ids if id_ not in reached)
    with agency.engine.connect() as connection:
        attempts = connection.execute(text("SELECT location_id FROM location_attempts")).scalars().all()
        assert sorted(attempts) == sorted(reached), "nothing is on record of who was not reached"
        waiting = calendar_locations(connection)
        assert waiting[: len(first.not_reached)] == list(first.not_reached)
        assert longest_waiting_first(connection, [*reached, *first.not_reached])[: len(first.not_reached)] == list(
            first.not_reached
        )
    agency.sandbox.faults()
    second = await agency.availability(rules).refresh(ids, concurrency=1)
    order = [report.location for report in second.reports]
    assert order[: len(first.not_reached)] == list(first.not_reached)[: len(order)]


async def test_a_client_whose_whole_time_does_not_fit_is_not_begun(agency: Agency) -> None:
    (place,) = clients(agency, 1)
    result = await agency.availability(AvailabilityRules(client_seconds=20.0, run_seconds=0.0)).refresh([place.id])
    assert (result.not_reached, result.reports, result.failures) == ((place.id,), (), ())
    assert place.row()["tried_at"] is None


@pytest.mark.parametrize(
    ("rules", "budget"),
    [(AvailabilityRules(), 20.0), (AvailabilityRules(client_seconds=20.0, run_seconds=10.0), 5.0)],
)
def test_a_short_run_holds_two_clients_one_after_the_other(rules: AvailabilityRules, budget: float) -> None:
    assert rules.budget_seconds == budget
    assert rules.reserve_seconds + rules.budget_seconds < rules.run_seconds


async def test_another_run_at_work_there_is_no_failure(agency: Agency) -> None:
    busy, idle = clients(agency, 2)
    with AdvisoryLocks(agency.engine).hold(f"availability of location {busy.id}") as held:
        assert held
        result = await agency.availability().refresh([busy.id, idle.id])
    assert (result.busy, result.failures) == ((busy.id,), ())
    assert [report.location for report in result.reports] == [idle.id]


async def test_a_run_that_is_stopped_leaves_whole_clients(agency: Agency) -> None:
    well, hanging = clients(agency, 3)[1:]
    agency.sandbox.faults(hanging.id, hang_rate=1.0, hang_seconds=60.0)
    work = asyncio.ensure_future(agency.availability().refresh([well.id, hanging.id]))
    for _ in range(100):
        await asyncio.sleep(0.05)
        if well.state()[0] == "fresh":
            break
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert well.slots()
    assert hanging.state() == ("never", None)


async def test_a_client_that_nobody_has_or_that_is_off_is_named(agency: Agency) -> None:
    (place,) = clients(agency, 1)
    with agency.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET active = false"))
    result = await agency.availability().refresh([place.id, "Nobody00000000000001"])
    assert {failure.location_id: failure.error_class for failure in result.failures} == {
        place.id: "ClientInactive",
        "Nobody00000000000001": "UnknownClient",
    }


async def test_a_bug_marks_the_client_and_stops_no_other(agency: Agency, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, well = clients(agency, 3)[1:]
    kept = broken.store_slots(*in_hours(2))
    look = refresh.Refresh.look

    async def failing(self: refresh.Refresh) -> refresh.Looked:
        if self._calendar.location_id == broken.id:
            raise KeyError("ada@example.com")
        return await look(self)

    monkeypatch.setattr(refresh.Refresh, "look", failing)
    result = await agency.availability().refresh([broken.id, well.id])
    (failure,) = result.failures
    assert failure.error_class == "KeyError"
    assert "ada" not in failure.text
    assert (broken.state(), broken.slots()) == (("stale", "bug"), kept)
    assert well.state() == ("fresh", None)
