"""A record of every attempt at a location: when, by which run, how it ended, with what counts.

Table: `location_attempts`. Checks, reruns and `status` read it; a run's own failure event names only the run.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Engine, text

from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.orchestration.failures import FailedLocation

HYDRATION = "hydration"
# Errors of a location as a whole that stay until somebody acts: `ghl.errors`, `emailbison.errors`, `calendly.errors`,
# `locations.clients`, `privacy.tokens`.
REFUSALS = (
    "TokenRejected", "LocationAccessDenied", "ScopeMissing", "TokenMissing", "TokenUnreadable",
    "EmailBisonAccessDenied", "EmailBisonWrongWorkspace", "CalendlyAccessDenied",
)  # fmt: skip
HELD_BACK_HOURS = 24


def begin_attempt(engine: Engine, location_id: str, run_id: str | None, capability: str = HYDRATION) -> int:
    """Notes that work on the location begins; older attempts that never ended were killed and are marked so.

    Returns:
        The attempt's id. Call only while nobody else can be at this work there (hydration: holding the location's
        lease): that is what proves the older ones dead.
    """
    values = {"location_id": location_id, "capability": capability, "run_id": run_id}
    killed = text("""
        UPDATE location_attempts SET state = 'interrupted', ended_at = now()
        WHERE location_id = :location_id AND capability = :capability AND state = 'running'
    """)
    begin = text("""
        INSERT INTO location_attempts (location_id, capability, run_id) VALUES (:location_id, :capability, :run_id)
        RETURNING id
    """)
    with engine.begin() as connection:
        connection.execute(killed, values)
        return int(connection.execute(begin, values).scalar_one())


def end_attempt(
    engine: Engine,
    attempt_id: int,
    state: str,
    *,
    report: Mapping[str, object] | None = None,
    failure: FailedLocation | None = None,
) -> None:
    """Notes how an attempt ended: `succeeded`, `failed` or `interrupted`."""
    end = text("""
        UPDATE location_attempts
        SET state = :state, ended_at = now(), error_class = :error_class, error_text = :error_text,
            permanent = :permanent, report = CAST(:report AS jsonb)
        WHERE id = :id
    """)
    values = {
        "id": attempt_id,
        "state": state,
        "error_class": failure.error_class if failure else None,
        "error_text": failure.text if failure else None,
        "permanent": failure.permanent if failure else None,
        "report": msgspec.json.encode(report or {}).decode(),
    }
    with engine.begin() as connection:
        connection.execute(end, values)


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


def held_back(connection: Connection, capability: str, *, also: Sequence[str] = ()) -> set[str]:
    """Locations that refused us as a whole at the last try, less than a day ago, of clients that did not change since.

    Args:
        connection: the dashboard database.
        capability: at which work.
        also: classes of errors, by name, that stop this work until a person has looked. A change of how vendors and
            leads are kept in step (`clients set-crm`) is such a look.

    Trying again changes nothing until somebody acts, and a run that fails every few minutes hides the new failures of
    others. A new token, or any other change of the client, lets the location go on at once; where EmailBison refused,
    a change of its workspace does.
    """
    query = text("""
        SELECT latest.location_id
        FROM clients AS client
        LEFT JOIN emailbison_workspaces AS workspace ON workspace.client_id = client.id
        LEFT JOIN crm_clients AS crm ON crm.client_id = client.id
        CROSS JOIN LATERAL (
            SELECT location_id, state, error_class, ended_at FROM location_attempts
            WHERE capability = :capability AND location_id = client.location_id AND error_class IS DISTINCT FROM :busy
            ORDER BY id DESC LIMIT 1
        ) AS latest
        WHERE latest.state = 'failed' AND latest.error_class = ANY(CAST(:refusals AS text[]))
          AND latest.ended_at > now() - make_interval(hours => :hours)
          AND client.updated_at < latest.ended_at
          -- Its row changes each hour that its events are read, which says nothing of GHL's refusals.
          AND (workspace.updated_at IS NULL OR workspace.updated_at < latest.ended_at
               OR NOT starts_with(latest.error_class, 'EmailBison'))
          AND (crm.updated_at IS NULL OR crm.updated_at < latest.ended_at
               OR latest.error_class <> ALL(CAST(:also AS text[])))
    """)
    values = {
        "capability": capability,
        "busy": LocationBusy.__name__,
        "refusals": [*REFUSALS, *also],
        "also": list(also),
        "hours": HELD_BACK_HOURS,
    }
    return set(connection.execute(query, values).scalars())


def record_refusal(engine: Engine, failure: FailedLocation, run_id: str | None, capability: str = HYDRATION) -> None:
    """Notes a location that failed before any work began: no token, unknown, or held by another run."""
    insert = text("""
        INSERT INTO location_attempts
            (location_id, capability, run_id, state, error_class, error_text, permanent, ended_at)
        VALUES (:location_id, :capability, :run_id, 'failed', :error_class, :error_text, :permanent, now())
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
        connection.execute(insert, values)
