"""Clients whose free times cannot be relied on, as the database has it: for the checks."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Standing:
    """A client's calendar. `reason` as stored; `since` when it became stale, None when unsupported."""

    location_id: str
    reason: str
    since: datetime | None


def calendars_in_use(connection: Connection) -> int:
    """How many active clients have a link or a calendar."""
    query = text(f"SELECT count(*) {_IN_USE}")
    return int(connection.execute(query).scalar_one())


def stale_for(connection: Connection, longer_than: timedelta) -> list[Standing]:
    """Those whose free times have been stale for longer than that, the longest first."""
    query = text(f"""
        SELECT client.location_id, calendar.reason, calendar.stale_since {_IN_USE}
          AND calendar.state = 'stale' AND calendar.stale_since < now() - CAST(:longer_than AS interval)
        ORDER BY calendar.stale_since, client.id
    """)
    rows = connection.execute(query, {"longer_than": longer_than})
    return [Standing(row.location_id, row.reason or "", row.stale_since) for row in rows]


def unsupported(connection: Connection) -> list[Standing]:
    """Those whose link leads to no calendar that can be asked, by client."""
    query = text(f"""
        SELECT client.location_id, calendar.reason {_IN_USE} AND calendar.state = 'unsupported' ORDER BY client.id
    """)
    return [Standing(row.location_id, row.reason or "", None) for row in connection.execute(query)]


_IN_USE = """
    FROM clients AS client JOIN booking_calendars AS calendar ON calendar.client_id = client.id
    WHERE client.active AND (btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)
"""
