"""Which materializations and observations of the past are kept, and dropping the others.

With every schedule on a location leaves some 340 materializations a day, and Dagster never drops one. What they say is
kept elsewhere too, in the attempts. So of the last days all are kept, of some weeks the last of each day, and of each
asset and partition the newest for ever: by it the partition is green, and work is resumed from it.

Dagster documents no way to do this, so it is SQL on its tables; a test runs it on a real instance and compares what is
read from there. What else old runs leave is in `run_events.py`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Engine, text

from ghl_pipeline.orchestration.marks import mark, set_mark

THINNED: Final = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
# A statement of so many takes a third of a second, and holds no lock that anybody waits for.
EVENTS_PER_STATEMENT = 5000
# The storage id up to which days were thinned, by type of event.
MARK = "ghl_pipeline_history_thinned_until"
_EVER: Final = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)

# Of each event the next one of its partition; of one without, the asset's next, if that has none either. Compared as
# rows and in the order of the index: it is one look into that index whatever PostgreSQL believes of the table, where
# `id > ... ORDER BY id LIMIT 1` had it walk through the log for minutes. What a backfill under way did is left to it.
_FOUND = text("""
    WITH page AS MATERIALIZED (
        SELECT id, run_id, asset_key, partition, timestamp AS at FROM event_logs
        WHERE dagster_event_type = :type AND id > :after ORDER BY id LIMIT :size
    ), superseded AS (
        SELECT page.id FROM page
        CROSS JOIN LATERAL (
            (SELECT asset_key, dagster_event_type, partition, timestamp AS at FROM event_logs AS newer
             WHERE page.partition IS NOT NULL AND newer.asset_key IS NOT NULL AND newer.partition IS NOT NULL
               AND (newer.asset_key, newer.dagster_event_type, newer.partition, newer.id)
                   > (page.asset_key, :type, page.partition, page.id)
             ORDER BY newer.asset_key, newer.dagster_event_type, newer.partition, newer.id LIMIT 1)
            UNION ALL
            (SELECT asset_key, dagster_event_type, partition, timestamp FROM event_logs AS newer
             WHERE page.partition IS NULL AND newer.asset_key IS NOT NULL
               AND (newer.asset_key, newer.dagster_event_type, newer.id) > (page.asset_key, :type, page.id)
             ORDER BY newer.asset_key, newer.dagster_event_type, newer.id LIMIT 1)
        ) AS next
        WHERE page.at >= :since AND page.at < :until
          AND next.asset_key = page.asset_key AND next.dagster_event_type = :type
          AND next.partition IS NOT DISTINCT FROM page.partition
          AND (NOT :daily OR CAST(next.at AS date) = CAST(page.at AS date))
          AND NOT EXISTS (
              SELECT FROM run_tags AS tag JOIN bulk_actions AS backfill ON backfill.key = tag.value
              WHERE tag.run_id = page.run_id AND tag.key = 'dagster/backfill'
                AND backfill.status IN ('REQUESTED', 'CANCELING', 'FAILING'))
    )
    SELECT ARRAY(SELECT id FROM superseded) AS superseded,
           (SELECT max(id) FROM page) AS last, (SELECT max(id) FROM page WHERE at < :until) AS last_old
""")
_DROP_TAGS = text("DELETE FROM asset_event_tags WHERE event_id = ANY(:ids)")
_DROP = text("DELETE FROM event_logs WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class KeptHistory:
    """How long all events of the asset history are kept, and how long the last of each day (UTC)."""

    whole: timedelta
    daily: timedelta


def thin_history(dagster: Engine, kept: KeptHistory, *, dry_run: bool = False, now: datetime | None = None) -> int:
    """Drops what is not kept of the asset history, some thousands at a time; returns how many events.

    Days that were thinned are not looked at again; a call that is interrupted goes on where it was.

    Args:
        dagster: Dagster's own database.
        kept: what is kept for how long.
        dry_run: count only.
        now: from when on time is counted back.
    """
    today = (now or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)  # as Dagster stores it
    whole = today - kept.whole
    daily = today - max(kept.whole, kept.daily)
    dropped = 0
    for kind in THINNED:
        # Of what is older than that, only the newest of partitions that nobody works on any more is left from the last
        # time, so that it is gone through from the beginning: one that has a successor by now goes too.
        dropped += _drop(dagster, kind, _EVER, daily, dry_run=dry_run)
        dropped += _drop(dagster, kind, daily, whole, dry_run=dry_run, marked=f"{MARK} {kind}")
    return dropped


def _drop(
    dagster: Engine, kind: str, since: datetime, until: datetime, *, dry_run: bool, marked: str | None = None
) -> int:
    """Events of that time that have a successor; with a mark, those that have one on the same day, from the mark on."""
    after = 0
    if marked:
        with dagster.connect() as connection:
            after = int(mark(connection, marked) or 0)
    dropped = 0
    while True:
        values = {
            "type": kind,
            "after": after,
            "size": EVENTS_PER_STATEMENT,
            "since": since,
            "until": until,
            "daily": marked is not None,
        }
        with dagster.begin() as connection:
            found = connection.execute(_FOUND, values).one()
            # Ids grow with time, but for moments: where a whole page is young, the rest is.
            if found.last_old is None:
                return dropped
            if not dry_run:
                connection.execute(_DROP_TAGS, {"ids": found.superseded})
                connection.execute(_DROP, {"ids": found.superseded})
                if marked:
                    set_mark(connection, marked, str(found.last_old))
        dropped += len(found.superseded)
        after = found.last
