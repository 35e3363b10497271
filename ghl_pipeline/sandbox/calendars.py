"""A location's calendars: GHL's list, single ones, and the free slots of a time.

The booking pages of a calendar are not served here; their links end in its id or its `widgetSlug`.
"""

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.free_times import MINUTES_PER_DAY, OpenHours, Schedule, answers_nothing
from ghl_pipeline.sandbox.people import ghl_id, seeded
from ghl_pipeline.sandbox.records import record
from ghl_pipeline.sandbox.responses import JsonObject, bad_request, unprocessable

LONGEST_RANGE_MS: Final = 31 * 86_400_000
_LIST_PARAMETERS: Final = ("locationId", "groupId", "showDrafted")
_SLOT_PARAMETERS: Final = ("startDate", "endDate", "timezone", "userId", "userIds")
_SCHEDULE_FIELDS: Final = frozenset(Schedule.__struct_fields__)

CalendarType = Literal["round_robin", "event", "class_booking", "collective", "service_booking", "personal"]


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """One calendar. An inactive one is a draft: its page books nothing."""

    id: str
    name: str
    slug: str
    widget_slug: str
    time_zone: str
    is_active: bool = True
    calendar_type: CalendarType = "round_robin"
    widget_type: Literal["default", "classic"] = "classic"
    group_id: str | None = None
    schedule: Schedule = Schedule()


class Calendars:
    """The calendars of one location, in the order in which they were added. `now` gives epoch milliseconds."""

    def __init__(self, location_id: str, time_zone: str, now: Callable[[], int], lock: threading.RLock) -> None:
        self._rng = seeded("calendars", location_id)
        self._time_zone = time_zone
        self.now = now
        self._lock = lock
        self.by_id: dict[str, Calendar] = {}

    def __iter__(self) -> Iterator[Calendar]:
        return iter(tuple(self.by_id.values()))

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, name: str = "Introduction", /, **fields: object) -> Calendar:
        """Adds a calendar with further fields of `Calendar` and of `Schedule`; what is not given is made.

        Raises:
            InvalidInput: a field that a calendar does not have, or a value of the wrong type.
        """
        with self._lock:
            name = str(fields.get("name", name))
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            made = {"id": ghl_id(self._rng), "name": name, "slug": slug, "time_zone": self._time_zone}
            made["widget_slug"] = str(fields.get("slug", slug))
            return self._save(Schedule(), {**made, **fields})

    def change(self, calendar_id: str, **fields: object) -> Calendar:
        """Changes fields of a calendar or of its schedule, such as `widget_slug` when its link moves.

        Raises:
            InvalidInput: no such calendar, or fields as in `add`.
        """
        with self._lock:
            calendar = self._known(calendar_id)
            return self._save(calendar.schedule, {**msgspec.structs.asdict(calendar), **fields})

    def book(self, calendar_id: str, at: datetime) -> None:
        """Takes a time, so that it is no longer free.

        Raises:
            InvalidInput: no such calendar.
        """
        with self._lock:
            taken = self._known(calendar_id).schedule.taken | {int(at.timestamp())}
            self.change(calendar_id, taken=taken)

    def remove(self, calendar_id: str) -> bool:
        """Deletes a calendar; False when there was none."""
        with self._lock:
            return self.by_id.pop(calendar_id, None) is not None

    def free(self, calendar_id: str, start: datetime, end: datetime) -> list[datetime]:
        """The free times of a calendar between two moments, both included, whatever faults are set.

        Raises:
            InvalidInput: no such calendar.
        """
        calendar = self._known(calendar_id)
        zone = ZoneInfo(calendar.time_zone)
        return calendar.schedule.free(zone, start.timestamp(), end.timestamp(), self.now() / 1000)

    def _known(self, calendar_id: str) -> Calendar:
        calendar = self.by_id.get(calendar_id)
        if calendar is None:
            raise InvalidInput(f"The location has no calendar {calendar_id[:64]}.")
        return calendar

    def _save(self, schedule: Schedule, fields: Mapping[str, object]) -> Calendar:
        when = {name: value for name, value in fields.items() if name in _SCHEDULE_FIELDS}
        if when:
            schedule = record(Schedule, {**msgspec.structs.asdict(schedule), **when}, "a schedule")
        rest = {name: value for name, value in fields.items() if name not in _SCHEDULE_FIELDS}
        calendar = record(
            Calendar, {"schedule": schedule, **rest} | ({"schedule": schedule} if when else {}), "a calendar"
        )
        if calendar.time_zone not in available_timezones():
            raise InvalidInput("A calendar's time zone is one of the IANA names, such as America/New_York.")
        self.by_id[calendar.id] = calendar
        return calendar


# --- what GHL answers


