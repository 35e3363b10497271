"""Events in the database: stored once, claimed, tried again, buried, replayed, purged."""
