"""Repairs an agency's lead database from its clients' GoHighLevel contacts and keeps it repaired."""
