"""Fixtures of operation."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline_tests.operations.agency import Agency


@pytest.fixture
def agency(engine: Engine) -> Agency:
    """An agency without clients."""
    return Agency(engine)
