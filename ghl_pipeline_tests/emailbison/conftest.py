"""A workspace at the sandbox, and a client that speaks to it over HTTP."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from ghl_pipeline.emailbison.client import WorkspaceClient, open_workspace
from ghl_pipeline.emailbison.retries import RetryPolicy
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent, BisonLead
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

# Retries that a test can wait for.
QUICK = RetryPolicy(max_attempts=3, deadline_seconds=5.0, first_pause_seconds=0.01)


@pytest.fixture
def workspace(sandbox: Sandbox) -> Workspace:
    location = sandbox.add_location()
    leads = [BisonLead(id=number, email=f"lead.{number}@example.com") for number in range(1, 21)]
    return sandbox.world.add_workspace(location.id, leads=leads)


@pytest.fixture
async def client(sandbox: Sandbox, workspace: Workspace) -> AsyncIterator[WorkspaceClient]:
    async with open_workspace(
        base_url=f"{sandbox.url}/emailbison",
        workspace_id=workspace.id,
        token=SecretStr(workspace.token),
        timeout_seconds=1.0,
        policy=QUICK,
    ) as opened:
        yield opened


def replies(workspace: Workspace, count: int, *, every: timedelta = timedelta(minutes=1)) -> list[datetime]:
    """Makes that many leads reply, the last one just now; returns when, oldest first."""
    now = datetime.now(UTC).replace(microsecond=0)
    times = [now - every * (count - 1 - number) for number in range(count)]
    for number, at in enumerate(times):
        lead = workspace.leads[number % len(workspace.leads) + 1]
        workspace.happens(BisonEvent.LEAD_REPLIED, lead, now=int(at.timestamp() * 1000))
    return times
