"""The default run launcher, taught to notice runs whose process is gone.

Named by `dagster.yaml`. The stock launcher has no health check: after a power cut, or a kill of the code server, a run
stays STARTED for ever and keeps its place in the queue. With this one, run monitoring fails such a run within seconds
and crash retries take it up.
"""

from collections.abc import Mapping
from typing import Self

from dagster import DagsterRun, DefaultRunLauncher
from dagster._config.config_schema import UserConfigSchema
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
        """Asks the code server recorded in the run's tags. No answer means that server, and so the run, is gone."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call] # untyped in Dagster
        if client is None:
            return _health_of_own_process(run)
        request = CanCancelExecutionRequest(run_id=run.run_id)
        try:
            answer = client.can_cancel_execution(request, timeout=ANSWER_WITHIN_SECONDS)
            alive = deserialize_value(answer, CanCancelExecutionResult).can_cancel
        except Exception as error:  # noqa: BLE001 - gRPC raises many kinds, and all mean the same here
            return CheckRunHealthResult(
                WorkerStatus.NOT_FOUND, f"the code server of the run does not answer ({type(error).__name__})"
            )
        if alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the process of the run is gone")


def _health_of_own_process(run: DagsterRun) -> CheckRunHealthResult:
    """The health of a run that no code server executes: one of a command line, if it says so."""
    gone = is_gone(run.tags.get(PROCESS_TAG, ""))
    if gone is None:
        return CheckRunHealthResult(WorkerStatus.UNKNOWN, "no code server is recorded for this run")
    if gone:
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the process of the run is gone")
    return CheckRunHealthResult(WorkerStatus.RUNNING)
