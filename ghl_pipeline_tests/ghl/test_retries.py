"""What is tried again, how often and for how long; and what everybody does after a refusal for the rate."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from ghl_pipeline.ghl.calls import retry_after_seconds
from ghl_pipeline.ghl.errors import (
    CallFacts,
    ContactNotFound,
    DailyQuotaReached,
    GhlError,
    GhlServerError,
    GhlTimeout,
    GhlUnreachable,
    RateLimited,
    RequestRejected,
    SearchContextLost,
    TokenRejected,
    UnreadableAnswer,
)
from ghl_pipeline.ghl.retries import LONGEST_PAUSE_SECONDS, CallBudget, RetryPolicy, call_with_retries
from ghl_pipeline.ghl.search import ContactSearch
from ghl_pipeline.ghl.throttle import Limits, LocationThrottle
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import QUICK, Connector, Unlimited

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERYBODY = ContactSearch()


# --- Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("100000000000", 86_400.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Sun, 01 Mar 2026 13:00:00 +0100", 0.0),
        ("Sun, 01 Mar 2099 12:00:00 GMT", 86_400.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("Sun, 32 Mar 2026 99:00:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


date_like = st.builds(
    "{}, {} {} {} {}:00:00 {}".format,
    st.sampled_from(["Sun", "", "x"]), st.integers(-1, 99), st.sampled_from(["Mar", "x"]), st.integers(-1, 99_999),
    st.integers(-1, 99), st.sampled_from(["GMT", "-0000", "+9999", "-99999999999", ""]),
)  # fmt: skip


@settings(deadline=None)
@given(header=st.text(max_size=40) | st.floats().map(str) | st.integers().map(str) | date_like)
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_any_retry_after_is_a_pause_or_none(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or 0 <= seconds <= 86_400


# --- what is tried again


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"error_rate": 1.0, "error_status": 503}, GhlServerError),
        ({"drop_rate": 1.0}, GhlUnreachable),
        ({"garbage_rate": 1.0}, UnreadableAnswer),
        ({"hang_rate": 1.0, "hang_seconds": 30.0}, GhlTimeout),
    ],
)
async def test_a_mishap_that_passes_is_not_noticed_and_one_that_stays_ends_as_itself(
    sandbox: Sandbox, location: Location, connect: Connector, faults: dict[str, object], error: type[GhlError]
) -> None:
    location.add(email="ada@example.com")
    client = await connect(location, timeout=0.25)
    sandbox.faults(location.id, **faults, times=2)
    assert len((await client.search_contacts(EVERYBODY)).contacts) == 1
    assert client.usage.calls == 3

    sandbox.faults(location.id, **faults)
    with pytest.raises(error) as raised:
        await client.search_contacts(EVERYBODY)
    assert type(raised.value) is error
    assert client.usage.calls == 3 + QUICK.max_attempts


async def test_a_lost_search_context_is_given_time_to_come_back(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    sandbox.faults(location.id, search_context_rate=1.0, search_context_status=400, times=1)
    client = await connect(location)
    started = time.monotonic()
    await client.search_contacts(EVERYBODY)
    assert time.monotonic() - started >= 2
    assert client.usage.calls == 2


async def test_a_server_that_is_not_there_is_unreachable(location: Location, connect: Connector) -> None:
    for url in ("http://127.0.0.1:9", "nonsense"):
        client = await connect(location, url=url)
        with pytest.raises(GhlUnreachable, match="Check GHL_API_URL"):
            await client.search_contacts(EVERYBODY)
        assert client.usage.calls == QUICK.max_attempts


async def test_an_answer_that_trickles_is_a_timeout(location: Location, connect: Connector) -> None:
    """Each byte comes in time, the answer never does; a timeout between bytes would wait for ever."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        once = RetryPolicy(max_attempts=1)
        client = await connect(location, url=f"http://127.0.0.1:{port}", timeout=0.2, policy=once)
        started = time.monotonic()
        with pytest.raises(GhlTimeout):
            await client.search_contacts(EVERYBODY)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("faults", "error"),
    [({"token_revoked": True}, TokenRejected), ({"max_or_leaves": 1, "or_refusal_status": 422}, RequestRejected)],
)
async def test_what_will_not_change_is_asked_once(
    sandbox: Sandbox, location: Location, connect: Connector, faults: dict[str, object], error: type[GhlError]
) -> None:
    sandbox.faults(location.id, **faults)
    client = await connect(location)
    group: dict[str, object] = {"group": "OR", "filters": [{"field": "id", "operator": "eq", "value": v} for v in "ab"]}
    with pytest.raises(error):
        await client.search_contacts(ContactSearch((group,)))
    assert client.usage.calls == 1


