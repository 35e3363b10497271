"""The limits: a window that truly slides, a day, headers that tell the truth."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.sandbox.limits import SECONDS_PER_DAY, Limits, RateLimiter
from ghl_pipeline.sandbox.statistics import PeakRate
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller

NOON = 20_000.5 * SECONDS_PER_DAY


def test_a_slot_is_free_again_exactly_one_interval_later() -> None:
    limiter = RateLimiter(Limits(requests=2, interval_seconds=10))
    assert [limiter.admit(NOON + at) for at in (0, 4, 9.999, 10, 13.999, 14)] == [True, True, False, True, False, True]


def test_a_full_bucket_at_the_edge_of_a_fixed_window_is_refused() -> None:
    """Hundred at second 9 and hundred at second 11 pass a fixed window; here the second hundred must wait."""
    limiter = RateLimiter(Limits())
    assert sum(limiter.admit(NOON + 9) for _ in range(150)) == 100
    assert sum(limiter.admit(NOON + 11) for _ in range(100)) == 0
    assert sum(limiter.admit(NOON + 19) for _ in range(150)) == 100


def test_a_refused_request_uses_no_slot_and_no_part_of_the_day() -> None:
    limiter = RateLimiter(Limits(requests=1, interval_seconds=10, requests_per_day=3))
    for at in (0, 1, 2, 9):
        limiter.admit(NOON + at)
    assert limiter.headers(NOON + 9)["X-RateLimit-Daily-Remaining"] == "2"
    assert limiter.admit(NOON + 10)


def test_the_day_ends_at_midnight_utc() -> None:
    limiter = RateLimiter(Limits(requests=100, requests_per_day=2))
    evening = 20_001 * SECONDS_PER_DAY - 1
    assert [limiter.admit(evening) for _ in range(3)] == [True, True, False]
    assert limiter.headers(evening)["X-RateLimit-Daily-Remaining"] == "0"
    assert limiter.admit(evening + 1)


@given(
    gaps=st.lists(st.integers(0, 8), max_size=60),
    requests=st.integers(1, 5),
    interval=st.integers(1, 10),
)
def test_no_window_of_any_position_holds_more_than_the_limit(gaps: list[int], requests: int, interval: int) -> None:
    limiter, peak = RateLimiter(Limits(requests, interval)), PeakRate(interval)
    now, admitted = 1_000, []
    for gap in gaps:
        now += gap
        if limiter.admit(now):
            admitted.append(now)
            peak.add(now)
    fullest = max(
        (sum(start <= at < start + interval for at in admitted) for start in range(1_000 - interval, now + 1)),
        default=0,
    )
    assert fullest <= requests
    assert peak.highest == fullest


async def test_every_answer_carries_the_five_headers(sandbox: Sandbox, caller_of: Callable[[Location], Caller]) -> None:
    caller = caller_of(sandbox.add_location(requests=25, requests_per_day=10_000, time_scale=0.5))
    for expected, response in (
        (200, await caller.search()),
        (400, await caller.http.get("/contacts/unknownContact123456")),
        (404, await caller.http.get("/no/such/route")),
    ):
        assert response.status_code == expected
        assert response.headers["X-RateLimit-Max"] == "25"
        assert response.headers["X-RateLimit-Interval-Milliseconds"] == "5000"
        assert response.headers["X-RateLimit-Limit-Daily"] == "10000"
    assert response.headers["X-RateLimit-Remaining"] == "22"
    assert response.headers["X-RateLimit-Daily-Remaining"] == "9997"


async def test_the_request_beyond_the_limit_is_told_429(
    sandbox: Sandbox, caller_of: Callable[[Location], Caller]
) -> None:
    location, other = sandbox.add_location(requests=3), sandbox.add_location(requests=3)
    caller = caller_of(location)
    statuses = [(await caller.search()).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert (await caller_of(other).search()).status_code == 200
    assert sandbox.stats(location.id)["refused_429"] == 2
    assert sandbox.stats(location.id)["highest_in_window"] == 3
    last = await caller.search()
    assert "Retry-After" not in last.headers
    assert last.headers["X-RateLimit-Remaining"] == "0"


async def test_the_daily_end_shows_in_the_header(sandbox: Sandbox, caller_of: Callable[[Location], Caller]) -> None:
    caller = caller_of(sandbox.add_location(requests_per_day=2))
    responses = [await caller.search() for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[-1].headers["X-RateLimit-Daily-Remaining"] == "0"
    assert int(responses[-1].headers["X-RateLimit-Remaining"]) > 0
