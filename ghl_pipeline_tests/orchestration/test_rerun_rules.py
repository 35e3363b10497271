"""When a location is asked for again: the rules, as properties."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.ghl.errors import (
    CallFacts,
    DailyQuotaReached,
    GhlServerError,
    RequestRejected,
    ScopeMissing,
    TokenRejected,
)
from ghl_pipeline.hydration.location_work import LookupsFailed
from ghl_pipeline.orchestration.failures import FailedLocation, describe_failure
from ghl_pipeline.orchestration.rerun_rules import (
    FEW_TRIES,
    HELD_AT_ONCE,
    ONCE_A_DAY,
    REFUSALS,
    Cause,
    RerunRules,
    next_rerun,
    spread,
)
from ghl_pipeline.settings import Settings

RULES = RerunRules()
FACTS = CallFacts("C6HxU0gdMY76stvsY7nT", "POST", "/contacts/search")

times = st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware
shares = st.floats(0, 1, exclude_max=True)
counts = st.integers(0, 200)
causes = st.sampled_from(Cause)
before = st.none() | causes
all_rules = st.builds(
    RerunRules,
    first_pause=st.integers(1, 600).map(lambda seconds: timedelta(seconds=seconds)),
    longest_pause=st.integers(600, 86_400).map(lambda seconds: timedelta(seconds=seconds)),
    after_stop=st.integers(0, 86_400).map(lambda seconds: timedelta(seconds=seconds)),
    most=st.integers(1, 50),
)


@given(times, counts, before, shares, all_rules)
def test_what_passes_by_itself_is_always_asked_for_again_and_later(
    ended_at: datetime, reruns: int, last: Cause | None, share: float, rules: RerunRules
) -> None:
    for cause in (Cause.TRANSIENT, Cause.KILLED):
        at = next_rerun(cause, ended_at, reruns=reruns, before=last, share=share, rules=rules)
        assert at is not None
        assert rules.first_pause <= at - ended_at <= ONCE_A_DAY + 2 * rules.longest_pause


@given(times, counts, shares, all_rules)
def test_the_pause_grows_and_stays_in_its_bounds(
    ended_at: datetime, reruns: int, share: float, rules: RerunRules
) -> None:
    def pause(number: int) -> timedelta:
        at = next_rerun(Cause.TRANSIENT, ended_at, reruns=number, before=None, share=share, rules=rules)
        assert at is not None
        return at - ended_at

    assert pause(reruns) <= pause(reruns + 1) or reruns >= rules.most
    if reruns < rules.most:
        assert pause(reruns) <= 2 * rules.longest_pause
    else:
        assert pause(reruns) >= ONCE_A_DAY


@given(times, shares)
def test_the_quota_waits_for_the_reset_and_some_minutes_at_most(ended_at: datetime, share: float) -> None:
    at = next_rerun(Cause.QUOTA, ended_at, reruns=0, before=None, share=share, rules=RULES)
    assert at is not None
    assert at.date() == ended_at.date() + timedelta(days=1)
    assert at.time() < datetime(2026, 1, 1, 0, 15, tzinfo=UTC).time()


@given(times, counts, before, shares)
def test_who_waits_for_a_person_is_not_asked_for(
    ended_at: datetime, reruns: int, last: Cause | None, share: float
) -> None:
    for cause in HELD_AT_ONCE:
        assert next_rerun(cause, ended_at, reruns=reruns, before=last, share=share, rules=RULES) is None


@given(times, shares)
def test_a_stop_by_a_person_is_kept_to_for_an_hour(ended_at: datetime, share: float) -> None:
    at = next_rerun(Cause.STOPPED, ended_at, reruns=5, before=None, share=share, rules=RULES)
    assert at is not None
    assert timedelta(hours=1) <= at - ended_at <= timedelta(hours=1, minutes=10)


def test_a_bug_is_tried_a_few_times_and_then_waits_for_somebody() -> None:
    now = datetime(2026, 5, 4, 12, tzinfo=UTC)

    def at(reruns: int, last: Cause | None) -> datetime | None:
        return next_rerun(Cause.BROKEN, now, reruns=reruns, before=last, share=0, rules=RULES)

    assert [at(reruns, Cause.BROKEN) is None for reruns in range(FEW_TRIES + 1)] == [False] * FEW_TRIES + [True]
    assert at(9, Cause.TRANSIENT) is not None, "what GHL's outage used up is not held against it"


def test_two_hundred_that_fail_at_once_come_back_spread_over_the_minute_after_the_pause() -> None:
    now = datetime(2026, 5, 4, 12, tzinfo=UTC)
    seconds = []
    for number in range(200):
        share = spread(f"Location{number:012}", 1000 + number)
        at = next_rerun(Cause.TRANSIENT, now, reruns=0, before=None, share=share, rules=RULES)
        assert at is not None
        seconds.append((at - now).total_seconds())
    per_ten_seconds = [sum(begin <= each < begin + 10 for each in seconds) for begin in range(60, 120, 10)]
    assert sum(per_ten_seconds) == 200
    assert max(per_ten_seconds) <= 50
    assert min(per_ten_seconds) >= 17


@given(st.text(max_size=30), st.none() | st.integers(0))
def test_a_locations_share_is_the_same_whenever_it_is_asked_for(location: str, attempt: int | None) -> None:
    assert spread(location, attempt) == spread(location, attempt)
    assert 0 <= spread(location, attempt) < 1


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (GhlServerError(FACTS), Cause.TRANSIENT),
        (DailyQuotaReached(FACTS), Cause.QUOTA),
        (TokenRejected(FACTS), Cause.REFUSED),
        (ScopeMissing(FACTS), Cause.REFUSED),
        (RequestRejected(FACTS), Cause.BROKEN),
        (InvalidInput("No work list."), Cause.BROKEN),
        (KeyError("a bug"), Cause.BROKEN),
        (TooManyMissing("Look first."), Cause.DECISION),
        (LookupsFailed("L", [1], 9, [GhlServerError(FACTS)]), Cause.TRANSIENT),
        (LookupsFailed("L", [1], 9, [DailyQuotaReached(FACTS)]), Cause.QUOTA),
        (LookupsFailed("L", [1], 9, [RequestRejected(FACTS)]), Cause.BROKEN),
        (LookupsFailed("L", [1], 9, [RequestRejected(FACTS), GhlServerError(FACTS)]), Cause.TRANSIENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_the_cause_is_that_of_the_error_underneath(error: Exception, cause: Cause) -> None:
    assert describe_failure("C6HxU0gdMY76stvsY7nT", error).cause is cause


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_known_by_name_where_nothing_else_is_on_record(name: str) -> None:
    assert FailedLocation("L", name, "a text", permanent=True).cause is Cause.REFUSED


def test_the_settings_are_the_rules() -> None:
    settings = Settings(rerun_first_pause_seconds=5, rerun_longest_pause_seconds=50, rerun_most=3)
    rules = RerunRules.of(settings)
    assert (rules.first_pause, rules.longest_pause, rules.most) == (timedelta(seconds=5), timedelta(seconds=50), 3)
    assert RerunRules.of(Settings()) == RerunRules()
    short = Settings(rerun_first_pause_seconds=100, rerun_longest_pause_seconds=50)
    assert RerunRules.of(short).longest_pause == timedelta(seconds=100), "the longest is never shorter than the first"