# --- how long


async def test_the_deadline_ends_a_call_that_has_attempts_left(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    sandbox.faults(location.id, hang_rate=1.0, hang_seconds=30.0)
    policy = RetryPolicy(max_attempts=50, deadline_seconds=0.7, first_pause_seconds=0.01)
    client = await connect(location, timeout=0.3, policy=policy)
    started = time.monotonic()
    with pytest.raises(GhlTimeout):
        await client.search_contacts(EVERYBODY)
    assert time.monotonic() - started < 2
    assert client.usage.calls <= 5


async def test_no_attempt_is_made_when_the_pause_before_it_would_end_at_the_deadline() -> None:
    attempts = 0

    async def attempt(_: CallBudget) -> None:
        nonlocal attempts
        attempts += 1
        raise GhlServerError(CallFacts("L", "GET", "/", 503, retry_after=30))

    started = time.monotonic()
    with pytest.raises(GhlServerError):
        await call_with_retries(RetryPolicy(deadline_seconds=5), attempt)
    assert attempts == 1
    assert time.monotonic() - started < 1


async def test_time_waited_on_the_limit_is_not_held_against_the_call(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    class Slow(Unlimited):
        async def sent(self, at: float) -> None:
            """Has no slot to move."""

        async def acquire(self, facts: CallFacts) -> float:
            await asyncio.sleep(0.3)
            return 0.3 + await super().acquire(facts)

    sandbox.faults(location.id, error_rate=1.0, times=3)
    policy = RetryPolicy(max_attempts=4, deadline_seconds=0.6, first_pause_seconds=0.001)
    client = await connect(location, Slow(), policy=policy)
    await client.search_contacts(EVERYBODY)
    assert client.usage.calls == 4
    assert client.usage.waited_seconds == pytest.approx(1.2)


async def test_the_waits_of_calls_side_by_side_add_up(location: Location, connect: Connector) -> None:
    class Slow(Unlimited):
        async def sent(self, at: float) -> None:
            """Has no slot to move."""

        async def acquire(self, facts: CallFacts) -> float:
            await asyncio.sleep(0.05)
            return 0.05

    client = await connect(location, Slow())
    await asyncio.gather(*(client.search_contacts(EVERYBODY) for _ in range(10)))
    assert client.usage.waited_seconds == pytest.approx(0.5)


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_are_bounded_and_pauses_grow(attempts: int) -> None:
    made: list[float] = []

    async def attempt(budget: CallBudget) -> None:
        made.append(budget.remaining_seconds())
        raise GhlServerError(CallFacts("L", "GET", "/", 500))

    with pytest.raises(GhlServerError):
        await call_with_retries(RetryPolicy(max_attempts=attempts, first_pause_seconds=0.02), attempt)
    assert len(made) == attempts
    for nth, (before, after) in enumerate(pairwise(made)):
        assert 0 <= before - after <= 0.02 * 2**nth


async def test_a_pause_is_drawn_from_the_whole_of_its_range() -> None:
    pauses = []
    for _ in range(200):
        left: list[float] = []

        async def attempt(budget: CallBudget, left: list[float] = left) -> None:
            left.append(budget.remaining_seconds())
            raise GhlServerError(CallFacts("L", "GET", "/", 500))

        with pytest.raises(GhlServerError):
            await call_with_retries(RetryPolicy(max_attempts=2, first_pause_seconds=0.002), attempt)
        pauses.append(left[0] - left[1])
    assert min(pauses) < 0.0005
    assert 0.0015 < max(pauses) <= 0.002


async def test_retry_after_is_the_least_pause_of_a_server_error() -> None:
    made: list[float] = []

    async def attempt(_: CallBudget) -> str:
        made.append(time.monotonic())
        if len(made) == 1:
            raise GhlServerError(CallFacts("L", "GET", "/", 503, retry_after=0.2))
        return "done"

    assert await call_with_retries(QUICK, attempt) == "done"
    assert made[1] - made[0] >= 0.2


@pytest.mark.parametrize("error", [ContactNotFound, TokenRejected, SearchContextLost])
async def test_an_outage_announced_for_long_is_not_waited_for(error: type[GhlError]) -> None:
    attempts = 0

    async def attempt(_: CallBudget) -> None:
        nonlocal attempts
        attempts += 1
        raise error(CallFacts("L", "GET", "/", 503, retry_after=LONGEST_PAUSE_SECONDS + 1))

    with pytest.raises(error):
        await call_with_retries(QUICK, attempt)
    assert attempts == 1


# --- refusals for the rate


@pytest.mark.parametrize(
    ("retry_after", "as_date", "least", "most"),
    [(None, False, None, None), (0.4, False, 0.4, 0.4), (2.0, True, 0.5, 2.0)],
    ids=["unsaid", "seconds", "date"],
)
async def test_a_storm_that_ends_is_waited_out_and_the_throttle_is_told(
    sandbox: Sandbox, location: Location, connect: Connector,
    retry_after: float | None, as_date: bool, least: float | None, most: float | None,
) -> None:  # fmt: skip
    faults = {} if retry_after is None else {"retry_after": retry_after, "retry_after_as_date": as_date}
    sandbox.faults(location.id, storm_requests=3, **faults)
    throttle = Unlimited()
    client = await connect(location, throttle)
    await client.search_contacts(EVERYBODY)
    assert client.usage.calls == 4
    assert len(throttle.refusals) == 3
    for pause in throttle.refusals:
        assert (pause is None) is (least is None)
        if pause is not None and least is not None and most is not None:
            assert least <= pause <= most


async def test_a_storm_that_does_not_end_is_an_error(sandbox: Sandbox, location: Location, connect: Connector) -> None:
    sandbox.faults(location.id, storm_seconds=60.0, retry_after=1.0)
    client = await connect(location)
    with pytest.raises(RateLimited) as raised:
        await client.search_contacts(EVERYBODY)
    assert client.usage.calls == QUICK.max_429 + 1
    assert raised.value.facts.retry_after == 1.0


async def test_refusals_do_not_use_up_the_attempts(connect: Connector) -> None:
    answers = iter([429, 500, 429, 500, 429, 200])
    client = await connect.answered_by(lambda _: httpx.Response(next(answers), json={"contacts": []}))
    await client.search_contacts(EVERYBODY)
    assert client.usage.calls == 6


async def test_a_refusal_that_says_at_once_is_not_believed(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    sandbox.faults(location.id, storm_requests=1, retry_after=0.0)
    throttle = Unlimited()
    await (await connect(location, throttle)).search_contacts(EVERYBODY)
    assert throttle.refusals == [None]


async def test_a_refusal_for_very_long_does_not_block_the_location_that_long(
    sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    sandbox.faults(location.id, storm_requests=1, retry_after=3600.0)
    throttle = Unlimited()
    client = await connect(location, throttle)
    with pytest.raises(RateLimited):
        await client.search_contacts(EVERYBODY)
    assert client.usage.calls == 1
    assert throttle.refusals == [LONGEST_PAUSE_SECONDS]


async def test_a_refused_call_stops_every_other_client_of_the_location(
    engine: Engine, sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    limits = Limits(max_requests=90, interval_seconds=10.0, max_per_day=1000)
    told = asyncio.Event()

    class Told(LocationThrottle):
        async def refused(self, pause_seconds: float | None) -> None:
            await super().refused(pause_seconds)
            told.set()

    first = await connect(location, Told(engine, location.id, limits))
    second = await connect(location, LocationThrottle(engine, location.id, limits))
    await second.search_contacts(EVERYBODY)
    sandbox.faults(location.id, storm_requests=1, retry_after=0.6)
    refused = asyncio.create_task(first.search_contacts(EVERYBODY))
    await told.wait()
    started = time.monotonic()
    await second.search_contacts(EVERYBODY)
    assert time.monotonic() - started >= 0.5
    await refused
    assert sandbox.stats(location.id)["refused_429"] == 1


async def test_a_day_that_is_used_up_at_ghl_ends_the_work_at_once(sandbox: Sandbox, connect: Connector) -> None:
    location = sandbox.add_location(requests_per_day=2)
    throttle = Unlimited()
    client = await connect(location, throttle)
    for _ in range(2):
        await client.search_contacts(EVERYBODY)
    with pytest.raises(DailyQuotaReached) as raised:
        await client.search_contacts(EVERYBODY)
    assert client.usage.calls == 3
    assert throttle.refusals == []
    assert raised.value.resets_at is not None
    assert timedelta(0) < raised.value.resets_at - datetime.now(UTC) <= timedelta(days=1)


async def test_a_day_that_is_used_up_by_our_own_count_sends_nothing(
    engine: Engine, sandbox: Sandbox, location: Location, connect: Connector
) -> None:
    limits = Limits(max_requests=90, interval_seconds=10.0, max_per_day=2)
    client = await connect(location, LocationThrottle(engine, location.id, limits))
    for _ in range(2):
        await client.search_contacts(EVERYBODY)
    with pytest.raises(DailyQuotaReached):
        await client.search_contacts(EVERYBODY)
    assert client.usage.calls == sandbox.stats(location.id)["requests"] == 2
