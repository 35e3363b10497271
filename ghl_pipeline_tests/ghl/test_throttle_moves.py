"""A slot that was not used when it was due: moved to when its request left, or given back."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline.ghl.throttle_row import GUARD, Limits, block, move, use_late
from ghl_pipeline_tests.ghl.throttle_row_tools import (
    LOCATION,
    ROUNDING,
    SPREAD,
    lane_of,
    let_pass,
    reserved,
    row_of,
    waits,
)

WINDOW = 10 * (1 + GUARD)
FOUR = Limits(4, 10, 1000, interactive=0)
TEN = Limits(10, 10, 1000, interactive=0)
KEEPS_TWO = Limits(90, 10, 1000, interactive=2)


# --- moved


def test_a_slot_that_was_used_later_makes_the_one_a_window_later_come_later(engine: Engine) -> None:
    first, second, third, fourth = reserved(engine, 4, FOUR).slots
    left = fourth + 3
    move(engine, LOCATION, second, left)
    expected = [at + WINDOW for at in (first, third, fourth, left)]
    assert reserved(engine, 4, FOUR).slots == pytest.approx(expected, abs=ROUNDING)


def test_a_moved_slot_is_still_one_of_its_lane_and_the_lane_in_order(engine: Engine) -> None:
    everybodys = reserved(engine, 5, KEEPS_TWO).slots
    own = [reserved(engine, 1, KEEPS_TWO, interactive=True).slots[0] for _ in range(2)]
    move(engine, LOCATION, everybodys[1], everybodys[3] + 0.001)
    move(engine, LOCATION, own[0], own[1] + 0.5)
    moved = [everybodys[0], everybodys[2], everybodys[3], everybodys[3] + 0.001, everybodys[4]]
    assert lane_of(engine, "slots")[-5:] == moved
    assert lane_of(engine, "interactive_slots")[-2:] == [own[1], own[1] + 0.5]
    assert row_of(engine, "used_today") == 7


def test_a_slot_of_the_interactive_lane_that_was_used_later_counts_there_later(engine: Engine) -> None:
    own = [reserved(engine, 1, KEEPS_TWO, interactive=True).slots[0] for _ in range(2)]
    let_pass(engine, 9)
    move(engine, LOCATION, own[0] - 9, own[0] - 1)  # a second ago
    for _ in range(18):
        reserved(engine, 5, KEEPS_TWO)  # everybody's, so that only the lane is left
    next_ones = waits([reserved(engine, 1, KEEPS_TWO, interactive=True) for _ in range(2)])
    assert 0.5 < next_ones[0] < 2
    assert next_ones[1] > 7


def test_of_slots_at_the_same_moment_one_is_moved(engine: Engine) -> None:
    reserved(engine, 1, KEEPS_TWO)
    block(engine, LOCATION, 3)
    own = [reserved(engine, 1, KEEPS_TWO, interactive=True).slots[0] for _ in range(2)]
    assert own[0] == own[1]  # the end of the pause
    move(engine, LOCATION, own[0], own[0] + 1)
    assert lane_of(engine, "interactive_slots")[-2:] == [own[0], own[0] + 1]
    move(engine, LOCATION, own[0], None)
    assert lane_of(engine, "interactive_slots")[-2:] == [0.0, own[0] + 1]


def test_a_slot_that_a_refusal_made_void_counts_when_its_request_left_all_the_same(engine: Engine) -> None:
    limits = Limits(2, 10, 1000, interactive=0)
    first, second = reserved(engine, 2, limits).slots
    block(engine, LOCATION, 0.001)
    assert second not in lane_of(engine, "slots")
    move(engine, LOCATION, second, second + 0.3)
    expected = [first + WINDOW, second + 0.3 + WINDOW]
    assert reserved(engine, 2, limits).slots == pytest.approx(expected, abs=ROUNDING)


# --- given back


def test_a_slot_that_is_given_back_can_be_had_again_and_the_day_does_not_count_it(engine: Engine) -> None:
    slots = [at for _ in range(2) for at in reserved(engine, 5, TEN).slots]
    let_pass(engine, SPREAD)
    for nth in (1, 4, 9):
        move(engine, LOCATION, slots[nth] - SPREAD, None)
    assert row_of(engine, "used_today") == 7
    again = waits([reserved(engine, 4, TEN)])
    assert max(again[:3]) < SPREAD
    assert again[3] > 5
    assert row_of(engine, "used_today") == 11


def test_a_slot_of_the_interactive_lane_that_is_given_back_can_be_had_again(engine: Engine) -> None:
    for _ in range(18):
        reserved(engine, 5, KEEPS_TWO)
    own = [reserved(engine, 1, KEEPS_TWO, interactive=True).slots[0] for _ in range(2)]
    move(engine, LOCATION, own[0], None)
    again = waits([reserved(engine, 1, KEEPS_TWO, interactive=True) for _ in range(2)])
    assert again[0] < 1
    assert again[1] > 5


def test_the_last_slot_of_a_day_that_is_given_back_can_be_had_again(engine: Engine) -> None:
    limits = Limits(10, 10, 3, interactive=0)
    slots = reserved(engine, 3, limits).slots
    move(engine, LOCATION, slots[2], None)
    assert len(reserved(engine, 3, limits).slots) == 1


def test_what_is_forgotten_counts_even_when_all_that_is_remembered_is_given_back(engine: Engine) -> None:
    limits = Limits(1, 10, 1000, interactive=0)
    for _ in range(60):
        reserved(engine, 1, limits)
    block(engine, LOCATION, 0.001)
    (oldest,) = lane_of(engine, "slots")
    move(engine, LOCATION, oldest, None)
    assert min(waits([reserved(engine, 1, limits)])) > 5


# --- used late


def test_a_missed_slot_that_nothing_depends_on_may_be_used_now_and_counts_from_now(engine: Engine) -> None:
    (at,) = reserved(engine, 1, FOUR).slots
    let_pass(engine, 3)
    late = use_late(engine, LOCATION, at - 3, row_of(engine, "epoch"), FOUR.max_requests)
    assert late is not None
    assert late.slots == [late.now]
    assert lane_of(engine, "slots")[-1] == late.now
    assert row_of(engine, "used_today") == 1
    others = reserved(engine, 4, FOUR).slots + reserved(engine, 1, FOUR).slots
    assert others[3] >= late.now + WINDOW - ROUNDING


def test_a_missed_slot_on_which_others_may_depend_is_not_used(engine: Engine) -> None:
    first, *_ = reserved(engine, 4, FOUR).slots
    assert use_late(engine, LOCATION, first, row_of(engine, "epoch"), FOUR.max_requests) is None
    assert lane_of(engine, "slots")[-4] == first


def test_a_void_slot_a_block_and_one_given_back_are_not_used(engine: Engine) -> None:
    (at,) = reserved(engine, 1, TEN).slots
    epoch = row_of(engine, "epoch")
    block(engine, LOCATION, 5)
    assert use_late(engine, LOCATION, at, epoch, TEN.max_requests) is None
    assert use_late(engine, LOCATION, at, row_of(engine, "epoch"), TEN.max_requests) is None
    assert use_late(engine, LOCATION, at + 0.5, row_of(engine, "epoch"), TEN.max_requests) is None


def test_a_missed_slot_of_the_interactive_lane_is_used_while_it_is_the_last_one_there(engine: Engine) -> None:
    reserved(engine, 5, KEEPS_TWO)
    first, second = (reserved(engine, 1, KEEPS_TWO, interactive=True).slots[0] for _ in range(2))
    let_pass(engine, 4)
    epoch = row_of(engine, "epoch")
    assert use_late(engine, LOCATION, first - 4, epoch, KEEPS_TWO.max_requests) is None
    late = use_late(engine, LOCATION, second - 4, epoch, KEEPS_TWO.max_requests)
    assert late is not None
    assert lane_of(engine, "interactive_slots")[-1] == late.now
