"""Free times as instants: read with their offsets, in chunks that leave nothing out, past ones dropped."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.availability.slots import bookable, chunks, read_slot, zone_of

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-10-28T10:00:00-05:00", "2024-10-28T15:00:00+00:00"),
        ("2024-10-28T10:00:00Z", "2024-10-28T10:00:00+00:00"),
        # without an offset it is the wall clock, before and after the change to summer time on 2026-03-08
        ("2026-03-07T09:00:00", "2026-03-07T14:00:00+00:00"),
        ("2026-03-09T09:00:00", "2026-03-09T13:00:00+00:00"),
        # an hour that is left out, and the first of one that comes twice
        ("2026-03-08T02:30:00", "2026-03-08T07:30:00+00:00"),
        ("2026-11-01T01:30:00", "2026-11-01T05:30:00+00:00"),
        # with offsets, both of the hours that read the same
        ("2026-11-01T01:30:00-04:00", "2026-11-01T05:30:00+00:00"),
        ("2026-11-01T01:30:00-05:00", "2026-11-01T06:30:00+00:00"),
        ("tomorrow", None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_a_time_is_read_with_its_offset(text: str, instant: str | None) -> None:
    expected = None if instant is None else datetime.fromisoformat(instant)
    assert read_slot(text, NEW_YORK) == expected


@pytest.mark.parametrize("name", [None, "", "Nowhere/Land", "America", "../etc/passwd", "a\x00b"])
def test_an_unknown_zone_is_utc(name: str | None) -> None:
    assert NOW.astimezone(zone_of(name)).utcoffset() == timedelta(0)


@given(days=st.integers(1, 31), hours=st.integers(0, 24 * 40), start=st.datetimes(timezones=st.just(UTC)))
def test_chunks_cover_the_whole_time_without_gap_or_overlap(days: int, hours: int, start: datetime) -> None:
    start = start.replace(year=2026)
    end = start + timedelta(hours=hours)
    pieces = list(chunks(start, end, days))
    assert all(timedelta(0) < until - since <= timedelta(days=days) for since, until in pieces)
    edges = [start, *(until for _, until in pieces)]
    assert [since for since, _ in pieces] == edges[:-1]
    assert edges[-1] == end


def test_what_is_past_or_beyond_is_dropped_and_the_rest_is_there_once_in_order() -> None:
    later = NOW + timedelta(hours=1)
    moments = [later, NOW, NOW - timedelta(seconds=1), later.astimezone(NEW_YORK), NOW + timedelta(days=30)]
    found = bookable(moments, NOW, NOW + timedelta(days=30))
    assert found == (NOW, later)
    assert all(moment.tzinfo is UTC for moment in found)
