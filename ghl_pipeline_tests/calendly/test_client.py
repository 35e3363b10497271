"""The Calendly client against the sandbox: what it reads, how often it tries, and what its errors do not say."""

import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr

from ghl_pipeline.calendly.client import CalendlyClient, open_calendly
from ghl_pipeline.calendly.errors import CalendlyAccessDenied, CalendlyError, CalendlyRefused, CalendlyUnavailable
from ghl_pipeline.calendly.payloads import EventType
from ghl_pipeline.calendly.retries import RetryPolicy, read_pause
from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline_tests.calendly.conftest import QUICK
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


def span(days: float, *, after: float = 0.1) -> tuple[datetime, datetime]:
    start = datetime.now(UTC) + timedelta(days=after)
    return start, start + timedelta(days=days)


async def every(client: CalendlyClient, **whose: str) -> list[EventType]:
    return [each async for page in client.event_types(**whose) for each in page]


async def test_who_it_is_what_can_be_booked_and_when(client: CalendlyClient, host: CalendlyUser) -> None:
    intro = host.add_event_type("Intro")
    off = host.add_event_type("Off", active=False)
    account = await client.me()
    assert (account.user, account.organization, account.time_zone) == (host.uri, host.organization, host.time_zone)
    assert [(each.uri, each.is_active) for each in await every(client, user=host.uri)] == [
        (intro.uri, True), (off.uri, False),
    ]  # fmt: skip
    start, end = span(20)
    times = await client.available_times(intro.uri, start, end)
    assert list(times) == [at.astimezone(UTC) for at in host.free(intro.uuid, start, end)]
    assert all(at.tzinfo is UTC for at in times)
    assert client.calls == 3


async def test_all_pages_are_read_and_a_circle_is_noticed(
    client: CalendlyClient, host: CalendlyUser, sandbox: Sandbox
) -> None:
    for number in range(250):
        host.add_event_type(f"Type {number}")
    assert len({each.uri for each in await every(client, organization=host.organization)}) == 250
    assert client.calls == 3
    sandbox.faults(host.faults_key, pages_loop=True)
    with pytest.raises(CalendlyRefused, match="same page again"):
        await every(client, user=host.uri)


@pytest.mark.parametrize(
    ("faults", "kind", "status", "calls"),
    [
        ({"error_rate": 1.0, "error_status": 503}, CalendlyUnavailable, 503, 3),
        ({"garbage_rate": 1.0}, CalendlyUnavailable, 200, 3),
        ({"drop_rate": 1.0}, CalendlyUnavailable, None, 3),
        ({"token_revoked": True}, CalendlyAccessDenied, 401, 1),
        ({"fail_at": 1, "fail_status": 403, "fail_requests": None}, CalendlyAccessDenied, 403, 1),
        ({"fail_at": 1, "fail_status": 400, "fail_requests": None}, CalendlyRefused, 400, 1),
        # A window of a minute does not fit into this call's five seconds: no pause, and no further attempt.
        ({"storm_requests": 50}, CalendlyUnavailable, 429, 1),
        ({"storm_requests": 50, "retry_after": 0.0}, CalendlyUnavailable, 429, 3),
    ],
)
async def test_each_refusal_is_its_own_error_and_only_passing_ones_are_tried_again(
    client: CalendlyClient,
    host: CalendlyUser,
    sandbox: Sandbox,
    faults: dict[str, object],
    kind: type[CalendlyError],
    status: int | None,
    calls: int,
) -> None:
    sandbox.faults(host.faults_key, **faults)
    with pytest.raises(CalendlyError) as failed:
        await client.me()
    assert (type(failed.value), failed.value.status, client.calls) == (kind, status, calls)
    assert host.token not in str(failed.value)
    assert failed.value.__context__ is None


async def test_a_passing_trouble_is_survived(client: CalendlyClient, host: CalendlyUser, sandbox: Sandbox) -> None:
    sandbox.faults(host.faults_key, error_rate=1.0, times=2)
    assert (await client.me()).user == host.uri
    assert client.calls == 3
    sandbox.faults(host.faults_key, storm_requests=1, retry_after=1.0)
    begun = time.monotonic()
    assert (await client.me()).user == host.uri
    assert time.monotonic() - begun >= 1.0


