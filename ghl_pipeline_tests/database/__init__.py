"""Tests of the database room: embedded server, connections, migrations."""
