"""How the latest work of each kind stands at each location, and when it is asked for again.

Table: `location_standings`, one row per location and kind of work, written in the transaction of the attempt that it
tells of. `location_attempts` has every attempt; here is what they come to, so that nobody has to read them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy
from sqlalchemy import Connection, Engine, text

from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.orchestration.rerun_rules import (
    NO_FAILURES,
    TRIES_BY_ITSELF,
    Cause,
    RerunRules,
    next_rerun,
    spread,
)

_RULES = "ghl_pipeline_rerun_rules"


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt ended. `cause` is None when it succeeded.

    `had_its_turn`: the work had begun there, so that ending in the middle of it counts against the location.
    """

    location_id: str
    capability: str
    attempt_id: int
    run_id: str | None
    state: str
    began_at: datetime
    ended_at: datetime
    cause: Cause | None = None
    error_class: str | None = None
    error_text: str | None = None
    permanent: bool | None = None
    had_its_turn: bool = True


def use_rules(engine: Engine, rules: RerunRules) -> None:
    """Lets the pauses of what is told through this engine be these.

    The rules travel with the engine that the entry point opens for its settings: every capability tells of its
    attempts, and none of them has a say in when it is asked again.
    """
    engine.update_execution_options(**{_RULES: rules})


def rules_of(connection: Connection) -> RerunRules:
    """The rules that the connection's engine was given, else the defaults."""
    rules = connection.get_execution_options().get(_RULES)
    return rules if isinstance(rules, RerunRules) else RerunRules()


def tell_begin(connection: Connection, location_id: str, capability: str, attempt_id: int, run_id: str | None) -> None:
    """An attempt began. What the one before left (its error, when it ended) stays until this one has ended."""
    connection.execute(
        text("""
            INSERT INTO location_standings (location_id, capability, state, attempt_id, run_id, began_at)
            VALUES (:location_id, :capability, 'running', :attempt_id, :run_id, now())
            ON CONFLICT (location_id, capability) DO UPDATE
            SET state = 'running', attempt_id = excluded.attempt_id, run_id = excluded.run_id,
                began_at = excluded.began_at
        """),
        {"location_id": location_id, "capability": capability, "attempt_id": attempt_id, "run_id": run_id},
    )


def tell_ends(connection: Connection, ended: Sequence[Ended]) -> None:
    """Attempts ended; at most one of each location and kind of work. One that a newer has overtaken says nothing."""
    if not ended:
        return
    keys = as_json_rows([{"location_id": each.location_id, "capability": each.capability} for each in ended])
    known = {(row.location_id, row.capability): row for row in connection.execute(_KNOWN, {"keys": keys})}
    rules = rules_of(connection)
    rows = []
    for each in ended:
        before = known.get((each.location_id, each.capability))
        if before is None or before.attempt_id is None or before.attempt_id <= each.attempt_id:
            rows.append(_standing(each, before, rules))
    connection.execute(_STORE, {"rows": as_json_rows(rows)})


def _standing(ended: Ended, before: sqlalchemy.Row[tuple[object, ...]] | None, rules: RerunRules) -> dict[str, object]:
    row: dict[str, object] = {
        "location_id": ended.location_id,
        "capability": ended.capability,
        "state": ended.state,
        "attempt_id": ended.attempt_id,
        "run_id": ended.run_id,
        "began_at": ended.began_at,
        "ended_at": ended.ended_at,
    }
    if ended.cause is None:
        return row | {"succeeded_at": ended.ended_at, "failures": 0, "reruns": 0, **_NOTHING_WRONG}
    counts = ended.cause not in NO_FAILURES and ended.had_its_turn
    reruns = before.reruns if before else 0
    at = None
    if ended.capability not in TRIES_BY_ITSELF:
        at = next_rerun(
            ended.cause,
            ended.ended_at,
            reruns=reruns,
            before=Cause(before.cause) if before and before.cause else None,
            share=spread(ended.location_id, ended.attempt_id),
            rules=rules,
        )
    return row | {
        "succeeded_at": before.succeeded_at if before else None,
        "failures": (before.failures if before else 0) + counts,
        "failing_since": (before.failing_since if before else None) or (ended.ended_at if counts else None),
        "cause": ended.cause.value,
        "error_class": ended.error_class,
        "error_text": ended.error_text,
        "permanent": ended.permanent,
        "rerun_at": at,
        "reruns": reruns,
    }


