"""A user of Calendly at the sandbox, and a client that speaks to it over HTTP."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from ghl_pipeline.calendly.client import CalendlyClient, open_calendly
from ghl_pipeline.calendly.retries import RetryPolicy
from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

# Retries that a test can wait for.
QUICK = RetryPolicy(max_attempts=3, deadline_seconds=5.0, first_pause_seconds=0.01)


@pytest.fixture
def host(sandbox: Sandbox) -> CalendlyUser:
    return sandbox.world.calendly.add("ada")


@pytest.fixture
async def client(sandbox: Sandbox, host: CalendlyUser) -> AsyncIterator[CalendlyClient]:
    async with open_calendly(
        base_url=f"{sandbox.url}/_calendly/",
        location_id="Location000000000001",
        token=SecretStr(host.token),
        timeout_seconds=1.0,
        policy=QUICK,
    ) as opened:
        yield opened