async def test_a_hang_ends_with_the_deadline(host: CalendlyUser, sandbox: Sandbox) -> None:
    sandbox.faults(host.faults_key, hang_rate=1.0, hang_seconds=60.0)
    policy = RetryPolicy(max_attempts=10, deadline_seconds=1.0, first_pause_seconds=0.01)
    begun = time.monotonic()
    async with open_calendly(
        base_url=f"{sandbox.url}/_calendly", location_id="x", token=SecretStr(host.token), timeout_seconds=0.4,
        policy=policy,
    ) as client:  # fmt: skip
        with pytest.raises(CalendlyUnavailable) as failed:
            await client.me()
    assert failed.value.timed_out
    assert time.monotonic() - begun < 2.0
    assert client.calls <= 4


async def test_a_span_that_is_too_long_and_one_of_the_past_are_refused(
    client: CalendlyClient, host: CalendlyUser
) -> None:
    host.longest_days = 7
    intro = host.add_event_type("Intro")
    for start, end in (span(8), span(2, after=-1)):
        with pytest.raises(CalendlyRefused) as refused:
            await client.available_times(intro.uri, start, end)
        assert refused.value.status == 400
        assert intro.uuid not in str(refused.value)


@pytest.mark.parametrize("token", ["two\nlines", "naïve", ""])
async def test_a_token_that_can_be_none_is_an_error_without_it(sandbox: Sandbox, token: str) -> None:
    async with open_calendly(
        base_url=f"{sandbox.url}/_calendly", location_id="x", token=SecretStr(token), timeout_seconds=1.0, policy=QUICK
    ) as client:
        with pytest.raises(CalendlyError) as failed:
            await client.me()
    assert "lines" not in repr(failed.value)
    assert "naïve" not in repr(failed.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"collection": 5}', b'{"collection": [{"start_time": "soon"}]}', b"\xff\xfe", b"<html>"],
)
async def test_an_answer_that_is_none_is_unavailable(body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    async with open_calendly(
        base_url="https://calendly.example.com", location_id="x", token=SecretStr("t"), timeout_seconds=1.0,
        policy=QUICK, transport=transport,
    ) as client:  # fmt: skip
        with pytest.raises(CalendlyUnavailable, match="no JSON"):
            await client.available_times("https://api.calendly.com/event_types/x", *span(1))


async def test_what_is_full_or_not_available_is_no_free_time() -> None:
    rows = (
        b'{"collection": [{"status": "available", "invitees_remaining": 1, "start_time": "2026-12-01T10:00:00Z"},'
        b'{"status": "available", "start_time": "2026-12-01T11:00:00.000000Z"},'
        b'{"status": "available", "invitees_remaining": 0, "start_time": "2026-12-01T12:00:00Z"},'
        b'{"status": "unavailable", "start_time": "2026-12-01T13:00:00Z"},'
        b'{"status": "available", "start_time": "2026-12-01T09:00:00-05:00"}]}'
    )
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=rows))
    async with open_calendly(
        base_url="https://calendly.example.com", location_id="x", token=SecretStr("t"), timeout_seconds=1.0,
        transport=transport,
    ) as client:  # fmt: skip
        times = await client.available_times("https://api.calendly.com/event_types/x", *span(1))
    assert [at.hour for at in times] == [10, 11, 14]


@pytest.mark.parametrize(
    ("headers", "status", "seconds"),
    [
        ({"X-RateLimit-Reset": "17"}, 429, 17.0),
        ({"X-RateLimit-Reset": "17"}, 503, None),
        ({"Retry-After": "3", "X-RateLimit-Reset": "17"}, 429, 3.0),
        ({"Retry-After": "soon"}, 503, None),
        ({"Retry-After": "nan"}, 503, None),
        ({"Retry-After": "-4"}, 503, 0.0),
        ({}, 429, None),
    ],
)
def test_the_pause_that_is_asked_for(headers: dict[str, str], status: int, seconds: float | None) -> None:
    assert read_pause(headers, status) == seconds


async def test_no_repr_shows_the_token_or_a_link(client: CalendlyClient, host: CalendlyUser) -> None:
    host.add_event_type("Canary")
    (found,) = await every(client, user=host.uri)
    assert host.token not in repr(client)
    assert "canary" not in repr(found)
