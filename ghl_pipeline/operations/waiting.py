"""What waits to be asked for again, and what is held until somebody acts: for the sensor's log, alerts and people."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.orchestration.rerun_rules import TRIES_BY_ITSELF


@dataclass(frozen=True, slots=True)
class HeldLocation:
    """Work at a location that nobody asks for again before somebody has acted.

    `text` says what happened and what to do; `cause` is refused, decision or broken; `since` when it was held.
    """

    location_id: str
    capability: str
    cause: str
    error_class: str
    text: str
    since: datetime


@dataclass(frozen=True, slots=True)
class WaitingWork:
    """How many locations of a kind of work wait for one cause, how many of them were asked for, and the next time."""

    capability: str
    cause: str
    locations: int
    requested: int
    next_at: datetime


def held_locations(connection: Connection, *, since: datetime | None = None) -> list[HeldLocation]:
    """What is held at active clients' locations, the newest last.

    Args:
        connection: reads only.
        since: only what was held after that; None for all.
    """
    query = text("""
        SELECT location_id, capability, cause, coalesce(error_class, '') AS error_class,
               coalesce(error_text, '') AS text, ended_at
        FROM location_standings JOIN clients USING (location_id)
        WHERE cause IS NOT NULL AND rerun_at IS NULL AND state <> 'running' AND active
          AND capability <> ALL(ARRAY(SELECT json_array_elements_text(CAST(:others AS json))))
          AND (CAST(:since AS timestamptz) IS NULL OR ended_at > :since)
        ORDER BY ended_at, location_id, capability
    """)
    values = {"others": as_json_list(sorted(TRIES_BY_ITSELF)), "since": since}
    return [
        HeldLocation(row.location_id, row.capability, row.cause, row.error_class, row.text, row.ended_at)
        for row in connection.execute(query, values)
    ]


def waiting_work(connection: Connection, capabilities: Collection[str]) -> list[WaitingWork]:
    """What waits, by kind of work and cause."""
    query = text("""
        SELECT capability, cause, count(*) AS locations, min(rerun_at) AS next_at,
               count(*) FILTER (WHERE requested_at > coalesce(ended_at, '-infinity')) AS requested
        FROM location_standings JOIN clients USING (location_id)
        WHERE cause IS NOT NULL AND rerun_at IS NOT NULL AND state <> 'running' AND active
          AND capability = ANY(ARRAY(SELECT json_array_elements_text(CAST(:capabilities AS json))))
        GROUP BY capability, cause ORDER BY capability, cause
    """)
    rows = connection.execute(query, {"capabilities": as_json_list(sorted(capabilities))})
    return [WaitingWork(row.capability, row.cause, row.locations, row.requested, row.next_at) for row in rows]
