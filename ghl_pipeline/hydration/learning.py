"""What is learned of a location and kept for the next run: how many addresses one search takes.

Table: `location_learning`. Its `updated_at` is when the ceiling was learned or last tried again, not when the size was:
a refusal can be a passing mood of GHL, so that a ceiling is not believed for ever.
"""

from datetime import timedelta

from sqlalchemy import Engine, text

from ghl_pipeline.hydration.lookup import MAX_GROUP, GroupSize

CEILING_IS_BELIEVED_FOR = timedelta(days=7)


def load_group_size(engine: Engine, location_id: str, default: int) -> GroupSize:
    """The location's learned group size; `default` for a location never asked.

    A ceiling older than a week comes back doubled (at most `MAX_GROUP`): groups then grow into it and find out.
    """
    query = text("""
        SELECT group_size, group_ceiling, updated_at < now() - CAST(:believed_for AS interval) AS is_old
        FROM location_learning WHERE location_id = :location_id
    """)
    with engine.connect() as connection:
        row = connection.execute(
            query, {"location_id": location_id, "believed_for": CEILING_IS_BELIEVED_FOR}
        ).one_or_none()
    if row is None:
        return GroupSize(default, MAX_GROUP)
    return GroupSize(row.group_size, min(MAX_GROUP, row.group_ceiling * 2) if row.is_old else row.group_ceiling)


def save_group_size(engine: Engine, location_id: str, learned: GroupSize) -> None:
    """Keeps what was learned.

    The ceiling counts as learned now when it differs from the stored one, or when that was old and thus tried again:
    refused anew, it is believed for another week, which costs one refused attempt a week and not one a run.
    """
    upsert = text("""
        INSERT INTO location_learning AS known (location_id, group_size, group_ceiling)
        VALUES (:location_id, :size, :ceiling)
        ON CONFLICT (location_id) DO UPDATE
        SET group_size = excluded.group_size, group_ceiling = excluded.group_ceiling,
            updated_at = CASE
                WHEN known.group_ceiling <> excluded.group_ceiling
                    OR known.updated_at < now() - CAST(:believed_for AS interval) THEN now()
                ELSE known.updated_at
            END
    """)
    values = {
        "location_id": location_id,
        "size": learned.size,
        "ceiling": learned.ceiling,
        "believed_for": CEILING_IS_BELIEVED_FOR,
    }
    with engine.begin() as connection:
        connection.execute(upsert, values)
