"""The seam to Dagster: what a capability reports, how that becomes history, the instance classes, runs from the CLI."""
