"""How long evaluations of asset checks are kept in Dagster.

Dagster keeps them for ever, and reads all evaluations of a check to find the latest one, so that the pages that show
checks get slower with each day. Kept is the latest evaluation of each check.

Dagster documents no way to drop evaluations, so it is SQL on its tables; a test runs it on a real instance and compares
what is read from there.
"""

from datetime import timedelta

from sqlalchemy import Engine, text

EVALUATIONS_PER_STATEMENT = 2000

# One that was planned and never made, because its run died, goes when a later one is made.
EVALUATIONS = """
    SELECT each.id, each.run_id, each.evaluation_event_storage_id AS event_id,
           coalesce(each.id < latest.id, false)
           AND each.create_timestamp < localtimestamp - CAST(:older_than AS interval) AS is_old
    FROM asset_check_executions AS each
    LEFT JOIN (
        SELECT asset_key, check_name, coalesce(partition, '') AS partition, max(id) AS id FROM asset_check_executions
        WHERE execution_status IN ('SUCCEEDED', 'FAILED') GROUP BY 1, 2, 3
    ) AS latest ON latest.asset_key = each.asset_key AND latest.check_name = each.check_name
        AND latest.partition = coalesce(each.partition, '')
"""
_OLD_EVALUATIONS = f"SELECT id, event_id FROM ({EVALUATIONS}) AS evaluation WHERE is_old"  # noqa: S608 - the query above


def drop_old_evaluations(dagster: Engine, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Drops evaluations of longer ago, all but the latest of each check, some thousands at a time; returns how many.

    Args:
        dagster: Dagster's own database.
        older_than: how long an evaluation is kept.
        dry_run: count only.
    """
    values: dict[str, object] = {"older_than": older_than, "size": EVALUATIONS_PER_STATEMENT}
    if dry_run:
        return _count(dagster, _OLD_EVALUATIONS, values)
    drop = text(f"""
        WITH gone AS (
            DELETE FROM asset_check_executions USING ({_OLD_EVALUATIONS} ORDER BY id LIMIT :size) AS found
            WHERE asset_check_executions.id = found.id RETURNING found.event_id
        ), events AS (
            DELETE FROM event_logs USING gone
            WHERE event_logs.id = gone.event_id
              AND dagster_event_type IN ('ASSET_CHECK_EVALUATION', 'ASSET_CHECK_EVALUATION_PLANNED')
        )
        SELECT count(*) FROM gone
    """)  # noqa: S608 - the query above
    dropped = 0
    while True:
        with dagster.begin() as connection:
            gone = int(connection.execute(drop, values).scalar_one())
        dropped += gone
        if gone < EVALUATIONS_PER_STATEMENT:
            return dropped


def _count(dagster: Engine, query: str, values: dict[str, object]) -> int:
    with dagster.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM ({query}) AS found"), values).scalar_one())  # noqa: S608
