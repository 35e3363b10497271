"""Vendors and leads of a marketplace, kept in step with GHL."""
