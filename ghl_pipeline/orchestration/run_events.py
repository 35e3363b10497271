"""Which rows of Dagster's event log are kept of an old run, and dropping the others. Dagster itself never drops any.

Kept are, of materializations that were planned, the newest of each partition, by which a failed one is red; and the
beginnings and ends of steps and runs. Materializations and observations are left to `thinning.py`, runs as a whole to
`old_runs.py`.

Dagster documents no way to do this, so it is SQL on its tables, here and nowhere else; a test runs it on a real
instance and compares everything that is read from there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.orchestration.marks import mark, set_mark

# How far the runs were gone through, by the time at which they ended.
MARK = "ghl_pipeline_run_events_dropped_until"
# With some 500 rows each: a statement takes a tenth of a second, and holds no lock that anybody waits for.
RUNS_PER_STATEMENT = 20
# A run's end is written by another process' clock, so that a look back is cheaper than a run that was passed over.
LOOK_BACK = timedelta(hours=1)

# What nobody reads of a run that ended weeks ago. Log lines have no type.
_DROPPED = (
    "ASSET_CHECK_EVALUATION_PLANNED", "ASSET_STORE_OPERATION", "ENGINE_EVENT", "HANDLED_OUTPUT", "HOOK_COMPLETED",
    "HOOK_SKIPPED", "LOADED_INPUT", "LOGS_CAPTURED", "OBJECT_STORE_OPERATION", "RESOURCE_INIT_STARTED",
    "RESOURCE_INIT_SUCCESS", "STEP_INPUT", "STEP_WORKER_STARTED", "STEP_WORKER_STARTING",
)  # fmt: skip
# Of these, all but the newest of each partition.
_SUPERSEDED = ("ASSET_MATERIALIZATION_PLANNED",)
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")

# Two looks for a newer one instead of IS NOT DISTINCT FROM, which no index serves.
_CHOSEN = """
    SELECT event.id FROM event_logs AS event
    WHERE event.run_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:runs AS json))))
      AND (event.dagster_event_type IS NULL
           OR event.dagster_event_type = ANY(ARRAY(SELECT json_array_elements_text(CAST(:dropped AS json))))
           OR (event.dagster_event_type = ANY(ARRAY(SELECT json_array_elements_text(CAST(:superseded AS json))))
               AND CASE WHEN event.partition IS NULL THEN EXISTS (
                       SELECT FROM event_logs AS newer
                       WHERE newer.asset_key = event.asset_key AND newer.partition IS NULL
                         AND newer.dagster_event_type = event.dagster_event_type AND newer.id > event.id)
                   ELSE EXISTS (
                       SELECT FROM event_logs AS newer
                       WHERE newer.asset_key = event.asset_key AND newer.partition = event.partition
                         AND newer.dagster_event_type = event.dagster_event_type AND newer.id > event.id)
                   END))
"""


@dataclass(frozen=True, slots=True)
class RunEvents:
    """Rows of the event log, and the runs that they are of."""

    runs: int
    rows: int


def drop_old_run_events(dagster: Engine, kept_for: timedelta, *, dry_run: bool = False) -> RunEvents:
    """Drops what is not kept of runs that ended longer ago, some runs at a time.

    Runs that were gone through are not looked at again; a call that is interrupted goes on where it was.

    Args:
        dagster: Dagster's own database.
        kept_for: how long a run is kept whole after its end.
        dry_run: count only.
    """
    until = datetime.now(UTC) - kept_for
    with dagster.connect() as connection:
        gone_through = mark(connection, MARK)
        since = datetime.fromtimestamp(float(gone_through), UTC) - LOOK_BACK if gone_through else None
        runs = _ended_runs(connection, since, until)
    rows = 0
    for batch in _batches(runs):
        with dagster.begin() as connection:
            rows += _rows(connection, [run_id for run_id, _ in batch], dry_run=dry_run)
            if not dry_run:
                set_mark(connection, MARK, repr(batch[-1][1]))
    return RunEvents(len(runs), rows)


def _rows(connection: Connection, run_ids: Sequence[str], *, dry_run: bool) -> int:
    values = {
        "runs": as_json_list(run_ids),
        "dropped": as_json_list(_DROPPED),
        "superseded": as_json_list(_SUPERSEDED),
    }
    if dry_run:
        return int(connection.execute(text(f"SELECT count(*) FROM ({_CHOSEN}) AS f"), values).scalar_one())  # noqa: S608
    drop = text(f"""
        WITH gone AS (DELETE FROM event_logs WHERE id IN ({_CHOSEN}) RETURNING id),
             tags AS (DELETE FROM asset_event_tags USING gone WHERE asset_event_tags.event_id = gone.id)
        SELECT count(*) FROM gone
    """)  # noqa: S608 - all of it stands above
    return int(connection.execute(drop, values).scalar_one())


def _ended_runs(connection: Connection, since: datetime | None, until: datetime) -> list[tuple[str, float]]:
    """Run ids with the time of their end in epoch seconds, those first that ended first."""
    query = text("""
        SELECT run_id, end_time FROM runs
        WHERE status = ANY(ARRAY(SELECT json_array_elements_text(CAST(:ended AS json))))
          AND end_time >= :since AND end_time < :until
        ORDER BY end_time, id
    """)
    values = {
        "ended": as_json_list(_ENDED),
        "since": since.timestamp() if since else 0.0,
        "until": until.timestamp(),
    }
    return [(row.run_id, row.end_time) for row in connection.execute(query, values)]


def _batches(runs: Sequence[tuple[str, float]]) -> Iterator[Sequence[tuple[str, float]]]:
    for start in range(0, len(runs), RUNS_PER_STATEMENT):
        yield runs[start : start + RUNS_PER_STATEMENT]
