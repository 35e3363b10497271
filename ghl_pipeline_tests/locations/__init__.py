"""Tests of the locations room: clients and their import from CSV."""
