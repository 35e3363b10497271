"""The arithmetic of a location's slots: what is given out, whatever is asked, learned and refused in between."""

import time
from itertools import pairwise
from threading import Thread

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.throttle_row import BURST, GUARD, Learned, Lease, Limits, block, learn, register
from ghl_pipeline_tests.ghl.throttle_row_tools import (
    LOCATION,
    ROUNDING,
    SPREAD,
    forget,
    let_pass,
    reserved,
    row_of,
    waits,
)

# --- everybody's lane


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    max_requests=st.integers(5, 40),
    interval=st.floats(0.5, 30),
)
@example(counts=[5], max_requests=5, interval=0.7)  # 5 * 0.7 / 0.7 < 5
def test_reserved_slots_keep_the_limit_whatever_is_asked(
    engine: Engine, counts: list[int], max_requests: int, interval: float
) -> None:
    forget(engine)
    slots: list[float] = []
    for count in counts:
        lease = reserved(engine, count, Limits(max_requests, interval, 1_000_000, interactive=0))
        assert len(lease.slots) == count
        slots += lease.slots
    assert slots == sorted(slots)
    for earlier, later in zip(slots, slots[max_requests:], strict=False):
        assert later - earlier >= interval * (1 + GUARD) - 1e-6


def test_the_slots_of_a_window_come_spaced_whoever_reserves_them(engine: Engine) -> None:
    limits = Limits(20, 10, 1000, interactive=0)
    slots = [at for count in (5, 5, 3, 1, 1, 5) for at in reserved(engine, count, limits).slots]
    apart = 10 * (1 + GUARD) / (20 * BURST)
    assert [later - earlier for earlier, later in pairwise(slots)] == pytest.approx([apart] * 19, abs=ROUNDING)


def test_the_limit_in_the_headers_spaces_too(engine: Engine) -> None:
    limits = Limits(90, 10, 1000, interactive=0)
    register(engine, LOCATION, limits)
    learn(engine, LOCATION, Learned(10, 20))
    slots = [at for _ in range(2) for at in reserved(engine, 5, limits).slots]
    assert min(later - earlier for earlier, later in pairwise(slots)) >= 20 * (1 + GUARD) / (10 * BURST) - ROUNDING


def test_after_a_pause_the_next_slot_is_due_at_once(engine: Engine) -> None:
    limits = Limits(4, 10, 1000, interactive=0)
    reserved(engine, 1, limits)
    let_pass(engine, SPREAD / 4)
    assert waits([reserved(engine, 1, limits)]) == [0.0]


def test_a_limit_that_grows_again_has_forgotten_nothing(engine: Engine) -> None:
    limits = Limits(10, 10, 1000, interactive=0)
    for _ in range(2):
        reserved(engine, 5, limits)
    # Fewer and more: in between neither registering nor reserving may free one of the ten.
    fewer = reserved(engine, 4, Limits(4, 10, 1000, interactive=0))
    larger = Limits(12, 10, 1000, interactive=0)
    more = reserved(engine, 5, larger)
    assert min(fewer.slots) - fewer.now > 5
    assert min(more.slots) >= max(fewer.slots)
    let_pass(engine, 40)
    free = waits([reserved(engine, 5, larger) for _ in range(3)])
    assert max(free[:12]) < SPREAD
    assert min(free[12:]) > 5


def test_a_memory_that_was_too_short_is_lengthened_without_freeing_anything(engine: Engine) -> None:
    few = Limits(2, 0.01, 1000, interactive=0)
    given = [at for _ in range(40) for at in reserved(engine, 2, few).slots]
    many = reserved(engine, 5, Limits(78, 10, 1000, interactive=0))
    # Eighty were given within a moment, fewer of them were remembered: all eighty count.
    assert min(many.slots) - given[-1] > 5


def test_a_reservation_that_had_to_wait_reads_the_clock_again(engine: Engine) -> None:
    limits = Limits(10, 10, 1000)
    reserved(engine, 1, limits)
    leases: list[Lease] = []
    with engine.begin() as other:
        other.execute(text("UPDATE location_throttle SET used_today = used_today + 1"))
        waiting = Thread(target=lambda: leases.append(reserved(engine, 2, limits)))
        waiting.start()
        time.sleep(0.4)
        unlocked: float = other.execute(text("SELECT extract(epoch FROM clock_timestamp())::float8")).scalar_one()
    waiting.join()
    assert min(leases[0].slots) >= unlocked
    assert row_of(engine, "used_today") == 4


# --- the interactive lane


def test_a_backfill_leaves_the_last_slots_of_the_limit_to_interactive_work(engine: Engine) -> None:
    limits = Limits(100, 10, 1000, interactive=5)
    backfill = waits([reserved(engine, 5, limits) for _ in range(20)])
    assert max(backfill[:95]) < SPREAD
    assert min(backfill[95:]) > 5  # promised for the next window
    interactive = waits([reserved(engine, 1, limits, interactive=True) for _ in range(6)])
    assert max(interactive[:5]) < 1
    assert interactive[5] > 5


def test_what_ghl_allows_beyond_ours_is_for_interactive_work_so_a_backfill_loses_nothing(engine: Engine) -> None:
    limits = Limits(90, 10, 1000, interactive=5)
    backfill = waits([reserved(engine, 5, limits) for _ in range(19)])
    assert max(backfill[:90]) < SPREAD
    assert min(backfill[90:]) > 5
    assert max(waits([reserved(engine, 1, limits, interactive=True) for _ in range(5)])) < 1


