"""When a location's turn comes: once a period, whatever ticks are missed or doubled, and never everybody's at once."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.availability.schedules import REFRESH
from ghl_pipeline.conversations.schedules import IMPORT
from ghl_pipeline.crm import schedules as crm
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.hydration.schedules import NIGHTLY
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt, record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.in_hand import in_hand
from ghl_pipeline.orchestration.staggering import FEW_LOCATIONS, Rhythm, last_begun
from ghl_pipeline.senders import schedules as senders
from ghl_pipeline.webhooks.schedules import CHANGES, RECONCILING

RHYTHMS = [NIGHTLY, CHANGES, RECONCILING, IMPORT, REFRESH, crm.HOURLY, crm.WEEKLY, senders.HOURLY]
of_all = pytest.mark.parametrize("rhythm", RHYTHMS, ids=lambda rhythm: rhythm.work)
THOUSAND = [f"Location{number:012}" for number in range(1000)]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
# A Sunday's midnight: the beginning of a week, a day and an hour.
MIDNIGHT = datetime(2026, 5, 3, tzinfo=UTC)
times = st.datetimes(datetime(2024, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it
ids = st.text("abcXYZ0123456789", min_size=1, max_size=24)
rhythms = st.sampled_from(RHYTHMS)


def ticks_of(rhythm: Rhythm, periods: int = 1) -> Iterator[datetime]:
    """The schedule's ticks, from the beginning of a week."""
    at = MIDNIGHT + rhythm.first % rhythm.apart
    while at < MIDNIGHT + periods * rhythm.period:
        yield at
        at += rhythm.apart


@settings(deadline=None)
@given(rhythms, ids, times)
def test_the_latest_place_has_passed_and_the_next_is_a_period_away(
    rhythm: Rhythm, location_id: str, at: datetime
) -> None:
    place = rhythm.latest_place(location_id, at)
    assert place <= at < place + rhythm.period
    assert rhythm.latest_place(location_id, place) == place
    assert rhythm.latest_place(location_id, place - timedelta(seconds=1)) == place - rhythm.period
    assert rhythm.latest_place(location_id, place + rhythm.period) == place + rhythm.period


@of_all
def test_places_are_met_by_ticks_and_fit_into_the_period(rhythm: Rhythm) -> None:
    assert rhythm.first + (rhythm.places - 1) * rhythm.apart < rhythm.period
    just_before = MIDNIGHT + 2 * rhythm.period - timedelta(seconds=1)
    places = {rhythm.latest_place(each, just_before) for each in THOUSAND}
    assert len(places) == rhythm.places
    assert places <= set(ticks_of(rhythm, periods=2))


@of_all
def test_the_schedule_of_a_rhythm_ticks_when_turns_come(rhythm: Rhythm) -> None:
    """A turn between two ticks would wait for the second one, each time."""
    schedules = {each.name: each for each in build_defs().schedules or [] if isinstance(each, dg.ScheduleDefinition)}
    cron = schedules[rhythm.work].cron_schedule
    assert isinstance(cron, str)
    ticks = schedule_execution_time_iterator(MIDNIGHT.timestamp(), cron, "UTC", ascending=True)
    week = MIDNIGHT + timedelta(weeks=1)
    met = {at.timestamp() for at in itertools.takewhile(lambda tick: tick <= week, ticks)}
    begin = MIDNIGHT + rhythm.period - timedelta(seconds=1)
    assert {rhythm.latest_place(each, begin).timestamp() for each in THOUSAND} <= met


@of_all
def test_a_thousand_locations_are_spread_evenly(rhythm: Rhythm) -> None:
    share = len(THOUSAND) / rhythm.places
    counts = Counter(rhythm.latest_place(each, MIDNIGHT + rhythm.period) for each in THOUSAND)
    assert max(counts.values()) <= 2 * share
    assert min(counts.values()) >= share / 3


def test_the_same_location_has_different_turns_at_different_works() -> None:
    def minutes(rhythm: Rhythm) -> list[timedelta]:
        return [rhythm.latest_place(each, MIDNIGHT) - rhythm.first - MIDNIGHT for each in THOUSAND]

    same = sum(one == other for one, other in zip(minutes(CHANGES), minutes(crm.HOURLY), strict=True))
    assert same < len(THOUSAND) / 6, "a twelfth is chance"


@of_all
def test_in_each_period_each_location_is_asked_for_once(rhythm: Rhythm) -> None:
    begun = dict.fromkeys(THOUSAND[:100], LONG_AGO)
    asked: Counter[str] = Counter()
    caught_up = False
    for at in ticks_of(rhythm, periods=4):
        due = rhythm.due(THOUSAND[:100], begun, at)
        begun |= dict.fromkeys(due, at + timedelta(seconds=5))
        if at >= MIDNIGHT + 2 * rhythm.period:
            caught_up = True
            asked.update(due)
    assert caught_up
    assert set(asked.values()) == {2}
    assert len(asked) == 100


