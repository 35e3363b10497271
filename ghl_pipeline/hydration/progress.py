"""How far the lists in work have come, and what became of the attempts: what a progress display reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, text

from ghl_pipeline.orchestration.attempts import HYDRATION
from ghl_pipeline.orchestration.failures import FailedLocation


@dataclass(frozen=True, slots=True)
class Progress:
    """Leads of the lists of some locations: listed, looked up, written; and how many of the locations have a list.

    `pulled` and `to_pull` are contacts, of the locations whose plan is a scan or a delta.
    """

    locations: int
    listed: int
    looked_up: int
    written: int
    pulled: int = 0
    to_pull: int = 0


def read_progress(engine: Engine, location_ids: Sequence[str]) -> Progress:
    """The sum over the locations' latest lists."""
    query = text("""
        SELECT count(*) AS locations, coalesce(sum(list.listed), 0) AS listed,
               coalesce(sum(list.looked_up), 0) AS looked_up, coalesce(sum(list.written), 0) AS written,
               coalesce(sum(CAST(list.plan ->> 'received' AS bigint)), 0) AS pulled,
               coalesce(sum(CAST(list.plan ->> 'total' AS bigint)), 0) AS to_pull
        FROM work_lists AS list JOIN clients AS client ON client.id = list.client_id
        WHERE client.location_id = ANY(CAST(:location_ids AS text[]))
    """)
    with engine.connect() as connection:
        row = connection.execute(query, {"location_ids": list(location_ids)}).one()
    return Progress(
        int(row.locations), int(row.listed), int(row.looked_up), int(row.written), int(row.pulled), int(row.to_pull)
    )


def failures_of_run(engine: Engine, run_id: str) -> list[FailedLocation]:
    """The locations that failed in a run, with the texts that were recorded, in the order in which they failed."""
    query = text("""
        SELECT location_id, error_class, error_text, coalesce(permanent, false) AS permanent FROM location_attempts
        WHERE run_id = :run_id AND capability = :capability AND state = 'failed' ORDER BY id
    """)
    with engine.connect() as connection:
        rows = connection.execute(query, {"run_id": run_id, "capability": HYDRATION}).all()
    return [FailedLocation(row.location_id, row.error_class, row.error_text, row.permanent) for row in rows]


def latest_attempt(engine: Engine) -> int:
    """The id of the newest attempt at any location; 0 when there is none."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM location_attempts")).scalar_one())


def locations_ended(engine: Engine, location_ids: Sequence[str], *, after: int) -> int:
    """How many of the locations have an attempt that began after the one with id `after` and has ended, however."""
    query = text("""
        SELECT count(DISTINCT location_id) FROM location_attempts
        WHERE capability = :capability AND location_id = ANY(CAST(:location_ids AS text[])) AND id > :after
          AND ended_at IS NOT NULL
    """)
    values = {"location_ids": list(location_ids), "after": after, "capability": HYDRATION}
    with engine.connect() as connection:
        return int(connection.execute(query, values).scalar_one())
