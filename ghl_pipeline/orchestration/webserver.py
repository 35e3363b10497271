"""Dagster's webserver as an application that another server can run, with our guard around it.

Dagster documents a command and no more. What is used of its inside is what that command uses (`dagster_webserver.cli`
of 1.13.27), and a test holds it to that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.types import ASGIApp

# The command's own values: what a person waits for is given up sooner than what a run does.
STATEMENT_TIMEOUT_MS: Final = 15_000
RECYCLE_CONNECTIONS_SECONDS: Final = 3600
MORE_CONNECTIONS: Final = 20
POLL_EVERY_MS: Final = 2000


@contextmanager
def webserver(workspace: Path, *, read_only: bool) -> Iterator[ASGIApp]:
    """The webserver over the instance in `DAGSTER_HOME`; its code locations are loaded when it is given.

    Args:
        workspace: a `workspace.yaml`. For a module in it a code server is started; one that runs already is asked.
        read_only: whether Dagster refuses all mutations.

    Raises:
        ConfigurationError, DatabaseUnavailable: from the storage, with what to do.
    """
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_TIMEOUT_MS, RECYCLE_CONNECTIONS_SECONDS, MORE_CONNECTIONS)
        with WorkspaceProcessContext(
            instance,
            WorkspaceFileTarget(paths=[str(workspace)]),
            version=__version__,
            read_only=read_only,
            code_server_log_level="warning",
        ) as context:
            yield create_app_from_workspace_process_context(context, live_data_poll_rate=POLL_EVERY_MS)
