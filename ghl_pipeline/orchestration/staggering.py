"""When each location's turn comes in a rhythm, and whose turn has come.

All locations at one minute would be a storm each hour. Instead each has a place in the period, by a hash of the work
and its id: the same for ever, whoever comes or goes. A schedule looks more often than the period, and a location is due
when its latest place has passed and no attempt began since. So whatever ticks are missed, it is caught up with at the
next one; and whatever ticks are doubled, nothing is asked for twice.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.errors import LocationBusy

# Periods are counted from a Sunday's midnight, so that those of a week, a day and an hour begin where people expect it.
A_SUNDAY = datetime(2023, 1, 1, tzinfo=UTC)
# An attempt carries the database's time, a tick the daemon's; one that a tick asked for must not seem to be older.
CLOCKS_DIFFER = timedelta(minutes=1)
# Together with twice its share, so many locations may start at one tick: of 1,000 that an outage of hours made due, a
# sixth; of a few, all, because they overlap in one run.
FEW_LOCATIONS = 25


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a location's turn comes, and at which times of the period the turns are.

    Attributes:
        work: what is done, in a word; part of the hash, so that the turns of a location's works are spread too.
        period: from a location's turn to its next.
        places: at how many times of a period turns come.
        apart: the time between these; the schedule's ticks have to meet them.
        first: the first of them, from the beginning of the period.
    """

    work: str
    period: timedelta
    places: int
    apart: timedelta
    first: timedelta = timedelta()

    def latest_place(self, location_id: str, at: datetime) -> datetime:
        """The last time at or before `at` when the location's turn came."""
        offset = self.first + self.apart * (_number(f"{self.work} {location_id}") % self.places)
        return at - (at - A_SUNDAY - offset) % self.period

    def most_at_once(self, locations: int) -> int:
        """How many of so many locations may be asked for at one tick."""
        return FEW_LOCATIONS + 2 * -(-locations // self.places)

    def due(
        self,
        locations: Sequence[str],
        begun: Mapping[str, datetime],
        at: datetime,
        *,
        in_hand: Collection[str] = frozenset(),
    ) -> list[str]:
        """Whose turn has come, in the order given; of too many, those whose turn came first.

        Args:
            locations: all that there are.
            begun: when the last attempt at this work began; one that never did is due at once.
            at: now, or the tick's time.
            in_hand: those that a run will look at anyway.
        """
        places = {each: self.latest_place(each, at) for each in locations if each not in in_hand}
        waiting = [
            each
            for each, place in places.items()
            if (began := begun.get(each)) is None or began < place - CLOCKS_DIFFER
        ]
        chosen = set(sorted(waiting, key=places.__getitem__)[: self.most_at_once(len(locations))])
        return [each for each in waiting if each in chosen]


def last_begun(connection: Connection, capability: str, location_ids: Sequence[str]) -> dict[str, datetime]:
    """When the last attempt at this work began, by location; those without one are left out.

    Not counted are attempts that found the location busy, that only looked what they would do, and that looked at
    new leads only: after none of them the location's turn is over.
    """
    query = text("""
        SELECT asked.location_id, latest.started_at
        FROM json_array_elements_text(CAST(:ids AS json)) AS asked (location_id)
        CROSS JOIN LATERAL (
            SELECT started_at FROM location_attempts
            WHERE capability = :capability AND location_id = asked.location_id
              AND error_class IS DISTINCT FROM :busy
              AND NOT (state = 'succeeded' AND (report @> '{"dry_run": true}' OR report @> '{"only_new": true}'))
            ORDER BY id DESC LIMIT 1
        ) AS latest
    """)
    values = {"ids": as_json_list(location_ids), "capability": capability, "busy": LocationBusy.__name__}
    return {row.location_id: row.started_at for row in connection.execute(query, values)}


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
