"""Calendars of a location and their free times, as HighLevel's OpenAPI document of calendars has them.

Undocumented, and seen: a `traceId` beside the days of the free times; days without any are left out.
"""

import re
from dataclasses import dataclass

import msgspec

from ghl_pipeline.ghl.json_text import read_json
from ghl_pipeline.ghl.payloads import Scalar, clean_text

# The version that the document of calendars names; that of contacts is another.
CALENDARS_VERSION = "2021-04-15"
CALENDARS_ROUTE = "/calendars/"
# More is refused with 422.
MOST_SLOT_DAYS = 31

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar that leads can book in.

    Attributes:
        id: GHL's.
        location_id: whose it is; None when GHL does not say it.
        slug: the last part of its own page.
        widget_slug: the last part of the page of its widget.
        is_active: whether it can be booked; a calendar of which GHL says nothing can.
    """

    id: str
    location_id: str | None = None
    slug: str | None = None
    widget_slug: str | None = None
    is_active: bool = True

    def is_called(self, name: str) -> bool:
        """Whether `name` is one of its slugs, in any case."""
        return name.casefold() in {slug.casefold() for slug in (self.slug, self.widget_slug) if slug}


class _WireCalendar(msgspec.Struct, rename="camel"):
    id: Scalar = None
    location_id: Scalar = None
    slug: Scalar = None
    widget_slug: Scalar = None
    is_active: Scalar = None


class _WireCalendars(msgspec.Struct):
    calendars: list[_WireCalendar]


class _WireOneCalendar(msgspec.Struct):
    calendar: _WireCalendar


class _WireDay(msgspec.Struct):
    slots: list[str]


_calendars_decoder = msgspec.json.Decoder(_WireCalendars)
_calendar_decoder = msgspec.json.Decoder(_WireOneCalendar)
_days_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_day_decoder = msgspec.json.Decoder(_WireDay)


def decode_calendars(body: bytes) -> tuple[Calendar, ...]:
    """Reads an answer of `GET /calendars/`. Raises msgspec.DecodeError when it is something else."""
    wire = read_json(_calendars_decoder, body).calendars
    return tuple(calendar for each in wire if (calendar := _calendar(each)) is not None)


def decode_calendar(body: bytes) -> Calendar:
    """Reads an answer of `GET /calendars/{id}`. Raises msgspec.DecodeError when it is something else."""
    calendar = _calendar(read_json(_calendar_decoder, body).calendar)
    if calendar is None:
        raise msgspec.DecodeError("a calendar without an id")
    return calendar


def decode_free_slots(body: bytes) -> tuple[str, ...]:
    """Reads an answer of `GET /calendars/{id}/free-slots`: its times in their order, as they are written.

    Raises:
        msgspec.DecodeError: it is something else. One broken day spoils all of it: a time that is left out would be
            taken for one that is not free.
    """
    days = read_json(_days_decoder, body)
    return tuple(
        slot for day in sorted(filter(_DAY.fullmatch, days)) for slot in read_json(_day_decoder, days[day]).slots
    )


def _calendar(wire: _WireCalendar) -> Calendar | None:
    id_ = clean_text(wire.id)
    if id_ is None:
        return None
    return Calendar(
        id_,
        clean_text(wire.location_id),
        clean_text(wire.slug),
        clean_text(wire.widget_slug),
        is_active=wire.is_active is not False,
    )
