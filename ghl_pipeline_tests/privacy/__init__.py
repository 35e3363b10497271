"""Tests of the privacy room: redaction and token encryption."""
