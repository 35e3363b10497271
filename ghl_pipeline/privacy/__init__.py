"""Keeping people out of logs, and tokens out of sight: redaction of text and log records, encryption at rest."""
