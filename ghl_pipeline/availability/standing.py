"""Clients whose free times are old, or wait for somebody, as the database has it: for the checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, TextClause, text

from ghl_pipeline.availability.outcomes import NEEDS_SOMEBODY


@dataclass(frozen=True, slots=True)
class Standing:
    """A client's calendar. `reason` as stored; `since`: as of when its free times are, None when they never were."""

    location_id: str
    reason: str
    since: datetime | None = None


def calendars_in_use(connection: Connection) -> int:
    """How many active clients have a link or a calendar."""
    query = text(f"SELECT count(*) {_IN_USE}")
    return int(connection.execute(query).scalar_one())


def older_than(connection: Connection, age: timedelta) -> list[Standing]:
    """Those whose free times are older than that, for whatever reason, the oldest first.

    Also a calendar that is always left to others, or that was never reached: nothing says so but its age. One that
    never had any counts from when the client was given it; one whose link is unsupported has none to be old.
    """
    query = text(f"""
        SELECT client.location_id, calendar.reason, calendar.refreshed_at {_IN_USE}
          AND calendar.state <> 'unsupported'
          AND coalesce(calendar.refreshed_at, calendar.created_at) < now() - CAST(:age AS interval)
        ORDER BY coalesce(calendar.refreshed_at, calendar.created_at), client.id
    """)
    return _standings(connection, query, {"age": age})


def waiting_for_somebody(connection: Connection) -> list[Standing]:
    """Those that no later run makes well before a person has acted, by client; without the unsupported ones."""
    query = text(f"""
        SELECT client.location_id, calendar.reason, calendar.refreshed_at {_IN_USE}
          AND calendar.state <> 'unsupported' AND calendar.reason = ANY(CAST(:reasons AS text[]))
        ORDER BY client.id
    """)
    return _standings(connection, query, {"reasons": sorted(NEEDS_SOMEBODY)})


def unsupported(connection: Connection) -> list[Standing]:
    """Those whose link leads to no calendar that can be asked, by client."""
    query = text(f"""
        SELECT client.location_id, calendar.reason, calendar.refreshed_at {_IN_USE}
          AND calendar.state = 'unsupported' ORDER BY client.id
    """)
    return _standings(connection, query, {})


def _standings(connection: Connection, query: TextClause, values: Mapping[str, object]) -> list[Standing]:
    rows = connection.execute(query, values)
    return [Standing(row.location_id, row.reason or "", row.refreshed_at) for row in rows]


_IN_USE = """
    FROM clients AS client JOIN booking_calendars AS calendar ON calendar.client_id = client.id
    WHERE client.active AND (btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)
"""
