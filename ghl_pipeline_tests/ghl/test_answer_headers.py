"""The headers of an answer: limits and the time of day, where they can be read."""

from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.answer_headers import AnswerHeaders, read_headers
from ghl_pipeline.ghl.errors import TokenRejected
from ghl_pipeline.ghl.search import ContactSearch
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.ghl.conftest import Connector

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
NAMES = (
    "X-RateLimit-Max",
    "X-RateLimit-Interval-Milliseconds",
    "X-RateLimit-Limit-Daily",
    "X-RateLimit-Daily-Remaining",
    "Date",
)


def test_the_five_that_are_read() -> None:
    values = ("25", "10000", "10000", " 9876 ", "Sat, 31 Jan 2026 12:02:05 GMT")
    headers = httpx.Headers(dict(zip(NAMES, values, strict=True)))
    assert read_headers(headers, NOON) == AnswerHeaders(25, 10.0, 10_000, 9876, 125.0)


@pytest.mark.parametrize(
    ("date", "behind"),
    [
        ("Sat, 31 Jan 2026 11:00:00 GMT", -3600.0),
        ("Sat, 31 Jan 2026 13:00:00 +0100", 0.0),
        ("Sat, 31 Jan 2026 12:00:00 -0000", 0.0),
        ("yesterday", None),
        ("", None),
        ("Sat, 31 Jan 99999 12:00:00 GMT", None),
    ],
)
def test_how_far_this_machine_is_behind(date: str, behind: float | None) -> None:
    assert read_headers({"Date": date}, NOON).clock_behind_seconds == behind


@pytest.mark.parametrize("value", ["", "unlimited", "-1", "1e3", "²", "9" * 5000])
def test_what_is_no_whole_number_counts_as_missing(value: str) -> None:
    assert read_headers(dict.fromkeys(NAMES, value), NOON) == AnswerHeaders()


@given(st.dictionaries(st.sampled_from(NAMES), st.text()))
def test_no_header_breaks_the_reading(headers: dict[str, str]) -> None:
    read_headers(headers, NOON)


async def test_a_client_keeps_what_the_last_answer_said_also_of_a_refusal(sandbox: Sandbox, connect: Connector) -> None:
    location: Location = sandbox.add_location(requests=25, requests_per_day=10_000)
    assert (await connect(location)).heard is None
    client = await connect(location)
    await client.search_contacts(ContactSearch())
    assert client.heard is not None
    assert (client.heard.max_requests, client.heard.max_per_day, client.heard.left_today) == (25, 10_000, 9999)
    assert client.heard.clock_behind_seconds is not None
    assert abs(client.heard.clock_behind_seconds) < 60, "the sandbox is on this machine"
    sandbox.faults(token_revoked=True)
    with pytest.raises(TokenRejected):
        await client.search_contacts(ContactSearch())
    assert client.heard.left_today == 9998
