"""A record of every attempt at a location: when, by which run, how it ended, with what counts.

Table: `location_attempts`; what they come to is kept in `location_standings` (`standings.py`) in the same transaction.
Checks, reruns and `status` read them; a run's own failure event names only the run.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Engine, text

from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.holds import HELD_BACK_HOURS, held_back
from ghl_pipeline.orchestration.rerun_rules import REFUSALS, Cause
from ghl_pipeline.orchestration.standings import Ended, tell_begin, tell_ends, tell_part_succeeded

__all__ = [
    "HELD_BACK_HOURS",
    "HYDRATION",
    "REFUSALS",
    "begin_attempt",
    "end_attempt",
    "held_back",
    "last_record",
    "record_refusal",
    "somebody_was_turned_away",
    "unfinished_since",
]

HYDRATION = "hydration"
# In an attempt's report: a dry run, or one of a few leads only. It says nothing of how the location stands, and must
# not be repeated as work that writes.
TRIAL = "trial"


def begin_attempt(
    engine: Engine, location_id: str, run_id: str | None, capability: str = HYDRATION, *, trial: bool = False
) -> int:
    """Notes that work on the location begins; older attempts that never ended were killed and are marked so.

    Args:
        engine: the dashboard database.
        location_id: where.
        run_id: of the Dagster run, None outside one.
        capability: which work.
        trial: a dry run, or one of a few leads only.

    Returns:
        The attempt's id. Call only while nobody else can be at this work there (hydration: holding the location's
        lease): that is what proves the older ones dead.
    """
    values = {
        "location_id": location_id,
        "capability": capability,
        "run_id": run_id,
        "report": msgspec.json.encode({TRIAL: True} if trial else {}).decode(),
    }
    killed = text(f"""
        UPDATE location_attempts SET state = 'interrupted', ended_at = now()
        WHERE location_id = :location_id AND capability = :capability AND state = 'running'
        RETURNING id, run_id, started_at, ended_at, report ? '{TRIAL}' AS trial
    """)  # noqa: S608 - a constant of ours
    begin = text("""
        INSERT INTO location_attempts (location_id, capability, run_id, report)
        VALUES (:location_id, :capability, :run_id, CAST(:report AS jsonb))
        RETURNING id
    """)
    with engine.begin() as connection:
        dead = [row for row in connection.execute(killed, values).all() if not row.trial]
        if dead:
            last = max(dead, key=lambda row: int(row.id))
            tell_ends(
                connection,
                [
                    Ended(
                        location_id,
                        capability,
                        last.id,
                        last.run_id,
                        "interrupted",
                        last.started_at,
                        last.ended_at,
                        Cause.KILLED,
                    )
                ],
            )
        attempt_id = int(connection.execute(begin, values).scalar_one())
        if not trial:
            tell_begin(connection, location_id, capability, attempt_id, run_id)
    return attempt_id


def end_attempt(
    engine: Engine,
    attempt_id: int,
    state: str,
    *,
    report: Mapping[str, object] | None = None,
    failure: FailedLocation | None = None,
    whole: bool = True,
) -> None:
    """Notes how an attempt ended.

    Args:
        engine: the dashboard database.
        attempt_id: as `begin_attempt` gave it.
        state: `succeeded`, `failed` or `interrupted`.
        report: counts, for the record.
        failure: why it failed.
        whole: False if only a part of the location's work was asked for: then what failed before is still to be done.
    """
    end = text(f"""
        UPDATE location_attempts
        SET state = :state, ended_at = now(), error_class = :error_class, error_text = :error_text,
            permanent = :permanent, report = report || CAST(:report AS jsonb)
        WHERE id = :id
        RETURNING location_id, capability, run_id, started_at, ended_at, report ? '{TRIAL}' AS trial
    """)  # noqa: S608 - a constant of ours
    values = {
        "id": attempt_id,
        "state": state,
        "error_class": failure.error_class if failure else None,
        "error_text": failure.text if failure else None,
        "permanent": failure.permanent if failure else None,
        "report": msgspec.json.encode(report or {}).decode(),
    }
    with engine.begin() as connection:
        told = connection.execute(end, values).one_or_none()
        if told is None or told.trial:
            return
        if (
            state == "succeeded"
            and not whole
            and tell_part_succeeded(connection, told.location_id, told.capability, attempt_id)
        ):
            return
        cause = failure.cause if failure else None
        if state == "interrupted":
            # A run that is stopped in the UI looks like one whose machine goes down; how the run ended tells them apart
            # a moment later (`operations/settling.py`). Outside a run it was Ctrl-C.
            cause = Cause.KILLED if told.run_id else Cause.STOPPED
        ended = Ended(
            told.location_id,
            told.capability,
            attempt_id,
            told.run_id,
            state,
            told.started_at,
            told.ended_at,
            cause,
            failure.error_class if failure else None,
            failure.text if failure else None,
            failure.permanent if failure else None,
        )
        tell_ends(connection, [ended])


def somebody_was_turned_away(engine: Engine, attempt_id: int) -> bool:
    """Whether another run found the attempt's location busy since it began."""
    query = text("""
        SELECT EXISTS (
            SELECT FROM location_attempts AS mine JOIN location_attempts AS other USING (location_id, capability)
            WHERE mine.id = :id AND other.id > mine.id AND other.error_class = :busy)
    """)
    with engine.connect() as connection:
        return bool(connection.execute(query, {"id": attempt_id, "busy": LocationBusy.__name__}).scalar_one())


