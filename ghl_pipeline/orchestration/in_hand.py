"""Which locations queued and running runs will still look at, so that nobody asks for them again meanwhile."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_list

# A location's newest attempts at a work; what a run of now did there is among them, and years of others are not read.
ATTEMPTS_LOOKED_AT = 100


def in_hand(connection: Connection, capability: str, runs: Mapping[str, Collection[str]]) -> set[str]:
    """Which locations runs will look at: all that they were given but those they are done with, well or not.

    A run of many locations may be at its slowest for an hour after it was done with the others.

    Args:
        connection: reads only.
        capability: the work, as attempts at it are on record.
        runs: of this job, queued or running: run id and the locations it was given.
    """
    given = {(run_id, location_id) for run_id, locations in runs.items() for location_id in locations}
    if not given:
        return set()
    query = text("""
        SELECT attempt.run_id, attempt.location_id
        FROM json_array_elements_text(CAST(:locations AS json)) AS asked (location_id)
        CROSS JOIN LATERAL (
            SELECT run_id, location_id, state FROM location_attempts
            WHERE capability = :capability AND location_id = asked.location_id ORDER BY id DESC LIMIT :most
        ) AS attempt
        WHERE attempt.state <> 'running'
          AND attempt.run_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:runs AS json))))
    """)
    values = {
        "capability": capability,
        "runs": as_json_list(list(runs)),
        "locations": as_json_list(sorted({location_id for _, location_id in given})),
        "most": ATTEMPTS_LOOKED_AT,
    }
    ended = {(row.run_id, row.location_id) for row in connection.execute(query, values)}
    return {location_id for _, location_id in given - ended}
