"""Tests of ghl_pipeline: the same folders as the package, told as the behaviour a user sees."""
