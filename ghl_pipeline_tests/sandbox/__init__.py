"""Proofs that the sandbox answers like GHL, fails when told to, and counts truly."""
