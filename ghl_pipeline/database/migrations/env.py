"""Alembic's entry point. The caller, `ghl_pipeline.database.migrate`, brings the connection and its transaction."""

from alembic import context

from ghl_pipeline.database.migrate import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
