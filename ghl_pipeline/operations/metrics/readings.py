"""What the database knows of runs, read for metrics in few statements, each over all locations.

Runs are processes of a few seconds, so nobody can ask them; what they did is in the database, and what only grows is
kept there in `location_totals`, which no purge touches.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlalchemy import Connection, TextClause, text

from ghl_pipeline.ghl.errors import DailyQuotaReached
from ghl_pipeline.operations.metrics import families as f
from ghl_pipeline.operations.metrics.families import Family
from ghl_pipeline.operations.streams import STREAMS

Sample: TypeAlias = tuple[tuple[str, ...], float]
Samples: TypeAlias = Mapping[Family, Sequence[Sample]]

# A failure that nothing tries again before somebody acts; the day's quota comes back by itself.
_IS_HELD = f"""
    state = 'failed' AND error_class IS DISTINCT FROM '{DailyQuotaReached.__name__}'
    AND CASE WHEN capability = ANY(CAST(:keep_themselves AS text[])) THEN coalesce(permanent, false)
             ELSE rerun_at IS NULL END
"""
_STANDINGS = text(f"""
    SELECT capability,
           CASE WHEN state = 'failed' AND error_class = '{DailyQuotaReached.__name__}' THEN 'waiting_for_quota'
                WHEN {_IS_HELD} THEN 'held' ELSE state END AS standing,
           count(*),
           extract(epoch FROM min(succeeded_at)), extract(epoch FROM max(succeeded_at)),
           count(*) FILTER (WHERE succeeded_at IS NULL)
    FROM location_standings JOIN clients USING (location_id) WHERE active
    GROUP BY 1, 2 ORDER BY 1, 2
""")  # noqa: S608 - conditions of ours
_TOTALS = text("""
    SELECT capability, sum(succeeded), sum(failed), sum(interrupted), sum(requests), sum(waited_seconds)
    FROM location_totals GROUP BY 1 ORDER BY 1
""")
_COUNTS = text("""
    SELECT capability, key, sum(value::bigint)
    FROM location_totals CROSS JOIN LATERAL jsonb_each_text(counts)
    GROUP BY 1, 2
""")
_THROTTLE = text("""
    WITH throttle AS (
        SELECT CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN used_today ELSE 0 END AS used, max_per_day,
               blocked_until > extract(epoch FROM now()) AS is_blocked, refusals
        FROM location_throttle
    )
    SELECT coalesce(sum(used), 0), coalesce(max(used::double precision / max_per_day), 0),
           count(*) FILTER (WHERE is_blocked), coalesce(sum(refusals), 0)
    FROM throttle
""")
# Two small partial indexes rather than the whole inbox.
_WAITING_EVENTS = """
    SELECT location_id, state, received_at FROM webhook_events WHERE state = 'pending'
    UNION ALL
    SELECT location_id, state, received_at FROM webhook_events WHERE state = 'dead'
"""
_EVENTS = text(f"""
    SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'dead'),
           coalesce(extract(epoch FROM now() - min(received_at) FILTER (WHERE state = 'pending')), 0)
    FROM ({_WAITING_EVENTS}) AS waiting
""")  # noqa: S608 - the statement above
_DRAFTS = text("""
    SELECT state, count(*) FROM reply_drafts WHERE state IN ('pending', 'failed') GROUP BY 1
""")
_CALENDARS = text("""
    SELECT calendar.state, count(*),
           coalesce(max(extract(epoch FROM now() - calendar.refreshed_at)), 0)
    FROM booking_calendars AS calendar JOIN clients ON clients.id = calendar.client_id
    WHERE active AND (btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)
    GROUP BY 1 ORDER BY 1
""")
_ALERTS = text(
    "SELECT channel, state, count(*) FROM alert_deliveries WHERE state <> 'sent' GROUP BY 1, 2 ORDER BY 1, 2"
)

_ACTIVE = text("SELECT count(*) FROM clients WHERE active")
_EACH_STANDING = text(f"""
    SELECT location_id, capability, extract(epoch FROM succeeded_at), failures,
           ({_IS_HELD})::integer
    FROM location_standings JOIN clients USING (location_id) WHERE active
    ORDER BY 1, 2
