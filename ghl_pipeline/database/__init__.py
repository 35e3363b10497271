"""PostgreSQL: the tables, the engine, the migrations, and the embedded server for machines without one."""
