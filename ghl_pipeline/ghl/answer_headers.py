"""What the headers of a GHL answer say of the location's limits, and of GHL's clock. Pure.

The names are those of GHL's OAuth document; any of them may be missing, and other values than whole numbers count as
missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """One answer's headers, as far as they can be read; None where GHL did not say it.

    Attributes:
        max_requests: requests that GHL allows in an interval.
        interval_seconds: how long that interval is.
        max_per_day: requests that GHL allows in a day.
        left_today: how many of these are left.
        clock_behind_seconds: how far this machine's clock is behind GHL's; GHL's `Date` is cut to whole seconds.
    """

    max_requests: int | None = None
    interval_seconds: float | None = None
    max_per_day: int | None = None
    left_today: int | None = None
    clock_behind_seconds: float | None = None


def read_headers(headers: Mapping[str, str], received_at: datetime) -> AnswerHeaders:
    """Reads the headers of an answer that came at `received_at`. Raises nothing."""
    interval = _whole(headers.get("X-RateLimit-Interval-Milliseconds"))
    return AnswerHeaders(
        max_requests=_whole(headers.get("X-RateLimit-Max")),
        interval_seconds=None if interval is None else interval / 1000,
        max_per_day=_whole(headers.get("X-RateLimit-Limit-Daily")),
        left_today=_whole(headers.get("X-RateLimit-Daily-Remaining")),
        clock_behind_seconds=_clock_behind(headers.get("Date"), received_at),
    )


def _whole(value: str | None) -> int | None:
    text = (value or "").strip()
    # Longer ones are no count of requests, and Python refuses to read those of thousands of digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


def _clock_behind(value: str | None, received_at: datetime) -> float | None:
    if value is None:
        return None
    try:
        said = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return ((said if said.tzinfo else said.replace(tzinfo=UTC)) - received_at).total_seconds()