""")  # noqa: S608 - conditions of ours
_EACH_TOTAL = text("""
    SELECT location_id, capability, succeeded, failed, interrupted, requests
    FROM location_totals JOIN clients USING (location_id) WHERE active
    ORDER BY 1, 2
""")
_EACH_THROTTLE = text("""
    SELECT location_id, CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN used_today ELSE 0 END, max_per_day,
           greatest(0, blocked_until - extract(epoch FROM now())::double precision), refusals
    FROM location_throttle JOIN clients USING (location_id) WHERE active
    ORDER BY 1
""")
_EACH_INBOX = text(f"""
    SELECT location_id, count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'dead'),
           extract(epoch FROM now() - min(received_at) FILTER (WHERE state = 'pending'))
    FROM ({_WAITING_EVENTS}) AS waiting JOIN clients USING (location_id) WHERE active
    GROUP BY 1 ORDER BY 1
""")  # noqa: S608 - the statement above
_EACH_CALENDAR = text("""
    SELECT location_id, extract(epoch FROM now() - calendar.refreshed_at)
    FROM booking_calendars AS calendar JOIN clients ON clients.id = calendar.client_id
    WHERE active AND calendar.refreshed_at IS NOT NULL
      AND (btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)
    ORDER BY 1
""")


_KEEP_THEMSELVES = {"keep_themselves": [stream.capability for stream in STREAMS if stream.keeps_itself]}


@dataclass(frozen=True, slots=True)
class Reading:
    """The values at one moment.

    Attributes:
        samples: by family; a family without any is there with none.
        seconds: that the reading took.
        read_at: on `time.monotonic()`.
    """

    samples: Samples
    seconds: float
    read_at: float = field(default_factory=time.monotonic)


def read_metrics(connection: Connection, *, per_location_up_to: int) -> Reading:
    """Reads what is on record of all locations.

    Args:
        connection: the dashboard database.
        per_location_up_to: each location's own values too (`families.PER_LOCATION`), unless there are more; 0: never.
    """
    began = time.monotonic()
    found: dict[Family, list[Sample]] = defaultdict(list)
    per_location = per_location_up_to > 0 and int(connection.execute(_ACTIVE).scalar_one()) <= per_location_up_to
    found[f.TOLD_APART].append(((), float(per_location)))
    for family, labels, value in _totals(connection):
        found[family].append((labels, value))
    if per_location:
        for family, labels, value in _each_location(connection):
            found[family].append((labels, value))
    wanted = f.FROM_DATABASE if per_location else f.TOTALS
    return Reading({family: found[family] for family in wanted}, time.monotonic() - began)


_Found: TypeAlias = Iterator[tuple[Family, tuple[str, ...], float]]


def _totals(connection: Connection) -> _Found:
    yield from _standings(connection)
    yield from _attempts(connection)
    used, ratio, blocked, refusals = connection.execute(_THROTTLE).one()
    yield f.REQUESTS_TODAY, (), float(used)
    yield f.QUOTA_USED, (), float(ratio)
    yield f.BLOCKED, (), float(blocked)
    yield f.RATE_REFUSALS, (), float(refusals)
    pending, dead, oldest = connection.execute(_EVENTS).one()
    yield f.EVENTS_PENDING, (), float(pending)
    yield f.EVENTS_DEAD, (), float(dead)
    yield f.EVENTS_OLDEST, (), float(oldest)
    drafts = {"pending": 0, "failed": 0} | _named(connection, _DRAFTS)
    for state, count in drafts.items():
        yield f.DRAFTS, (state,), float(count)
    oldest_calendar = 0.0
    for state, count, age in connection.execute(_CALENDARS):
        yield f.CALENDARS, (state,), float(count)
        oldest_calendar = max(oldest_calendar, float(age))
    yield f.CALENDAR_AGE, (), oldest_calendar
    for channel, state, count in connection.execute(_ALERTS):
        yield f.ALERTS, (channel, state), float(count)


def _standings(connection: Connection) -> _Found:
    oldest: dict[str, float] = {}
    newest: dict[str, float] = {}
    never: dict[str, int] = defaultdict(int)
    for capability, standing, count, first, last, without in connection.execute(_STANDINGS, _KEEP_THEMSELVES):
        yield f.LOCATIONS, (capability, standing), float(count)
        never[capability] += without
        if first is not None:
            oldest[capability] = min(oldest.get(capability, float(first)), float(first))
            newest[capability] = max(newest.get(capability, float(last)), float(last))
    for family, values in ((f.OLDEST_SUCCESS, oldest), (f.NEWEST_SUCCESS, newest), (f.NEVER_SUCCEEDED, never)):
        for capability, value in values.items():
            yield family, (capability,), float(value)


def _attempts(connection: Connection) -> _Found:
    for capability, succeeded, failed, interrupted, requests, waited in connection.execute(_TOTALS):
        for state, count in (("succeeded", succeeded), ("failed", failed), ("interrupted", interrupted)):
            yield f.ATTEMPTS, (capability, state), float(count)
        yield f.REQUESTS, (capability,), float(requests)
        yield f.WAITED, (capability,), float(waited)
    counted = {(row[0], row[1]): float(row[2]) for row in connection.execute(_COUNTS)}
    # From zero on, or the first ones would be no increase.
    for outcome in f.OUTCOMES:
        yield f.LEADS, (outcome,), counted.get(("hydration", f"outcomes.{outcome}"), 0.0)
    for name in f.FILLED_FIELDS:
        yield f.FIELDS, (name,), counted.get(("hydration", f"fields.{name}"), 0.0)
    for capability, names in f.COUNTED_WORK.items():
        for name in names:
            yield f.WORK, (capability, name), counted.get((capability, name), 0.0)


def _each_location(connection: Connection) -> _Found:
    for location_id, capability, succeeded_at, failures, held in connection.execute(_EACH_STANDING, _KEEP_THEMSELVES):
        if succeeded_at is not None:
            yield f.LAST_SUCCESS, (location_id, capability), float(succeeded_at)
        yield f.FAILURES, (location_id, capability), float(failures)
        yield f.HELD, (location_id, capability), float(held)
    for location_id, capability, succeeded, failed, interrupted, requests in connection.execute(_EACH_TOTAL):
        for state, count in (("succeeded", succeeded), ("failed", failed), ("interrupted", interrupted)):
            yield f.LOCATION_ATTEMPTS, (location_id, capability, state), float(count)
        yield f.LOCATION_REQUESTS, (location_id, capability), float(requests)
    for location_id, used, limit, blocked, refusals in connection.execute(_EACH_THROTTLE):
        yield f.LOCATION_REQUESTS_TODAY, (location_id,), float(used)
        yield f.LOCATION_REQUESTS_LIMIT, (location_id,), float(limit)
        yield f.LOCATION_BLOCKED, (location_id,), float(blocked)
        yield f.LOCATION_RATE_REFUSALS, (location_id,), float(refusals)
    for location_id, pending, dead, oldest in connection.execute(_EACH_INBOX):
        yield f.LOCATION_EVENTS_PENDING, (location_id,), float(pending)
        yield f.LOCATION_EVENTS_DEAD, (location_id,), float(dead)
        if oldest is not None:
            yield f.LOCATION_EVENTS_OLDEST, (location_id,), float(oldest)
    for location_id, age in connection.execute(_EACH_CALENDAR):
        yield f.LOCATION_CALENDAR_AGE, (location_id,), float(age)


def _named(connection: Connection, query: TextClause) -> dict[str, int]:
    return {row[0]: int(row[1]) for row in connection.execute(query)}
