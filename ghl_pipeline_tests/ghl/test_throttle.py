"""The request budget of a location: never more than the limit in any window, shared by all processes."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.errors import CallFacts, DailyQuotaReached
from ghl_pipeline.ghl.throttle import GUARD, Limits, LocationThrottle, _learn, _Learned, _Lease, _register, _reserve

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
    budget = throttle(engine, Limits(max_requests=8, interval_seconds=30, max_per_day=1000))
    await budget.learn(2, 30.0)
    for _ in range(2):
        await budget.acquire(FACTS)
    await budget.learn(100, 30.0)
    started = time.monotonic()
    for _ in range(6):
        await budget.acquire(FACTS)
    assert time.monotonic() - started < 5
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.acquire(FACTS), 0.3)


async def test_slots_leased_by_others_are_void_once_a_lower_limit_is_learned(engine: Engine) -> None:
    limits = Limits(max_requests=2, interval_seconds=1.0, max_per_day=1000)
    first, second = throttle(engine, limits), throttle(engine, limits)
    await asyncio.gather(first.acquire(FACTS), second.acquire(FACTS))
    waiting = asyncio.create_task(second.acquire(FACTS))
    await asyncio.sleep(0.1)
    await first.learn(1, 1.5)
    assert await waiting >= 2.3  # a window after the slot at 1 s, which is lost


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
    higher, lower = Limits(40, 1.5, 1000), Limits(4, 1.5, 1000)
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


# --- the reservation alone


def reserve(engine: Engine, count: int, limits: Limits) -> _Lease:
    _register(engine, "L", limits)  # every process does
    lease = _reserve(engine, "L", count, limits)
    assert lease is not None
    return lease


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    max_requests=st.integers(5, 40),
    interval=st.floats(0.5, 30),
)
def test_reserved_slots_keep_the_limit_whatever_is_asked(
    engine: Engine, counts: list[int], max_requests: int, interval: float
) -> None:
    forget(engine)
    slots: list[float] = []
    for count in counts:
        lease = reserve(engine, count, Limits(max_requests, interval, 1_000_000))
        assert len(lease.slots) == count
        slots += lease.slots
    assert slots == sorted(slots)
    for earlier, later in zip(slots, slots[max_requests:], strict=False):
        assert later - earlier >= interval * (1 + GUARD) - 1e-6


def forget(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM location_throttle"))


def let_pass(engine: Engine, seconds: float) -> None:
    """Ages the row, as if the clock had gone on."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE location_throttle SET
                    slots = ARRAY(SELECT at - :seconds FROM unnest(slots) WITH ORDINALITY AS s (at, nth) ORDER BY nth),
                    asked_until = asked_until - :seconds
            """),
            {"seconds": seconds},
        )


def assert_kept(slots: Sequence[float], nth: int, most: int, seconds: float) -> None:
    """The window that ends with the nth slot holds no more than `most`."""
    if nth >= most:
        assert slots[nth] - slots[nth - most] >= seconds * (1 + GUARD) - 1e-5


LIMITS = st.builds(Limits, st.integers(1, 30), st.sampled_from([0.5, 3.0, 10.0]), st.just(1_000_000))
STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 1), st.integers(1, 5)),
    st.tuples(st.just("learn"), st.integers(1, 40), st.sampled_from([0.5, 1.0, 10.0, 20.0])),
    st.tuples(st.just("pass"), st.floats(0.01, 15), st.none()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.tuples(LIMITS, LIMITS), steps=st.lists(STEPS, min_size=10, max_size=50))
def test_no_window_holds_too_many_whatever_the_limits_change_to(
    engine: Engine, asked: tuple[Limits, Limits], steps: list[tuple[str, float, float]]
) -> None:
    forget(engine)
    for limits in asked:
        _register(engine, "L", limits)
    passed = 0.0
    learned: _Learned | None = None
    slots: list[float] = []
    of_lower: list[int] = []
    lower = min(asked, key=lambda limits: limits.max_requests / limits.interval_seconds)
    for step, first, second in steps:
        if step == "pass":
            let_pass(engine, first)
            passed += first
        elif step == "learn":
            learned = _Learned(int(first), second)
            _learn(engine, "L", learned)
        else:
            limits = asked[int(first)]
            lease = reserve(engine, int(second), limits)
            assert 1 <= len(lease.slots) <= second
            assert lease.learned == learned
            for at in lease.slots:
                slots.append(at + passed)
                assert_kept(slots, len(slots) - 1, limits.max_requests, limits.interval_seconds)
                if learned:
                    assert_kept(slots, len(slots) - 1, learned.max_requests, learned.interval_seconds)
                if limits == lower:
                    of_lower.append(len(slots) - 1)
    assert all(earlier <= later + 1e-5 for earlier, later in pairwise(slots))
    # Whoever else has slots in a window with one of the process that asks for less: it holds what that one asks for.
    for nth in of_lower:
        for last in range(nth, min(nth + lower.max_requests + 1, len(slots))):
            assert_kept(slots, last, lower.max_requests, lower.interval_seconds)


def test_a_limit_that_grows_again_has_forgotten_nothing(engine: Engine) -> None:
    limits = Limits(10, 10, 1000)
    for _ in range(2):
        reserve(engine, 5, limits)
    # Fewer and more: in between neither registering nor reserving may free one of the ten.
    fewer = reserve(engine, 4, Limits(4, 10, 1000))
    more = reserve(engine, 5, Limits(12, 10, 1000))
    assert min(fewer.slots) - fewer.now > 9
    assert min(more.slots) >= max(fewer.slots)
    let_pass(engine, 30)
    free = [
        at - lease.now for lease in [reserve(engine, 5, Limits(12, 10, 1000)) for _ in range(3)] for at in lease.slots
    ]
    assert max(free[:12]) < 1
    assert min(free[12:]) > 9


def test_a_memory_that_was_too_short_is_lengthened_without_freeing_anything(engine: Engine) -> None:
    few = Limits(2, 0.01, 1000)
    given = [at for _ in range(4) for at in reserve(engine, 2, few).slots]
    many = reserve(engine, 5, Limits(8, 10, 1000))
    # Eight were given within a moment, only two of them were remembered: all eight count.
    assert min(many.slots) - given[-1] > 9


def test_a_reservation_that_had_to_wait_reads_the_clock_again(engine: Engine) -> None:
    limits = Limits(10, 10, 1000)
    reserve(engine, 1, limits)
    leases: list[_Lease] = []
    with engine.begin() as other:
        other.execute(text("UPDATE location_throttle SET used_today = used_today + 1"))
        waiting = Thread(target=lambda: leases.append(reserve(engine, 2, limits)))
        waiting.start()
        time.sleep(0.4)
        unlocked: float = other.execute(text("SELECT extract(epoch FROM clock_timestamp())::float8")).scalar_one()
    waiting.join()
    assert min(leases[0].slots) >= unlocked
    with engine.connect() as connection:
        assert connection.execute(text("SELECT used_today FROM location_throttle")).scalar_one() == 4