def unfinished_since(engine: Engine, location_id: str, capability: str) -> datetime | None:
    """When the last attempt that succeeded began: what happened since then, no whole attempt has seen.

    When none succeeded yet, the time of the first attempt of all; None when there is none.
    """
    query = text("""
        SELECT coalesce(
            (SELECT started_at FROM location_attempts
             WHERE capability = :capability AND location_id = :location_id AND state = 'succeeded'
             ORDER BY id DESC LIMIT 1),
            (SELECT started_at FROM location_attempts
             WHERE capability = :capability AND location_id = :location_id
             ORDER BY id LIMIT 1))
    """)
    with engine.connect() as connection:
        since: datetime | None = connection.execute(
            query, {"capability": capability, "location_id": location_id}
        ).scalar_one()
        return since


def last_record(engine: Engine, location_id: str, capability: str) -> Mapping[str, object]:
    """What the last attempt that succeeded left on record; empty when none did."""
    query = text("""
        SELECT report FROM location_attempts
        WHERE capability = :capability AND location_id = :location_id AND state = 'succeeded' ORDER BY id DESC LIMIT 1
    """)
    with engine.connect() as connection:
        report: Mapping[str, object] | None = connection.execute(
            query, {"capability": capability, "location_id": location_id}
        ).scalar_one_or_none()
    return report or {}


def record_refusal(engine: Engine, failure: FailedLocation, run_id: str | None, capability: str = HYDRATION) -> None:
    """Notes a location that failed before any work began: no token, unknown, or held by another run.

    That another run held it says nothing of how it stands: that run does.
    """
    insert = text("""
        INSERT INTO location_attempts
            (location_id, capability, run_id, state, error_class, error_text, permanent, ended_at)
        VALUES (:location_id, :capability, :run_id, 'failed', :error_class, :error_text, :permanent, now())
        RETURNING id, ended_at
    """)
    values = {
        "location_id": failure.location_id,
        "capability": capability,
        "run_id": run_id,
        "error_class": failure.error_class,
        "error_text": failure.text,
        "permanent": failure.permanent,
    }
    with engine.begin() as connection:
        told = connection.execute(insert, values).one()
        if failure.error_class == LocationBusy.__name__:
            return
        ended = Ended(
            failure.location_id,
            capability,
            told.id,
            run_id,
            "failed",
            told.ended_at,
            told.ended_at,
            failure.cause,
            failure.error_class,
            failure.text,
            failure.permanent,
        )
        tell_ends(connection, [ended])
