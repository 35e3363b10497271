"""The request budget of a location: never more than the limit in any window, shared by all processes."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline.ghl import throttle_row
from ghl_pipeline.ghl.errors import CallFacts, DailyQuotaReached
from ghl_pipeline.ghl.throttle import LEASE, Limits, LocationThrottle
from ghl_pipeline.ghl.throttle_row import BURST, GUARD, Lease
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import SLOW_NAME, SLOW_NAME_SECONDS, Connector
from ghl_pipeline_tests.ghl.throttle_row_tools import database_now, lane_of, row_of

FACTS = CallFacts("LocationAAAAAAAAAAAA", "POST", "/contacts/search")


def throttle(engine: Engine, limits: Limits) -> LocationThrottle:
    return LocationThrottle(engine, FACTS.location_id, limits)


async def take(engine: Engine, limits: Limits, count: int) -> list[float]:
    """Moments at which `count` requests, all asked for at once by one process, may be sent."""
    budget = throttle(engine, limits)

    async def one() -> float:
        await budget.acquire(FACTS)
        return time.monotonic()

    return sorted(await asyncio.gather(*(one() for _ in range(count))))


def most_in_a_window(moments: list[float], seconds: float) -> int:
    return max(sum(start <= moment < start + seconds for moment in moments) for start in moments)


async def test_no_window_holds_more_requests_than_the_limit(engine: Engine) -> None:
    limits = Limits(max_requests=10, interval_seconds=0.5, max_per_day=1000)
    moments = await take(engine, limits, 45)
    assert most_in_a_window(moments, 0.5) <= 10


async def test_two_processes_share_one_budget(engine: Engine) -> None:
    limits = Limits(max_requests=10, interval_seconds=0.5, max_per_day=1000)
    moments = await asyncio.gather(take(engine, limits, 20), take(engine, limits, 20))
    assert most_in_a_window(sorted(moments[0] + moments[1]), 0.5) <= 10


async def test_the_slots_of_a_window_do_not_come_all_at_once_from_two_processes_either(engine: Engine) -> None:
    limits = Limits(max_requests=20, interval_seconds=4, max_per_day=1000, interactive=0)
    first, second = await asyncio.gather(take(engine, limits, 10), take(engine, limits, 10))
    window = 4 * (1 + GUARD)
    # The last is due 19 gaps after the first, and that one is used within the guard or not at all.
    assert max(first + second) - min(first + second) >= 19 * window / (20 * BURST) - 4 * GUARD


async def test_locations_do_not_wait_for_each_other(engine: Engine) -> None:
    limits = Limits(max_requests=2, interval_seconds=60, max_per_day=1000, interactive=0)
    await take(engine, limits, 2)
    other = LocationThrottle(engine, "LocationBBBBBBBBBBBB", limits)
    assert await other.acquire(FACTS) < 5


async def test_a_refusal_stops_every_process_for_the_pause(engine: Engine) -> None:
    limits = Limits(max_requests=50, interval_seconds=10, max_per_day=1000)
    first, second = throttle(engine, limits), throttle(engine, limits)
    await first.acquire(FACTS)
    await second.acquire(FACTS)
    await first.refused(0.5)
    assert await second.acquire(FACTS) >= 0.45
    assert await first.acquire(FACTS) < 0.1


async def test_a_process_that_already_waits_obeys_a_refusal_told_to_another(engine: Engine) -> None:
    limits = Limits(max_requests=1, interval_seconds=0.6, max_per_day=1000)
    first, second = throttle(engine, limits), throttle(engine, limits)
    await first.acquire(FACTS)
    waiting = asyncio.create_task(second.acquire(FACTS))
    await asyncio.sleep(0.1)
    await first.refused(2.0)
    assert await waiting >= 2.0


async def test_a_lower_limit_in_the_headers_is_obeyed_at_once(engine: Engine) -> None:
    limits = Limits(max_requests=100, interval_seconds=1.0, max_per_day=1000)
    budget = throttle(engine, limits)
    await budget.acquire(FACTS)
    await budget.learn(5, 1.0)
    moments = []
    for _ in range(9):
        await budget.acquire(FACTS)
        moments.append(time.monotonic())
    assert most_in_a_window(moments, 1.0) <= 5


async def test_a_higher_limit_in_the_headers_never_lifts_ours(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=3, interval_seconds=0.5, max_per_day=1000))
    await budget.learn(100, 0.5)
    moments = []
    for _ in range(7):
        await budget.acquire(FACTS)
        moments.append(time.monotonic())
    assert most_in_a_window(moments, 0.5) <= 3


async def test_the_daily_quota_ends_the_work_and_says_when_it_goes_on(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=100, interval_seconds=10, max_per_day=3))
    for _ in range(3):
        await budget.acquire(FACTS)
    with pytest.raises(DailyQuotaReached, match="after 00:00 UTC") as error:
        await budget.acquire(FACTS)
    assert error.value.resets_at is not None
    assert (error.value.resets_at.hour, error.value.resets_at.minute) == (0, 0)


async def test_the_quota_starts_anew_the_next_day(engine: Engine) -> None:
    limits = Limits(max_requests=100, interval_seconds=10, max_per_day=1)
    await throttle(engine, limits).acquire(FACTS)
    with engine.begin() as connection:
        connection.execute(text("UPDATE location_throttle SET day = day - 1"))
    assert await throttle(engine, limits).acquire(FACTS) < 5


async def test_slots_that_came_too_late_are_given_back(engine: Engine) -> None:
    """A process that stalled (swap, a long computation) must not send its old slots in a burst."""
    budget = throttle(engine, Limits(max_requests=4, interval_seconds=0.4, max_per_day=1000))
    sent: list[float] = []

    async def one() -> None:
        await budget.acquire(FACTS)
        sent.append(time.monotonic())

    tasks = [asyncio.create_task(one()) for _ in range(12)]
    await asyncio.sleep(0.05)
    time.sleep(0.3)  # noqa: ASYNC251 - the stall is the point
    await asyncio.gather(*tasks)
    assert most_in_a_window(sorted(sent), 0.4) <= 4
    assert row_of(engine, "used_today") == 12


async def test_a_late_slot_that_is_void_is_not_given_back_in_another_ones_place(engine: Engine) -> None:
    """Two refusals, the first with the longer pause: the end of it is promised to one process, then to the other."""
    limits = Limits(max_requests=10, interval_seconds=10, max_per_day=1000, interactive=0)
    first, second = throttle(engine, limits), throttle(engine, limits)
    await first.acquire(FACTS)
    await second.acquire(FACTS)
    await first.refused(1.5)
    void = asyncio.create_task(second.acquire(FACTS))
    await asyncio.sleep(0.3)
    await first.refused(0.1)
    valid = asyncio.create_task(first.acquire(FACTS))
    await asyncio.sleep(0.3)
    time.sleep(1.5)  # noqa: ASYNC251 - beyond the end of the pause
    await asyncio.gather(void, valid)
    # The first two, the void one, and two that were used; the valid one was late, given back and had again.
    assert row_of(engine, "used_today") == 5


async def test_a_process_that_stalled_is_promised_one_slot_and_then_more_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    reserve = throttle_row.reserve

    def noting(engine: Engine, location: str, count: int, limits: Limits, *, is_interactive: bool) -> Lease | None:
        counts.append(count)
        return reserve(engine, location, count, limits, is_interactive=is_interactive)

    monkeypatch.setattr(throttle_row, "reserve", noting)
    budget = throttle(engine, Limits(max_requests=400, interval_seconds=30, max_per_day=1000, interactive=0))
    tasks = [asyncio.create_task(budget.acquire(FACTS)) for _ in range(60)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    time.sleep(0.5)  # noqa: ASYNC251 - more than the 0.25 s that a slot may be late
    await asyncio.gather(*tasks)
    assert counts[0] == LEASE
    assert any(counts[nth : nth + LEASE] == list(range(1, LEASE + 1)) for nth in range(len(counts)))


async def test_a_process_whose_every_slot_comes_late_goes_on_with_few_reservations(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More to do than the machine can: whatever is reserved, its time has passed when the event loop comes to it."""
    reserve, reservations = throttle_row.reserve, 0

    def slow(engine: Engine, location: str, count: int, limits: Limits, *, is_interactive: bool) -> Lease | None:
        nonlocal reservations
        reservations += 1
        leased = reserve(engine, location, count, limits, is_interactive=is_interactive)
        time.sleep(0.3)  # more than the 150 ms that a slot may be late
        return leased and replace(leased, answered_at=leased.asked_at)

    monkeypatch.setattr(throttle_row, "reserve", slow)
    budget = throttle(engine, Limits(max_requests=90, interval_seconds=10, max_per_day=1000, interactive=0))
    async with asyncio.timeout(20):
        for _ in range(10):
            await budget.acquire(FACTS)
    assert reservations <= 11
    assert row_of(engine, "used_today") == 10


