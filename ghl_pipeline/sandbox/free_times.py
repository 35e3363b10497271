"""When a calendar is open, and the free times that follow from it, for GHL's calendars as for Calendly's.

A wall-clock time that the change to summer time leaves out is none; one that occurs twice is offered once, the first.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import msgspec

MINUTES_PER_DAY: Final = 24 * 60
Weekday = Annotated[int, msgspec.Meta(ge=0, le=6)]
Minute = Annotated[int, msgspec.Meta(ge=0, le=MINUTES_PER_DAY)]


class OpenHours(msgspec.Struct, frozen=True, kw_only=True):
    """Open from minute to minute of the day, on the wall clock. Monday is 0."""

    days: tuple[Weekday, ...] = (0, 1, 2, 3, 4)
    opens: Minute = 9 * 60
    closes: Minute = 17 * 60


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides when a calendar is free. Its moments are epoch seconds."""

    hours: tuple[OpenHours, ...] = (OpenHours(),)
    minutes: Annotated[int, msgspec.Meta(ge=1)] = 30
    """How long an appointment is."""
    every: Annotated[int, msgspec.Meta(ge=1)] = 30
    """Minutes from the start of one to the start of the next."""
    notice_minutes: int = 0
    days_ahead: int | None = None
    taken: frozenset[int] = frozenset()

    def free(self, zone: ZoneInfo, start: float, end: float, now: float) -> list[datetime]:
        """The free times from `start` to `end`, both included, in the calendar's zone and in order."""
        earliest = max(start, now + 60 * self.notice_minutes)
        latest = end if self.days_ahead is None else min(end, now + 86_400 * self.days_ahead)
        if latest < earliest:
            return []
        first, last = (datetime.fromtimestamp(each, zone).date() for each in (earliest, latest))
        found = {
            moment
            for each in _days(first, last)
            for moment in self._of_day(each, zone)
            if earliest <= moment.timestamp() <= latest and int(moment.timestamp()) not in self.taken
        }
        return [moment.astimezone(zone) for moment in sorted(found)]

    def _of_day(self, day: date, zone: ZoneInfo) -> Iterable[datetime]:
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - the wall clock, whose zone follows
        for hours in self.hours:
            if day.weekday() not in hours.days:
                continue
            for minute in range(hours.opens, hours.closes - self.minutes + 1, self.every):
                wall = midnight + timedelta(minutes=minute)
                moment = wall.replace(tzinfo=zone).astimezone(UTC)
                if moment.astimezone(zone).replace(tzinfo=None) == wall:
                    yield moment


def answers_nothing(calendar_id: str, empty: Collection[str]) -> bool:
    """Whether the fault `empty_calendars` means this calendar."""
    return calendar_id in empty or "*" in empty


def _days(first: date, last: date) -> Iterable[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
