"""The request budget of a location: never more than the limit in any window, shared by all processes."""

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.errors import CallFacts, DailyQuotaReached
from ghl_pipeline.ghl.throttle import GUARD, Limits, LocationThrottle, _register, _reserve

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


async def test_locations_do_not_wait_for_each_other(engine: Engine) -> None:
    limits = Limits(max_requests=2, interval_seconds=60, max_per_day=1000)
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


async def test_slots_that_came_too_late_are_thrown_away(engine: Engine) -> None:
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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    max_requests=st.integers(5, 40),
    interval=st.floats(0.5, 30),
)
def test_reserved_slots_keep_the_limit_whatever_is_asked(
    engine: Engine, counts: list[int], max_requests: int, interval: float
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM location_throttle"))
    _register(engine, "L", Limits(max_requests, interval, 1_000_000))
    slots: list[float] = []
    for count in counts:
        lease = _reserve(engine, "L", count)
        assert lease is not None
        assert len(lease.slots) == count
        slots += lease.slots
    assert slots == sorted(slots)
    for earlier, later in zip(slots, slots[max_requests:], strict=False):
        assert later - earlier >= interval * (1 + GUARD) - 1e-6


def test_a_changed_limit_keeps_the_slots_that_were_given_out(engine: Engine) -> None:
    _register(engine, "L", Limits(10, 10, 1000))
    for _ in range(10):
        assert _reserve(engine, "L", 1) is not None
    for fewer_or_more in (4, 12):
        _register(engine, "L", Limits(fewer_or_more, 10, 1000))
    lease = _reserve(engine, "L", 5)
    assert lease is not None
    # Twelve are allowed, but only the last four of the ten were remembered: eight are free, so all five are due now.
    assert max(lease.slots) - lease.now < 1
    lease = _reserve(engine, "L", 5)
    assert lease is not None
    assert max(lease.slots) - lease.now > 9
