"""Alembic migrations of the dashboard database; `ghl_pipeline.database.migrate` runs them."""
