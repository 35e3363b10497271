"""What every test shares: fixtures, one module in `fixtures/` for each real part (database, sandbox, project)."""

pytest_plugins = [
    "ghl_pipeline_tests.fixtures.database",
    "ghl_pipeline_tests.fixtures.sandbox",
    "ghl_pipeline_tests.fixtures.project",
]
