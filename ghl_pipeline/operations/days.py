"""What was done on each day, over all locations: the operator's charts over time.

Summed up from the reports that `location_attempts` keeps. A look reads only the days that may still change, through the
index of a location's latest attempts, and keeps their sums; so it takes the same time after a year. Requests are the
throttle's own count, which all work shares.

Table: `daily_figures`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from ghl_pipeline.errors import LocationBusy

# The outcomes of hydration by which a lead counts as repaired.
REPAIRED = ("linked_and_hydrated", "hydrated")
DAYS_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day: leads that hydration looked at, repaired and did not find, its attempts, and requests of all work.

    An attempt belongs to the day on which it began. `peak_share`: of its day's requests, what the busiest location had
    used (0 to 1).
    """

    day: date
    repaired: int = 0
    looked_at: int = 0
    not_found: int = 0
    attempts: int = 0
    attempts_failed: int = 0
    requests: int = 0
    peak_share: float = 0.0


def update_days(connection: Connection) -> None:
    """Sums up what was done since the last time. The first time, everything that is on record."""
    values = {"repaired": list(REPAIRED), "busy": LocationBusy.__name__}
    connection.execute(_SUM_ATTEMPTS, values)
    connection.execute(_SUM_REQUESTS)


def read_days(connection: Connection, days: int = DAYS_SHOWN) -> Sequence[Day]:
    """The last days, today's last; a day on which nothing was done is there too."""
    return [Day(*row) for row in connection.execute(_READ, {"days": days})]


# Sums only grow: an attempt ends, none is taken back. What retention or a removed client took away since stays counted.
# OFFSET 0 keeps the look at each location apart, or PostgreSQL reads the attempts of all kinds of work since then (at
# 10,000 locations 3 million in two days). In the order of the key: two looks at the same time queue.
_SUM_ATTEMPTS = text("""
    WITH changing AS (
        SELECT coalesce(min(first_attempt_id), 0) AS since FROM (
            SELECT first_attempt_id FROM daily_figures WHERE first_attempt_id IS NOT NULL ORDER BY day DESC LIMIT 2
        ) AS latest
    )
    INSERT INTO daily_figures AS kept (day, repaired, looked_at, not_found, attempts, attempts_failed, first_attempt_id)
    SELECT (attempt.started_at AT TIME ZONE 'UTC')::date AS day,
           coalesce(sum((SELECT sum(CAST(attempt.report->'outcomes'->>name AS bigint))
                         FROM unnest(CAST(:repaired AS text[])) AS name)), 0),
           coalesce(sum(CAST(attempt.report->>'eligible' AS bigint)), 0),
           coalesce(sum(CAST(attempt.report->'outcomes'->>'not_found' AS bigint)), 0),
           count(*), count(*) FILTER (WHERE attempt.state = 'failed'), min(attempt.id)
    FROM clients AS client CROSS JOIN changing CROSS JOIN LATERAL (
        SELECT id, state, report, started_at FROM location_attempts
        WHERE capability = 'hydration' AND location_id = client.location_id AND id >= changing.since
          AND error_class IS DISTINCT FROM :busy AND NOT report @> '{"dry_run": true}'
          AND (state = 'succeeded' OR NOT report @> '{"trial": true}')
        OFFSET 0
    ) AS attempt
    GROUP BY day ORDER BY day
    ON CONFLICT (day) DO UPDATE SET
        repaired = greatest(kept.repaired, excluded.repaired),
        looked_at = greatest(kept.looked_at, excluded.looked_at),
        not_found = greatest(kept.not_found, excluded.not_found),
        attempts = greatest(kept.attempts, excluded.attempts),
        attempts_failed = greatest(kept.attempts_failed, excluded.attempts_failed),
        first_attempt_id = least(kept.first_attempt_id, excluded.first_attempt_id)
""")

_SUM_REQUESTS = text("""
    INSERT INTO daily_figures AS kept (day, requests, peak_share)
    SELECT day, sum(used_today), max(used_today::double precision / greatest(max_per_day, 1))
    FROM location_throttle WHERE day = (now() AT TIME ZONE 'UTC')::date GROUP BY day
    ON CONFLICT (day) DO UPDATE SET
        requests = greatest(kept.requests, excluded.requests),
        peak_share = greatest(kept.peak_share, excluded.peak_share)
""")

_READ = text("""
    SELECT CAST(day AS date), coalesce(repaired, 0), coalesce(looked_at, 0), coalesce(not_found, 0),
           coalesce(attempts, 0), coalesce(attempts_failed, 0), coalesce(requests, 0), coalesce(peak_share, 0)
    FROM generate_series((now() AT TIME ZONE 'UTC')::date - CAST(:days AS int) + 1,
                         (now() AT TIME ZONE 'UTC')::date, interval '1 day') AS day
    LEFT JOIN daily_figures USING (day)
    ORDER BY day
""")
