"""Dagster's UI behind a guard: who may ask what of it, and how it is served."""
