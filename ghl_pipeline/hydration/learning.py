"""What is learned of a location and kept for the next run: how many addresses one search takes.

Table: `location_learning`.
"""

from sqlalchemy import Engine, text

from ghl_pipeline.hydration.lookup import MAX_GROUP, GroupSize


def load_group_size(engine: Engine, location_id: str, default: int) -> GroupSize:
    """The location's learned group size; `default` for a location never asked."""
    query = text("SELECT group_size, group_ceiling FROM location_learning WHERE location_id = :location_id")
    with engine.connect() as connection:
        row = connection.execute(query, {"location_id": location_id}).one_or_none()
    if row is None:
        return GroupSize(default, MAX_GROUP)
    return GroupSize(row.group_size, row.group_ceiling)


def save_group_size(engine: Engine, location_id: str, learned: GroupSize) -> None:
    """Keeps what was learned."""
    upsert = text("""
        INSERT INTO location_learning (location_id, group_size, group_ceiling) VALUES (:location_id, :size, :ceiling)
        ON CONFLICT (location_id) DO UPDATE
        SET group_size = excluded.group_size, group_ceiling = excluded.group_ceiling, updated_at = now()
    """)
    values = {"location_id": location_id, "size": learned.size, "ceiling": learned.ceiling}
    with engine.begin() as connection:
        connection.execute(upsert, values)
