"""What runs left behind that ended without telling: locations that were cut short, or whose turn never came.

Each is put on record as an interrupted attempt, and so waits for its rerun like any other. Looked at twice, a run
changes nothing the second time.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.orchestration.asked_runs import AskedFor
from ghl_pipeline.orchestration.rerun_rules import Cause
from ghl_pipeline.orchestration.standings import Ended, tell_ends, tell_stopped

# An attempt of a command that was killed is found by the next one. When there is none, after this long; should the
# command live after all, the rerun finds the location busy and nothing is lost.
COMMAND_HOURS: Final = 6


def settle(
    engine: Engine, asked: Sequence[AskedFor], askable: Mapping[str, Callable[[Connection], Collection[str]]]
) -> int:
    """Puts on record what the runs and backfills, which have ended, left undone.

    Args:
        engine: the dashboard database.
        asked: the runs and backfills, the earlier first.
        askable: by capability, the locations at which this work is wanted (now).

    Returns:
        How many locations were told of that nobody had told of before.
    """
    told = 0
    # Read once: a backfill of many runs that is canceled ends all of them together.
    wanted: dict[str, set[str]] = {}

    def among_wanted(connection: Connection, capability: str, locations: set[str]) -> set[str]:
        if locations and capability not in wanted:
            wanted[capability] = set(askable[capability](connection))
        return locations & wanted.get(capability, set())

    for each in asked:
        with engine.begin() as connection:
            for capability in sorted(each.capabilities & askable.keys()):
                told += _cut_short(connection, each, capability)
                told += _never_begun(connection, each, capability, among_wanted)
    return told


def runs_at_work(engine: Engine) -> set[str]:
    """The runs that by our records are in the middle of a location."""
    query = text("SELECT DISTINCT run_id FROM location_standings WHERE state = 'running' AND run_id IS NOT NULL")
    with engine.connect() as connection:
        return set(connection.execute(query).scalars())


def settle_lost(engine: Engine, run_ids: Collection[str]) -> int:
    """Ends the attempts of runs that Dagster does not know any more, and those of commands of long ago."""
    with engine.begin() as connection:
        rows = connection.execute(_LOST, {"runs": as_json_list(sorted(run_ids)), "hours": COMMAND_HOURS}).all()
        tell_ends(connection, [_ended(row, Cause.KILLED) for row in rows])
    return len(rows)


def _cut_short(connection: Connection, asked: AskedFor, capability: str) -> int:
    """Attempts of the run itself: those that never ended, and those that did before anybody knew why."""
    if asked.run_id is None:
        return 0
    values = {"run_id": asked.run_id, "capability": capability}
    rows = connection.execute(_END, values).all()
    tell_ends(connection, [_ended(row, Cause.STOPPED if asked.stopped else Cause.KILLED) for row in rows])
    stopped = 0
    if asked.stopped:
        stopped = tell_stopped(connection, list(connection.execute(_INTERRUPTED, values).scalars()))
    return len(rows) + stopped


def _never_begun(
    connection: Connection,
    asked: AskedFor,
    capability: str,
    among_wanted: Callable[[Connection, str, set[str]], set[str]],
) -> int:
    if not asked.locations:
        return 0
    values = {
        "locations": as_json_list(sorted(asked.locations)),
        "capability": capability,
        "run_id": asked.run_id,
        "since": asked.since,
    }
    without = set(connection.execute(_WITHOUT_ATTEMPT, values).scalars())
    locations = sorted(among_wanted(connection, capability, without))
    if not locations:
        return 0
    how = "was stopped by a person" if asked.stopped else "ended"
    values |= {"locations": as_json_list(locations), "text": f"{asked.name} {how} before its turn came."}
    rows = connection.execute(_INSERT, values).all()
    cause = Cause.STOPPED if asked.stopped else Cause.KILLED
    tell_ends(connection, [_ended(row, cause, had_its_turn=False) for row in rows])
    return len(rows)


def _ended(row: object, cause: Cause, *, had_its_turn: bool = True) -> Ended:
    fields = row._mapping  # type: ignore[attr-defined] # a row of one of the statements below
    return Ended(
        location_id=fields["location_id"],
        capability=fields["capability"],
        attempt_id=fields["id"],
        run_id=fields["run_id"],
        state="interrupted",
        began_at=fields["started_at"],
        ended_at=fields["ended_at"],
        cause=cause,
        error_text=fields["error_text"],
        had_its_turn=had_its_turn,
    )


_COLUMNS = "id, location_id, capability, run_id, started_at, ended_at, error_text"
_END = text(f"""
    UPDATE location_attempts SET state = 'interrupted', ended_at = now()
    WHERE run_id = :run_id AND capability = :capability AND state = 'running' AND NOT report ? 'trial'
    RETURNING {_COLUMNS}
""")  # noqa: S608 - constants of ours
_INTERRUPTED = text("""
    SELECT id FROM location_attempts
    WHERE run_id = :run_id AND capability = :capability AND state = 'interrupted' AND NOT report ? 'trial'
""")
# Whoever was at work there since it was asked for has told of it, or will.
_WITHOUT_ATTEMPT = text("""
    SELECT asked.location_id
    FROM json_array_elements_text(CAST(:locations AS json)) AS asked (location_id)
    LEFT JOIN location_standings AS standing
      ON standing.location_id = asked.location_id AND standing.capability = :capability
    WHERE coalesce(standing.state <> 'running' AND standing.began_at < :since, true)
      AND NOT EXISTS (SELECT FROM location_attempts AS attempt
                      WHERE attempt.run_id = :run_id AND attempt.capability = :capability
                        AND attempt.location_id = asked.location_id)
""")
_INSERT = text(f"""
    INSERT INTO location_attempts (location_id, capability, run_id, state, error_text, ended_at)
    SELECT location_id, :capability, :run_id, 'interrupted', 'Location ' || location_id || ': ' || :text, now()
    FROM json_array_elements_text(CAST(:locations AS json)) AS asked (location_id)
    RETURNING {_COLUMNS}
""")  # noqa: S608 - constants of ours
_LOST = text(f"""
    UPDATE location_attempts AS attempt SET state = 'interrupted', ended_at = now()
    FROM location_standings AS standing
    WHERE standing.state = 'running' AND standing.attempt_id = attempt.id AND attempt.state = 'running'
      AND (attempt.run_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:runs AS json))))
           OR (attempt.run_id IS NULL AND attempt.started_at < now() - make_interval(hours => :hours)))
    RETURNING {", ".join(f"attempt.{name}" for name in _COLUMNS.split(", "))}
""")  # noqa: S608 - constants of ours
