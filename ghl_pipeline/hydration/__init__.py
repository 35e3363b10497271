"""Eligible leads -> resolved contacts -> hydrated leads, for backfills and for one lead at a time."""
