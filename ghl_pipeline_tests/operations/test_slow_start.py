"""How many are asked at a time when many failed at once."""

from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.operations.slow_start import (
    FIRST_ROUND,
    LOST_AFTER_SECONDS,
    MANY,
    SECONDS_AFTER_FAILURE,
    Round,
    next_round,
)


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    asked = draw(st.integers(1, 2000))
    good = draw(st.integers(0, asked))
    bad = draw(st.integers(0, asked - good))
    return Round(asked, good, bad, draw(st.floats(0, 2 * LOST_AFTER_SECONDS)), draw(st.integers(0, 2000)))


def test_it_begins_with_a_few() -> None:
    assert next_round(None) == FIRST_ROUND


@given(rounds())
def test_a_round_is_never_more_than_four_times_the_one_before(latest: Round) -> None:
    assert 0 <= next_round(latest) <= max(FIRST_ROUND, 4 * latest.asked)


@given(rounds())
def test_after_a_round_that_failed_at_most_the_first_few_are_asked_and_not_within_the_minute(latest: Round) -> None:
    if latest.bad >= latest.good and latest.bad:
        assert next_round(latest) <= FIRST_ROUND
        if latest.seconds < SECONDS_AFTER_FAILURE:
            assert next_round(latest) == 0


@given(rounds())
def test_the_others_wait_while_most_of_a_round_is_under_way_but_not_for_ever(latest: Round) -> None:
    if latest.is_open:
        assert (next_round(latest) == 0) == (
            latest.seconds < LOST_AFTER_SECONDS
            or (latest.bad >= latest.good and latest.bad > 0 and latest.seconds < SECONDS_AFTER_FAILURE)
        )


@given(rounds())
def test_locations_that_begin_to_fail_meanwhile_are_no_good_news(latest: Round) -> None:
    if latest.newly_failing > MANY:
        assert next_round(latest) <= FIRST_ROUND


def test_a_thousand_are_back_within_six_rounds_that_go_well() -> None:
    asked, size = 0, next_round(None)
    for _ in range(6):
        asked += size
        size = next_round(Round(size, good=size, bad=0, seconds=30))
    assert asked >= 1000


def test_an_outage_is_looked_at_by_one_location_a_minute_in_the_end() -> None:
    sizes = [FIRST_ROUND]
    for _ in range(4):
        sizes.append(next_round(Round(sizes[-1], good=0, bad=sizes[-1], seconds=61)))
    assert sizes == [5, 2, 1, 1, 1]
