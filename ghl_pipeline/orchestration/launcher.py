"""The default run launcher, taught to notice runs whose process is gone.

Named by `dagster.yaml`. The stock launcher has no health check: after a power cut, or a kill of the code server, a run
stays STARTED for ever and keeps its place in the queue. With this one, run monitoring fails such a run within seconds
and crash retries take it up.
"""

from collections.abc import Mapping
from typing import Self

import grpc
from dagster import DagsterRun, DefaultRunLauncher
from dagster._config.config_schema import UserConfigSchema
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value
from dagster._serdes.config_class import ConfigurableClassData

from ghl_pipeline.orchestration.processes import PROCESS_TAG, is_gone

ANSWER_WITHIN_SECONDS = 5


class HealthCheckedRunLauncher(DefaultRunLauncher):
    """Runs are processes of the code server that started them; that server says whether they are still there."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, object]) -> Self:
        """Called by Dagster for every instance."""
        del config_value
        return cls(inst_data=inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Switches Dagster's run monitoring on for this launcher."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is still there, asked of the code server that started it.

        Dagster fails a run for any answer but RUNNING, so what cannot be judged is RUNNING: a server that is slow to
        answer, a command line on another host, a run that says nothing of its process.
        """
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call] # untyped there
        if client is None:
            gone = is_gone(run.tags.get(PROCESS_TAG, ""))
            return _process_is_gone() if gone else CheckRunHealthResult(WorkerStatus.RUNNING)
        request = CanCancelExecutionRequest(run_id=run.run_id)
        try:
            answer = client.can_cancel_execution(request, timeout=ANSWER_WITHIN_SECONDS)
        except DagsterUserCodeUnreachableError as error:
            cause = error.__cause__
            if isinstance(cause, grpc.Call) and cause.code() is grpc.StatusCode.UNAVAILABLE:
                return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server of the run is gone")
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        alive = deserialize_value(answer, CanCancelExecutionResult).can_cancel
        return CheckRunHealthResult(WorkerStatus.RUNNING) if alive else _process_is_gone()


def _process_is_gone() -> CheckRunHealthResult:
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the process of the run is gone")
