"""Alerts: which failures are news, the outbox they wait in, and the channels they go to."""