# --- requests that leave late


async def test_a_request_that_left_late_makes_the_next_window_later(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=1, interval_seconds=1.0, max_per_day=1000, interactive=0))
    await budget.acquire(FACTS)
    await budget.sent(time.monotonic() + 0.8)
    assert await budget.acquire(FACTS) >= 1.7


async def test_a_request_that_left_in_time_moves_nothing(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=10, interval_seconds=30, max_per_day=1000, interactive=0))
    before_any = time.monotonic()
    await budget.acquire(FACTS)
    slots = lane_of(engine, "slots")
    await budget.sent(before_any)
    assert lane_of(engine, "slots") == slots


async def test_a_slot_that_the_database_was_slow_to_tell_counts_as_late_as_it_may_be(engine: Engine) -> None:
    """On the process's clock, the row's `now` may be any moment from asking to the answer."""
    budget = throttle(engine, Limits(max_requests=10, interval_seconds=5, max_per_day=1000, interactive=0))

    async def one() -> float:
        """How far the slot was moved."""
        await budget.acquire(FACTS)
        left, promised = time.monotonic(), lane_of(engine, "slots")[-1]
        await budget.sent(left)
        return lane_of(engine, "slots")[-1] - promised

    def wait_until_it_is_asked_for() -> None:
        with engine.connect() as connection:
            while not connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one():
                time.sleep(0.01)

    await one()
    with engine.begin() as other:
        other.execute(text("UPDATE location_throttle SET used_today = used_today"))
        waiting = asyncio.create_task(one())
        await asyncio.to_thread(wait_until_it_is_asked_for)
        await asyncio.sleep(0.5)
    assert await waiting >= 0.4


