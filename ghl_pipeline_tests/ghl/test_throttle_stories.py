"""The arithmetic of a location's slots under anything that may happen to the row, in any order."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ghl_pipeline.ghl.throttle_row import (
    BURST,
    DOCUMENTED_PER_SECOND,
    GUARD,
    RECHECK_AFTER_SECONDS,
    Learned,
    Limits,
    block,
    learn,
    move,
    register,
    reserve,
)
from ghl_pipeline_tests.ghl.throttle_row_tools import (
    LOCATION,
    ROUNDING,
    database_now,
    forget,
    lane_of,
    let_pass,
    reserved,
    row_of,
)


def fullest_window_with(at: float, slots: Sequence[float], seconds: float) -> int:
    """Most of `slots`, which include `at`, in any window of that length (and the guard) that holds `at`."""
    width = seconds * (1 + GUARD) - ROUNDING
    ends = [end for end in slots if at <= end < at + width]
    return max(sum(end - width < slot <= end for slot in slots) for end in ends)


@dataclass(eq=False)
class Slot:
    """A slot that was given out, on the story's clock."""

    at: float
    in_own_lane: bool
    is_void: bool = False
    is_of_today: bool = True


@dataclass
class Story:
    """What was given out so far, on a clock that goes on by itself and when a step says so."""

    engine: Engine
    learned: Learned | None = None
    passed: float = 0.0
    given: list[Slot] = field(default_factory=list)

    @property
    def everybodys(self) -> list[float]:
        """Slots of everybody's lane that are used, or may be."""
        return sorted(slot.at for slot in self.given if not (slot.is_void or slot.in_own_lane))

    @property
    def interactive(self) -> list[float]:
        """Those of the interactive lane."""
        return sorted(slot.at for slot in self.given if not slot.is_void and slot.in_own_lane)

    @property
    def used_today(self) -> int:
        """What counts against the day: void slots too."""
        return sum(slot.is_of_today for slot in self.given)

    def now(self) -> float:
        return database_now(self.engine) + self.passed

    def void(self, before: float) -> None:
        """Slots later than a process may still be using are as if they had never been given."""
        for slot in self.given:
            slot.is_void |= slot.at >= before + 2 * RECHECK_AFTER_SECONDS

    def learn(self, learned: Learned) -> None:
        before, epoch = self.now(), row_of(self.engine, "epoch")
        known = self.learned
        learn(self.engine, LOCATION, learned)
        self.learned = learned
        if row_of(self.engine, "epoch") > epoch:
            self.void(before)
        elif known:
            assert learned.max_requests / learned.interval_seconds >= known.max_requests / known.interval_seconds

    def block(self, seconds: float) -> None:
        before = self.now()
        block(self.engine, LOCATION, seconds)
        self.void(before)

    def let_pass(self, seconds: float) -> None:
        let_pass(self.engine, seconds)
        self.passed += seconds

    def midnight(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE location_throttle SET day = day - 1"))
        for slot in self.given:
            slot.is_of_today = False

    def move(self, nth: int, late: float) -> None:
        """The request of the slot `nth` from the last left later; or of one that is void, as nobody knew yet."""
        if not self.given:
            return
        slot = self.given[-1 - nth % len(self.given)]
        if slot.is_void and any(abs(other.at - slot.at) <= ROUNDING for other in self.given if not other.is_void):
            return  # promised anew; the one that is void is half a second ahead, so nobody can have used it
        at, remembered_in_own_lane = self._in_row(slot)
        move(self.engine, LOCATION, at, at + late)
        slot.at += late
        slot.is_void = False
        slot.in_own_lane = remembered_in_own_lane
        self._check_order()

    def give_back(self, nth: int) -> None:
        """A slot of today, `nth` from the last and not void, was not used."""
        of_today = [slot for slot in self.given if slot.is_of_today and not slot.is_void]
        if not of_today:
            return
        slot = of_today[-1 - nth % len(of_today)]
        move(self.engine, LOCATION, self._in_row(slot)[0], None)
        self.given.remove(slot)
        assert row_of(self.engine, "used_today") == self.used_today
        self._check_order()

    def _in_row(self, slot: Slot) -> tuple[float, bool]:
        """The slot's time to the last bit, as its process has it, and whether the row has it in the interactive lane.

        Of slots at the same moment in both lanes the row takes everybody's, so the two change places here.
        """
        at = slot.at - self.passed
        for lane, own in ((lane_of(self.engine, "slots"), False), (lane_of(self.engine, "interactive_slots"), True)):
            for each in lane[max(0, bisect(lane, at - ROUNDING)) :]:
                if abs(each - at) > ROUNDING:
                    break
                if own != slot.in_own_lane:
                    for other in self.given:
                        if other is not slot and other.in_own_lane is own and abs(other.at - slot.at) <= ROUNDING:
                            other.in_own_lane = slot.in_own_lane
                            break
                return each, own
        return at, False

    def _check_order(self) -> None:
        for lane in (lane_of(self.engine, "slots"), lane_of(self.engine, "interactive_slots")):
            assert lane == sorted(lane)

    def reserve(self, count: int, limits: Limits, *, interactive: bool) -> None:
        lease = reserve(self.engine, LOCATION, count, limits, is_interactive=interactive)
        if lease is None:
            assert self.used_today >= limits.max_per_day
            return
        assert 1 <= len(lease.slots) <= (1 if interactive else count)
        assert lease.learned == self.learned
        in_own_lane = row_of(self.engine, "leased") == 0
        assert interactive or not in_own_lane
        for at in lease.slots:
            self.given.append(Slot(at + self.passed, in_own_lane))
            self.check(self.given[-1].at, limits, in_own_lane=in_own_lane)
        assert row_of(self.engine, "used_today") == self.used_today <= limits.max_per_day

    def check(self, at: float, limits: Limits, *, in_own_lane: bool) -> None:
        """The new slot is its lane's last, and no window with it holds more than it may."""
        seconds = self.learned.interval_seconds if self.learned else limits.interval_seconds
        documented = int(DOCUMENTED_PER_SECOND * seconds)
        allowed = self.learned.max_requests if self.learned else max(limits.max_requests, documented)
        everybodys, interactive = self.everybodys, self.interactive
        assert fullest_window_with(at, everybodys + interactive, seconds) <= allowed
        if in_own_lane:
            assert at >= interactive[-1] - ROUNDING
            assert fullest_window_with(at, interactive, seconds) <= max(1, min(limits.interactive, allowed // 5))
        else:
            ours = max(1, int(limits.max_requests * (seconds / limits.interval_seconds)))
            apart = seconds * (1 + GUARD) / (min(ours, allowed) * BURST)
            assert all(later - earlier >= apart - ROUNDING for earlier, later in pairwise([*everybodys[-2:-1], at]))
            assert at >= everybodys[-1] - ROUNDING
            assert fullest_window_with(at, everybodys, limits.interval_seconds) <= limits.max_requests
            kept = 1 if limits.interactive and allowed > 1 else 0
            assert fullest_window_with(at, everybodys, seconds) <= allowed - kept


LIMITS = st.builds(
    Limits,
    st.integers(1, 30),
    st.sampled_from([0.5, 3.0, 10.0]),
    st.sampled_from([25, 1_000_000]),
    interactive=st.sampled_from([0, 1, 5]),
)
STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 1), st.integers(1, 5)),
    st.tuples(st.just("interactive"), st.integers(0, 1), st.integers(1, 8)),
    st.tuples(st.just("learn"), st.integers(1, 40), st.sampled_from([0.5, 1.0, 10.0, 20.0])),
    st.tuples(st.just("block"), st.sampled_from([0.01, 1.0, 12.0]), st.none()),
    st.tuples(st.just("pass"), st.floats(0.01, 15), st.none()),
    st.tuples(st.just("midnight"), st.none(), st.none()),
    st.tuples(st.just("move"), st.integers(0, 40), st.floats(0.001, 5)),
    st.tuples(st.just("give back"), st.integers(0, 40), st.none()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.tuples(LIMITS, LIMITS), steps=st.lists(STEPS, min_size=10, max_size=50))
def test_no_window_holds_too_many_whatever_happens(
    engine: Engine, asked: tuple[Limits, Limits], steps: list[tuple[str, float, float]]
) -> None:
    forget(engine)
    for limits in asked:
        register(engine, LOCATION, limits)
    story = Story(engine)
    for step, first, second in steps:
        match step:
            case "reserve":
                story.reserve(int(second), asked[int(first)], interactive=False)
            case "interactive":
                for _ in range(int(second)):
                    story.reserve(1, asked[int(first)], interactive=True)
            case "learn":
                story.learn(Learned(int(first), second))
            case "block":
                story.block(first)
            case "pass":
                story.let_pass(first)
            case "move":
                story.move(int(first), second)
            case "give back":
                story.give_back(int(first))
            case _:
                story.midnight()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.tuples(LIMITS, LIMITS),
    steps=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 5), st.floats(0, 3)), min_size=10, max_size=40),
)
def test_whoever_shares_a_window_with_a_lower_limit_keeps_to_it(
    engine: Engine, asked: tuple[Limits, Limits], steps: list[tuple[int, int, float]]
) -> None:
    forget(engine)
    lower = min(asked, key=lambda limits: limits.max_requests / limits.interval_seconds)
    slots: list[float] = []
    of_lower: list[int] = []
    passed = 0.0
    for who, count, pause in steps:
        limits = Limits(asked[who].max_requests, asked[who].interval_seconds, 1_000_000, asked[who].interactive)
        for at in reserved(engine, count, limits).slots:
            slots.append(at + passed)
            if asked[who] == lower:
                of_lower.append(len(slots) - 1)
        let_pass(engine, pause)
        passed += pause
    # Whoever else has slots in a window with one of the process that asks for less: it holds what that one asks for.
    most = lower.max_requests
    for nth in of_lower:
        for last in range(max(nth, most), min(nth + most + 1, len(slots))):
            assert slots[last] - slots[last - most] >= lower.interval_seconds * (1 + GUARD) - ROUNDING