def calendar_list(calendars: Calendars, location_id: str, query: Mapping[str, str]) -> JsonObject:
    """All calendars of the location; drafts too, unless `showDrafted` is false.

    Raises:
        Refusal: 422 for parameters that GHL does not document.
    """
    _check_names(query, _LIST_PARAMETERS)
    drafts = query.get("showDrafted", "true").lower() != "false"
    group = query.get("groupId")
    shown = [each for each in calendars if (drafts or each.is_active) and (group is None or each.group_id == group)]
    return {"calendars": [calendar_item(each, location_id) for each in shown]}


def calendar_answer(calendars: Calendars, location_id: str, calendar_id: str) -> JsonObject:
    """One calendar.

    Raises:
        Refusal: 400 when there is none; the text of GHL's is not known.
    """
    return {"calendar": calendar_item(_found(calendars, calendar_id), location_id)}


def free_slots(
    calendars: Calendars, calendar_id: str, query: Mapping[str, str], *, empty: Collection[str] = ()
) -> JsonObject:
    """The free times by day of the calendar's zone, or of `timezone`; days without any are left out.

    Args:
        calendars: of the location.
        calendar_id: of the calendar; a draft has no free times.
        query: the parameters, decoded. Times are epoch milliseconds. `userId` and `userIds` are taken and not heeded.
        empty: ids of calendars that answer as if they were full; `*` means all.

    Raises:
        Refusal: 422 for a parameter that GHL does not document, that is no number, or for more than 31 days; 400 when
            there is no such calendar.
    """
    _check_names(query, _SLOT_PARAMETERS)
    start, end = (_milliseconds(name, query.get(name)) for name in ("startDate", "endDate"))
    if end < start:
        raise unprocessable("endDate must be after startDate")
    if end - start > LONGEST_RANGE_MS:
        raise unprocessable("Date range cannot be more than 31 days")
    calendar = _found(calendars, calendar_id)
    name = query.get("timezone") or calendar.time_zone
    if name not in available_timezones():
        raise unprocessable("timezone must be a valid IANA time zone")
    if not calendar.is_active or answers_nothing(calendar_id, empty):
        return {}
    moments = calendar.schedule.free(ZoneInfo(calendar.time_zone), start / 1000, end / 1000, calendars.now() / 1000)
    days: dict[str, list[str]] = {}
    for moment in (each.astimezone(ZoneInfo(name)) for each in moments):
        days.setdefault(moment.date().isoformat(), []).append(moment.isoformat(timespec="seconds"))
    return {day: {"slots": slots} for day, slots in days.items()}


def calendar_item(calendar: Calendar, location_id: str) -> JsonObject:
    """A calendar as the list and GET show it. Its zone is not shown: the offsets of its slots alone tell it."""
    schedule = calendar.schedule
    item: JsonObject = {
        "id": calendar.id,
        "locationId": location_id,
        "name": calendar.name,
        "description": "",
        "slug": calendar.slug,
        "widgetSlug": calendar.widget_slug,
        "widgetType": calendar.widget_type,
        "calendarType": calendar.calendar_type,
        "isActive": calendar.is_active,
        "eventTitle": "{{contact.name}}",
        "eventColor": "#039be5",
        "teamMembers": [],
        "slotDuration": schedule.minutes,
        "slotDurationUnit": "mins",
        "slotInterval": schedule.every,
        "slotIntervalUnit": "mins",
        "slotBuffer": 0,
        "appoinmentPerSlot": 1,  # GHL's spelling
        "openHours": [_open_hours(each) for each in schedule.hours],
        "autoConfirm": True,
        "allowReschedule": True,
        "allowCancellation": True,
        "availabilityType": 0,
        "availabilities": [],
    }
    if calendar.group_id is not None:
        item["groupId"] = calendar.group_id
    if schedule.days_ahead is not None:
        item |= {"allowBookingFor": schedule.days_ahead, "allowBookingForUnit": "days"}
    return item


def _open_hours(hours: OpenHours) -> JsonObject:
    closes = min(hours.closes, MINUTES_PER_DAY - 1)  # GHL's day ends at 23:59
    return {
        "daysOfTheWeek": [(day + 1) % 7 for day in hours.days],  # Sunday is 0
        "hours": [
            {
                "openHour": hours.opens // 60,
                "openMinute": hours.opens % 60,
                "closeHour": closes // 60,
                "closeMinute": closes % 60,
            }
        ],
    }


def _found(calendars: Calendars, calendar_id: str) -> Calendar:
    calendar = calendars.by_id.get(calendar_id)
    if calendar is None:
        raise bad_request("Calendar not found")
    return calendar


def _check_names(query: Mapping[str, str], known: Collection[str]) -> None:
    unknown = [name for name in query if name not in known]
    if unknown:
        raise unprocessable(*(f"property {name[:75]} should not exist" for name in unknown))


def _milliseconds(name: str, text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise unprocessable(f"{name} must be a number conforming to the specified constraints") from None
