"""Which locations an operator's command has behind it, from the record of attempts (table `location_attempts`)."""

from collections.abc import Sequence

from sqlalchemy import Engine, text


def latest_attempt(engine: Engine) -> int:
    """The id of the newest attempt at any location; 0 when there is none."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM location_attempts")).scalar_one())


def locations_ended(engine: Engine, location_ids: Sequence[str], *, after: int) -> int:
    """How many of the locations have an attempt that began after the one with id `after` and has ended, however."""
    query = text("""
        SELECT count(DISTINCT location_id) FROM location_attempts
        WHERE capability = 'hydration' AND location_id = ANY(CAST(:location_ids AS text[])) AND id > :after
          AND ended_at IS NOT NULL
    """)
    with engine.connect() as connection:
        return int(connection.execute(query, {"location_ids": list(location_ids), "after": after}).scalar_one())
