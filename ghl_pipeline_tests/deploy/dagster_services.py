"""The daemon and the code server of a test, and runs asked for as the UI asks for them."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from dagster import DagsterInstance, DagsterRun
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster_graphql.schema import create_schema

from ghl_pipeline_tests.deploy.hosts import STOP_WITHIN_SECONDS, wait_until

LAUNCH = """
mutation($params: [ExecutionParams!]!) {
  launchMultipleRuns(executionParamsList: $params) {
    __typename
    ... on LaunchMultipleRunsResult { launchMultipleRunsResult {
      __typename
      ... on LaunchRunSuccess { run { runId } }
      ... on PythonError { message }
      ... on RunConfigValidationInvalid { errors { message } }
    } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }
"""
ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def program(log: Path, environment: Mapping[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this side, stopped at the end."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *command], env=dict(environment), stdout=file, stderr=file, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Orders:
    """What a person does in the UI, by its GraphQL, without the web server between."""

    def __init__(self, instance: DagsterInstance, port: int) -> None:
        self._context = WorkspaceProcessContext(instance, GrpcServerTarget("127.0.0.1", port, None, "ghl_pipeline"))
        self._schema = create_schema()

    def close(self) -> None:
        """Lets go of the code server."""
        self._context.__exit__(None, None, None)

    def launch(self, job: str, op: str, locations: Sequence[Sequence[str]]) -> list[str]:
        """A run for each list of locations; returns their ids."""
        selector = {"repositoryLocationName": "ghl_pipeline", "repositoryName": "__repository__", "jobName": job}
        params = [
            {
                "selector": selector,
                "runConfigData": {"ops": {op: {"config": {"locations": list(places)}}}},
                "mode": "default",
            }
            for places in locations
        ]
        found = self._ask(LAUNCH, params=params)["launchMultipleRuns"]
        runs = found.get("launchMultipleRunsResult", [])
        assert [run["__typename"] for run in runs] == ["LaunchRunSuccess"] * len(params), found
        return [run["run"]["runId"] for run in runs]

    def terminate(self, run_id: str) -> None:
        """The UI's Terminate."""
        found = self._ask(TERMINATE, id=run_id)["terminateRun"]
        assert found["__typename"] == "TerminateRunSuccess", found

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        context = self._context.create_request_context()
        answer = asyncio.run(self._schema.execute_async(query, context_value=context, variables=variables))
        assert not answer.errors, answer.errors
        return cast("dict[str, Any]", answer.data)


@contextlib.contextmanager
def dagster_services(folder: Path, environment: Mapping[str, str], instance: DagsterInstance) -> Iterator[Orders]:
    """Code server and daemon, as compose.yaml starts them."""
    port = free_port()
    environment = {**environment, "GHL_PIPELINE_CODE_HOST": "127.0.0.1", "GHL_PIPELINE_CODE_PORT": str(port)}
    code = (
        "-m", "dagster", "code-server", "start", "--host", "127.0.0.1", "--port", str(port),
        "--module-name", "ghl_pipeline.definitions",
    )  # fmt: skip
    daemon = ("-m", "dagster._daemon", "run", "--workspace", str(ROOT / "deploy" / "workspace.yaml"))
    with program(folder / "code.log", environment, *code), program(folder / "daemon.log", environment, *daemon):
        wait_until(lambda: _serves(port), 60, lambda: (folder / "code.log").read_text()[-2000:])
        orders = Orders(instance, port)
        try:
            yield orders
        finally:
            orders.close()


def _serves(port: int) -> bool:
    check = [sys.executable, "-W", "ignore", "-m", "dagster", "api", "grpc-health-check", "--port", str(port)]
    return subprocess.run(check, check=False, capture_output=True).returncode == 0


def runs_by_id(instance: DagsterInstance) -> dict[str, DagsterRun]:
    """All runs."""
    return {run.run_id: run for run in instance.get_runs()}
