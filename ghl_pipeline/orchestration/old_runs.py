"""Which runs of long ago are kept, and dropping the others with all that they said. Dagster itself drops none.

Schedules and sensors start a thousand runs a day for ten locations. Dropped are those of them that succeeded, and all
of a job whose runs are looks at the same thing. Kept are those that a person, a backfill or a retry knows of, and every
run that still has an evaluation of a check, or the newest of anything that it said of a partition: asset pages link to
it.

Dagster documents no way to do this but one run at a time, so it is SQL on its tables; a test runs it on a real instance
and compares what is read from there.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.orchestration.check_history import EVALUATIONS

# With some hundred rows each; a statement holds no lock that anybody waits for.
RUNS_PER_STATEMENT = 50

_OLD_RUNS = f"""
    SELECT run.run_id FROM runs AS run
    LEFT JOIN (SELECT DISTINCT run_id FROM ({EVALUATIONS}) AS evaluation WHERE NOT is_old) AS kept USING (run_id)
    WHERE kept.run_id IS NULL AND end_time < extract(epoch FROM now() - CAST(:older_than AS interval))
      AND (pipeline_name = :job AND status IN ('SUCCESS', 'FAILURE', 'CANCELED')
           OR status = 'SUCCESS'
              AND EXISTS (
                  SELECT FROM run_tags AS tag
                  WHERE tag.run_id = run.run_id AND tag.key IN ('dagster/schedule_name', 'dagster/sensor_name'))
              AND NOT EXISTS (
                  SELECT FROM run_tags AS tag
                  WHERE tag.run_id = run.run_id
                    AND tag.key IN ('dagster/backfill', 'dagster/root_run_id', 'dagster/parent_run_id'))
              AND NOT EXISTS (
                  SELECT FROM run_tags AS next
                  WHERE next.key IN ('dagster/root_run_id', 'dagster/parent_run_id') AND next.value = run.run_id))
    ORDER BY run.end_time, run.id
"""  # noqa: S608 - the query of evaluations
# A query of its own for some runs at a time: together with the one above, PostgreSQL may go through all events of all
# time. Two looks for a newer event instead of IS NOT DISTINCT FROM, which no index serves.
_SAY_NOTHING_NEWEST = text("""
    SELECT asked.run_id FROM json_array_elements_text(CAST(:runs AS json)) AS asked (run_id)
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE is_newest) AS newest FROM (
            SELECT CASE WHEN event.partition IS NULL THEN NOT EXISTS (
                    SELECT FROM event_logs AS newer
                    WHERE newer.asset_key = event.asset_key AND newer.partition IS NULL
                      AND newer.dagster_event_type = event.dagster_event_type AND newer.id > event.id)
                ELSE NOT EXISTS (
                    SELECT FROM event_logs AS newer
                    WHERE newer.asset_key = event.asset_key AND newer.partition = event.partition
                      AND newer.dagster_event_type = event.dagster_event_type AND newer.id > event.id)
                END AS is_newest
            FROM event_logs AS event
            WHERE event.run_id = asked.run_id AND event.asset_key IS NOT NULL
              AND event.dagster_event_type IN (
                  'ASSET_MATERIALIZATION', 'ASSET_MATERIALIZATION_PLANNED', 'ASSET_OBSERVATION',
                  'ASSET_FAILED_TO_MATERIALIZE')
        ) AS event
    ) AS said WHERE said.newest = 0
""")


def drop_old_runs(dagster: Engine, job: str, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Drops runs that ended longer ago, with all that they said, some at a time; returns how many.

    Of a run whose evaluations are old they go too, so that none of them is left without its run.

    Args:
        dagster: Dagster's own database.
        job: whose runs go whoever started them, and however they ended.
        older_than: how long a run is kept after its end.
        dry_run: count only.
    """
    values: dict[str, object] = {"job": job, "older_than": older_than}
    with dagster.connect() as connection:
        old = list(connection.execute(text(_OLD_RUNS), values).scalars())
    dropped = 0
    for start in range(0, len(old), RUNS_PER_STATEMENT):
        with dagster.begin() as connection:
            asked = {"runs": as_json_list(old[start : start + RUNS_PER_STATEMENT])}
            unneeded = list(connection.execute(_SAY_NOTHING_NEWEST, asked).scalars())
            if not dry_run:
                _drop_runs(connection, unneeded)
        dropped += len(unneeded)
    return dropped


def _drop_runs(connection: Connection, run_ids: Sequence[str]) -> None:
    """All or nothing: events without a run would be found by nobody."""
    values = {"runs": as_json_list(run_ids)}
    listed = "run_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:runs AS json))))"
    connection.execute(
        text(f"DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM event_logs WHERE {listed})"),  # noqa: S608
        values,
    )
    for table in ("asset_check_executions", "event_logs", "run_tags", "runs"):
        connection.execute(text(f"DELETE FROM {table} WHERE {listed}"), values)  # noqa: S608 - names of ours