@settings(max_examples=40, deadline=None)
@given(rhythms, st.sets(ids, min_size=1, max_size=10), st.data())
def test_whatever_ticks_are_missed_or_doubled_no_turn_is_taken_twice(
    rhythm: Rhythm, locations: set[str], data: st.DataObject
) -> None:
    """And no turn that any tick saw is left out; the ticks are late by some seconds, and so is the database's clock."""
    begun = dict.fromkeys(locations, LONG_AGO)
    taken: Counter[tuple[str, datetime]] = Counter()
    seen: set[tuple[str, datetime]] = set()
    # Of a night or a week only the ticks around its turns, of an hour three hours' of them.
    ticks = [
        at for at in ticks_of(rhythm, periods=3) if (at - MIDNIGHT) % rhythm.period < rhythm.places * rhythm.apart * 2
    ]
    chosen = data.draw(st.lists(st.sampled_from([0, 1, 1, 2]), min_size=len(ticks), max_size=len(ticks)))
    delays = data.draw(st.lists(st.integers(-30, 200), min_size=1, max_size=7))
    late = itertools.cycle(timedelta(seconds=each) for each in delays)
    for at, times_evaluated in zip(ticks, chosen, strict=True):
        for _ in range(times_evaluated):
            due = rhythm.due(sorted(locations), begun, at)
            seen |= {(each, rhythm.latest_place(each, at)) for each in locations}
            taken.update((each, rhythm.latest_place(each, at)) for each in due)
            begun |= dict.fromkeys(due, at + next(late))
    assert all(count == 1 for count in taken.values())
    assert seen == set(taken)


def test_after_an_outage_not_everything_starts_at_one_tick() -> None:
    begun: Mapping[str, datetime] = dict.fromkeys(THOUSAND, LONG_AGO)
    sizes = []
    for at in ticks_of(CHANGES, periods=3):
        due = CHANGES.due(THOUSAND, begun, at)
        sizes.append(len(due))
        begun = {**begun, **dict.fromkeys(due, at)}
    assert max(sizes) == CHANGES.most_at_once(1000) < 200
    assert sum(sizes[:6]) >= 1000, "and half an hour later all are caught up with"


def test_of_too_many_those_go_first_whose_turn_came_first() -> None:
    at = MIDNIGHT + timedelta(hours=7)
    due = CHANGES.due(THOUSAND, {}, at)
    left = set(THOUSAND) - set(due)
    assert max(CHANGES.latest_place(each, at) for each in due) <= min(CHANGES.latest_place(each, at) for each in left)
    assert due == [each for each in THOUSAND if each in due], "in the order in which they were given"


def test_a_few_may_all_start_at_once() -> None:
    few = THOUSAND[:FEW_LOCATIONS]
    assert CHANGES.due(few, {}, MIDNIGHT) == few


def test_a_location_that_was_never_worked_on_is_due_at_once_unless_a_run_has_it() -> None:
    location = THOUSAND[0]
    for at in ticks_of(NIGHTLY):
        assert NIGHTLY.due([location], {}, at) == [location]
        assert NIGHTLY.due([location], {}, at, in_hand={location}) == []


def test_what_counts_as_having_begun(engine: Engine) -> None:
    whole, dry, new_only, failed, busy, never = THOUSAND[:6]
    for location_id, report in ((whole, {}), (dry, {"dry_run": True}), (new_only, {"only_new": True})):
        end_attempt(engine, begin_attempt(engine, location_id, None, "crm"), "succeeded", report=report)
    record_refusal(engine, FailedLocation(failed, "TokenRejected", "a text", permanent=True), None, "crm")
    record_refusal(engine, FailedLocation(busy, "LocationBusy", "a text", permanent=False), None, "crm")
    with engine.connect() as connection:
        assert set(last_begun(connection, "crm", THOUSAND)) == {whole, failed}
        assert last_begun(connection, "hydration", THOUSAND) == {}
        assert never not in last_begun(connection, "crm", [never])


def test_what_an_attempt_left_out_does_not_hide_the_one_before(engine: Engine) -> None:
    location = THOUSAND[0]
    whole = begin_attempt(engine, location, None)
    end_attempt(engine, whole, "succeeded")
    end_attempt(engine, begin_attempt(engine, location, None), "succeeded", report={"only_new": True})
    with engine.connect() as connection:
        began = connection.execute(text("SELECT started_at FROM location_attempts WHERE id = :id"), {"id": whole})
        assert last_begun(connection, "hydration", [location]) == {location: began.scalar_one()}


def test_a_run_has_in_hand_what_it_was_given_and_is_not_done_with(engine: Engine) -> None:
    done, failed, under_way, to_come, of_another = THOUSAND[:5]
    end_attempt(engine, begin_attempt(engine, done, "run-1", "crm"), "succeeded")
    record_refusal(engine, FailedLocation(failed, "TokenRejected", "a text", permanent=True), "run-1", "crm")
    begin_attempt(engine, under_way, "run-1", "crm")
    end_attempt(engine, begin_attempt(engine, of_another, "run-2", "crm"), "succeeded")
    with engine.connect() as connection:
        given_ = {"run-1": {done, failed, under_way, to_come}, "run-3": {of_another}}
        assert in_hand(connection, "crm", given_) == {under_way, to_come, of_another}
        assert in_hand(connection, "crm", {}) == set()
