"""Metrics for Prometheus: which there are, what the database knows, and their text."""