_NOTHING_WRONG: Mapping[str, object] = {
    "failing_since": None,
    "cause": None,
    "error_class": None,
    "error_text": None,
    "permanent": None,
    "rerun_at": None,
}
_KNOWN = text("""
    SELECT standing.location_id, standing.capability, attempt_id, succeeded_at, failures, failing_since, cause, reruns
    FROM location_standings AS standing
    JOIN json_to_recordset(CAST(:keys AS json)) AS asked (location_id text, capability text)
      USING (location_id, capability)
    ORDER BY standing.location_id, standing.capability FOR UPDATE OF standing
""")
_COLUMNS = {
    "location_id": "text", "capability": "text", "state": "text", "attempt_id": "bigint", "run_id": "text",
    "began_at": "timestamptz", "ended_at": "timestamptz", "succeeded_at": "timestamptz", "failures": "integer",
    "failing_since": "timestamptz", "cause": "text", "error_class": "text", "error_text": "text",
    "permanent": "boolean", "rerun_at": "timestamptz", "reruns": "integer",
}  # fmt: skip
_STORE = text(f"""
    INSERT INTO location_standings ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)}
    FROM json_to_recordset(CAST(:rows AS json))
      AS told ({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())})
    ORDER BY location_id, capability
    ON CONFLICT (location_id, capability) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in list(_COLUMNS)[2:])}
""")  # noqa: S608 - names of ours


def tell_part_succeeded(connection: Connection, location_id: str, capability: str, attempt_id: int) -> bool:
    """An attempt at a part of the work succeeded; returns False, and changes nothing, where all was well before.

    What had failed is as it was, and is asked for again as if this had not been; a refusal, though, is over.
    """
    statement = text("""
        UPDATE location_standings
        SET state = CASE WHEN cause IN ('killed', 'stopped') THEN 'interrupted' ELSE 'failed' END,
            rerun_at = CASE WHEN cause = 'refused' THEN now() ELSE rerun_at END
        WHERE location_id = :location_id AND capability = :capability AND attempt_id = :attempt_id
          AND cause IS NOT NULL
    """)
    values = {"location_id": location_id, "capability": capability, "attempt_id": attempt_id}
    return connection.execute(statement, values).rowcount > 0


def tell_stopped(connection: Connection, attempts: Sequence[int]) -> int:
    """Attempts that were cut short were stopped by a person, as is known now; returns how many were told of.

    Those that somebody asked for again meanwhile, or that a newer attempt has overtaken, stay as they are.
    """
    rules = rules_of(connection)
    found = connection.execute(_KILLED, {"attempts": as_array(attempts)}).all()
    rows = [
        {
            "location_id": row.location_id,
            "capability": row.capability,
            "rerun_at": next_rerun(
                Cause.STOPPED,
                row.ended_at,
                reruns=row.reruns,
                before=None,
                share=spread(row.location_id, row.attempt_id),
                rules=rules,
            )
            if row.capability not in TRIES_BY_ITSELF
            else None,
        }
        for row in found
    ]
    return connection.execute(_STOP, {"rows": as_json_rows(rows)}).rowcount if rows else 0


_KILLED = text("""
    SELECT location_id, capability, attempt_id, ended_at, reruns FROM location_standings
    WHERE attempt_id = ANY(CAST(:attempts AS bigint[])) AND cause = 'killed'
      AND (requested_at IS NULL OR requested_at < ended_at)
    ORDER BY location_id, capability FOR UPDATE
""")
# It was counted as a failure when it ended, and is none.
_STOP = text("""
    UPDATE location_standings AS standing
    SET cause = 'stopped', rerun_at = told.rerun_at, failures = greatest(failures - 1, 0),
        failing_since = CASE WHEN failures > 1 THEN failing_since END
    FROM json_to_recordset(CAST(:rows AS json)) AS told (location_id text, capability text, rerun_at timestamptz)
    WHERE standing.location_id = told.location_id AND standing.capability = told.capability
""")