def test_interactive_work_takes_everybodys_slots_when_its_own_are_used_up(engine: Engine) -> None:
    limits = Limits(90, 10, 1000, interactive=5)
    free = waits([reserved(engine, 1, limits, interactive=True) for _ in range(96)])
    assert max(free[:5]) < 1
    assert max(free[5:95]) < SPREAD
    assert free[95] > 5


def test_of_both_lanes_interactive_work_takes_what_comes_first(engine: Engine) -> None:
    limits = Limits(20, 10, 1000, interactive=4)
    for _ in range(4):
        reserved(engine, 1, limits, interactive=True)
    let_pass(engine, 6)
    for _ in range(4):
        reserved(engine, 5, limits)
    # Everybody's next one is due in 10 s, the lane's own next one in 4 s.
    (wait,) = waits([reserved(engine, 1, limits, interactive=True)])
    assert 3 < wait < 5


@pytest.mark.parametrize(
    ("ours", "allowed", "backfill_has", "kept"),
    [
        (90, 100, 90, 5),
        (100, 100, 95, 5),
        (97, 100, 95, 5),
        (90, 25, 20, 5),  # a sandbox account
        (90, 12, 10, 2),  # a fifth at most
        (4, 100, 4, 1),
        (90, 3, 2, 1),
        (90, 2, 1, 1),
        (90, 1, 1, 0),  # everybody has at least one
    ],
)
def test_what_is_kept_for_interactive_work_follows_what_ghl_allows(
    engine: Engine, ours: int, allowed: int, backfill_has: int, kept: int
) -> None:
    limits = Limits(ours, 10, 1000, interactive=5)
    register(engine, LOCATION, limits)
    learn(engine, LOCATION, Learned(allowed, 10))
    backfill = waits([reserved(engine, 1, limits) for _ in range(backfill_has + 1)])
    interactive = waits([reserved(engine, 1, limits, interactive=True) for _ in range(kept + 1)])
    assert [wait < 5 for wait in backfill] == [True] * backfill_has + [False]
    assert [wait < 5 for wait in interactive] == [True] * kept + [False]


def test_a_process_that_keeps_nothing_counts_what_another_one_gave_to_interactive_work(engine: Engine) -> None:
    keeps, keeps_nothing = Limits(100, 10, 1000, interactive=5), Limits(100, 10, 1000, interactive=0)
    for _ in range(5):
        reserved(engine, 1, keeps, interactive=True)
    backfill = waits([reserved(engine, 5, keeps_nothing) for _ in range(20)])
    assert max(backfill[:95]) < SPREAD
    assert min(backfill[95:]) > 5


# --- slots that became void


def test_slots_promised_when_a_refusal_comes_are_given_back(engine: Engine) -> None:
    limits = Limits(10, 10, 1000, interactive=0)
    for _ in range(4):
        reserved(engine, 5, limits)  # ten now, ten for the next window
    block(engine, LOCATION, 3)
    let_pass(engine, 12)
    free = waits([reserved(engine, 5, limits) for _ in range(3)])
    assert max(free[:10]) < SPREAD
    assert min(free[10:]) > 5


def test_slots_that_are_due_as_a_refusal_comes_stay_taken(engine: Engine) -> None:
    """Somebody may have looked at the epoch a moment before, and be sending."""
    limits = Limits(10, 10, 1000, interactive=0)
    for _ in range(2):
        reserved(engine, 5, limits)
    let_pass(engine, SPREAD)
    block(engine, LOCATION, 0.001)
    assert min(waits([reserved(engine, 5, limits)])) > 5


def test_slots_that_are_due_in_a_moment_stay_taken_too(engine: Engine) -> None:
    """A process may know of a refusal a quarter of a second late, and use what it was promised until then."""
    limits = Limits(2, 0.1, 1000, interactive=0)
    (*_, last) = [at for _ in range(4) for at in reserved(engine, 2, limits).slots]  # 0.3 s ahead
    block(engine, LOCATION, 0.001)
    assert min(reserved(engine, 2, limits).slots) > last


def test_what_was_used_counts_even_when_all_that_is_remembered_is_void(engine: Engine) -> None:
    limits = Limits(1, 10, 1000, interactive=0)
    for _ in range(60):
        reserved(engine, 1, limits)
    block(engine, LOCATION, 0.001)
    assert min(waits([reserved(engine, 1, limits)])) > 5


def test_a_longer_window_counts_what_interactive_work_had_before_in_shorter_ones(engine: Engine) -> None:
    limits = Limits(8, 1, 1000, interactive=1)
    register(engine, LOCATION, limits)
    learn(engine, LOCATION, Learned(8, 1))
    for _ in range(9):
        reserved(engine, 1, limits, interactive=True)
        let_pass(engine, 1.1)
    learn(engine, LOCATION, Learned(8, 20))
    # Nine in the last ten seconds, of which two are remembered: nobody gets a slot until they are out of the window.
    assert min(waits([reserved(engine, 1, limits)])) > 17
    assert min(waits([reserved(engine, 1, limits, interactive=True)])) > 17