async def test_of_requests_side_by_side_each_tells_of_its_own_slot(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=3, interval_seconds=6, max_per_day=1000, interactive=0))
    all_have_one = asyncio.Barrier(3)

    async def one(late: float) -> None:
        await budget.acquire(FACTS)
        before = time.monotonic()
        await all_have_one.wait()
        if late:
            await budget.sent(before + late)

    tasks = []
    for late in (100.0, 0.0, 200.0):
        tasks.append(asyncio.create_task(one(late)))
        await asyncio.sleep(0)  # so that slots go in this order
    await asyncio.gather(*tasks)
    first, second, third = lane_of(engine, "slots")[-3:]
    # Half a second apart when they were given: the middle one stays, the others go where their requests went.
    assert second - first == pytest.approx(100 - 0.5, abs=0.4)
    assert third - second == pytest.approx(100 + 1.0, abs=0.4)


async def test_a_connection_that_took_long_is_told_to_the_throttle(
    engine: Engine, sandbox: Sandbox, connect: Connector, slow_names: Sequence[str]
) -> None:
    location = sandbox.add_location()
    budget = LocationThrottle(engine, location.id, Limits(10, 10, 1000, interactive=0))
    client = await connect(location, budget, url=sandbox.url.replace("127.0.0.1", SLOW_NAME))
    began = database_now(engine)
    await client.location()
    assert slow_names == [SLOW_NAME]
    assert lane_of(engine, "slots")[-1] >= began + SLOW_NAME_SECONDS
    known = lane_of(engine, "slots")
    await client.location()  # on the connection that is there now
    assert lane_of(engine, "slots")[: len(known) - 1] == known[1:]


# --- limits that were learned, and limits that differ


async def test_a_process_that_starts_keeps_to_what_was_learned_before(engine: Engine) -> None:
    limits = Limits(max_requests=60, interval_seconds=1.0, max_per_day=1000)
    first = throttle(engine, limits)
    await first.acquire(FACTS)
    await first.learn(5, 1.0)
    moments = []
    for _ in range(5):
        await first.acquire(FACTS)
        moments.append(time.monotonic())
    moments += await take(engine, limits, 9)
    assert most_in_a_window(moments, 1.0) <= 5


async def test_another_process_that_starts_lifts_nothing_for_one_that_has_learned(engine: Engine) -> None:
    limits = Limits(max_requests=60, interval_seconds=1.0, max_per_day=1000)
    first = throttle(engine, limits)
    await first.acquire(FACTS)
    await first.learn(5, 1.0)
    await throttle(engine, limits).acquire(FACTS)
    moments = []
    for _ in range(9):
        await first.acquire(FACTS)
        await first.learn(5, 1.0)  # every answer says so
        moments.append(time.monotonic())
    assert most_in_a_window(moments, 1.0) <= 5


async def test_a_limit_that_is_higher_again_is_lifted_up_to_ours(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=8, interval_seconds=30, max_per_day=1000, interactive=0))
    await budget.learn(2, 30.0)
    for _ in range(2):
        await budget.acquire(FACTS)
    await budget.learn(100, 30.0)
    started = time.monotonic()
    for _ in range(6):
        await budget.acquire(FACTS)
    # Spaced over a quarter of the window; without the higher limit all of them would be a window later.
    assert time.monotonic() - started < 12
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.acquire(FACTS), 0.3)


