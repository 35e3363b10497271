"""Free times as instants: over which time they are asked for, in which chunks, and how they are read. Pure."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

HORIZON = timedelta(days=30)


def chunks(start: datetime, end: datetime, days: int) -> Iterator[tuple[datetime, datetime]]:
    """The time from `start` to `end` in pieces of at most so many days of 24 hours; they touch and do not overlap."""
    step = timedelta(days=days)
    while start < end:
        yield start, min(start + step, end)
        start += step


def zone_of(name: str | None) -> tzinfo:
    """The time zone of this IANA name; UTC for one that is unknown."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):  # unknown; a path or a NUL; a folder such as "America"
        return UTC


def read_slot(text: str, zone: tzinfo) -> datetime | None:
    """An ISO 8601 time as an instant, aware, UTC; None when it is none.

    One without an offset is the calendar's wall clock. An hour that comes twice, in autumn, is then taken for the
    first; one that a spring day lacks is the instant that GHL's own libraries make of it, an hour later on the clock.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        aware = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def bookable(moments: Iterable[datetime], start: datetime, end: datetime) -> tuple[datetime, ...]:
    """The moments from `start` on and before `end`, each once, in order. What is past is no free time."""
    return tuple(sorted({moment.astimezone(UTC) for moment in moments if start <= moment < end}))