async def test_slots_leased_by_others_are_void_once_a_lower_limit_is_learned(engine: Engine) -> None:
    limits = Limits(max_requests=2, interval_seconds=1.0, max_per_day=1000, interactive=0)
    first, second = throttle(engine, limits), throttle(engine, limits)
    await asyncio.gather(first.acquire(FACTS), second.acquire(FACTS))
    waiting = asyncio.create_task(second.acquire(FACTS))
    await asyncio.sleep(0.1)
    await first.learn(1, 1.5)
    assert await waiting >= 1.45  # a window of the new limit after the first two; the slot at 1 s is given back


@pytest.mark.parametrize(("most", "seconds"), [(0, 10.0), (25, 0.0), (10**12, 10.0), (1, 1e9)])
async def test_what_no_limit_can_be_is_not_learned(engine: Engine, most: int, seconds: float) -> None:
    budget = throttle(engine, Limits(max_requests=20, interval_seconds=10, max_per_day=1000))
    await budget.acquire(FACTS)
    await budget.learn(most, seconds)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT learned_max_requests, learned_at FROM location_throttle")).one() == (
            None,
            None,
        )


async def test_of_two_processes_with_limits_of_their_own_the_lower_one_wins(engine: Engine) -> None:
    higher, lower = Limits(40, 1.5, 1000, interactive=0), Limits(4, 1.5, 1000, interactive=0)
    first = await take(engine, lower, 1)
    both = await asyncio.gather(take(engine, lower, 4), take(engine, higher, 5))
    # Ten requests at four a window: the ninth lies two windows after the first, whoever sends it.
    moments = sorted(first + both[0] + both[1])
    assert moments[8] - moments[0] >= 2.9
    await asyncio.sleep(1.6)
    # The process that asked for less is gone: the other one has its own limit again.
    started = time.monotonic()
    await take(engine, higher, 20)
    assert time.monotonic() - started < 1.2


async def test_the_last_requests_of_a_day_are_used(engine: Engine) -> None:
    budget = throttle(engine, Limits(max_requests=100, interval_seconds=10, max_per_day=3))
    ended = await asyncio.gather(*(budget.acquire(FACTS) for _ in range(5)), return_exceptions=True)
    assert [isinstance(end, DailyQuotaReached) for end in ended] == [False, False, False, True, True]


# --- work that somebody waits for


async def test_interactive_work_does_not_queue_behind_a_backfill(engine: Engine) -> None:
    limits = Limits(max_requests=20, interval_seconds=30, max_per_day=1000, interactive=3)
    backfill = throttle(engine, limits)
    await backfill.learn(20, 30.0)
    queue = [asyncio.create_task(backfill.acquire(FACTS)) for _ in range(40)]
    for task in queue[:17]:
        await task
    interactive = LocationThrottle(engine, FACTS.location_id, limits, interactive=True)
    assert sum([await interactive.acquire(FACTS) for _ in range(3)]) < 5
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(interactive.acquire(FACTS), 0.3)
    assert sum(task.done() for task in queue) == 17
    for task in queue:
        task.cancel()
    await asyncio.gather(*queue, return_exceptions=True)


async def test_many_who_wait_are_promised_one_lease_at_a_time(engine: Engine) -> None:
    """What a killed process was promised is lost to the others for a window, so it is little."""
    limits = Limits(max_requests=10, interval_seconds=30, max_per_day=1000, interactive=0)
    budget = throttle(engine, limits)
    queue = [asyncio.create_task(budget.acquire(FACTS)) for _ in range(100)]
    await asyncio.sleep(0.5)
    with engine.connect() as connection:
        promised = connection.execute(text("SELECT used_today FROM location_throttle")).scalar_one()
    assert promised <= LEASE  # the first was used, the others are not due yet
    for _ in range(5):
        await asyncio.wait([task for task in queue if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    used = sum(task.done() for task in queue)
    assert row_of(engine, "used_today") <= used + LEASE
    for task in queue:
        task.cancel()
    await asyncio.gather(*queue, return_exceptions=True)


async def test_somebody_who_gives_up_waiting_leaves_the_slot_to_the_next(engine: Engine) -> None:
    limits = Limits(max_requests=1, interval_seconds=1.0, max_per_day=1000, interactive=0)
    budget = throttle(engine, limits)
    await budget.acquire(FACTS)
    impatient = asyncio.create_task(budget.acquire(FACTS))
    patient = asyncio.create_task(budget.acquire(FACTS))
    await asyncio.sleep(0.2)
    impatient.cancel()
    await patient
    with engine.connect() as connection:
        assert connection.execute(text("SELECT used_today FROM location_throttle")).scalar_one() == 2
