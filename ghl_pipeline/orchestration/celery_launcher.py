"""The launcher for runs on several machines: through Celery's queue, with an eye on who executes what.

Named by the production `dagster.yaml`. Dagster's own Celery launcher believes the queue, which says STARTED for ever
when a worker's host is gone. This one believes the run's presence (`presence.py`): a run that began and that nobody
executes is failed by run monitoring, and crash retries take it up on another worker.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self

from dagster import DagsterInvariantViolationError, DagsterRun, DagsterRunStatus
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import pack_value
from dagster._serdes.config_class import ConfigurableClassData
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ghl_pipeline.database.connection import create_engine, database_urls
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.orchestration.celery_app import CELERY_SETTINGS, QUEUE, WORKER_TAG, broker_url
from ghl_pipeline.orchestration.presence import is_present
from ghl_pipeline.orchestration.processes import PROCESS_TAG, is_gone
from ghl_pipeline.orchestration.unbegun import UnbegunRuns
from ghl_pipeline.settings import load_settings

# `celery_app` has said what to install if this cannot be imported.
from dagster_celery.config import TASK_EXECUTE_JOB_NAME  # isort: skip
from dagster_celery.launcher import CeleryRunLauncher  # isort: skip
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG  # isort: skip

# How long nobody may be present before a run counts as lost: a restarted database forgets all presences, and each is
# back within `presence.LOOK_EVERY_SECONDS`.
GONE_FOR_SECONDS = 12.0


class PresenceCheckedCeleryLauncher(CeleryRunLauncher):
    """Runs are tasks in a queue; whether one is executed is asked of the dashboard database."""

    def __init__(
        self,
        *,
        broker: str,
        engine: Callable[[], Engine],
        inst_data: ConfigurableClassData | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(default_queue=QUEUE, broker=broker, config_source=dict(CELERY_SETTINGS), inst_data=inst_data)
        self._open_engine = engine
        self._engine: Engine | None = None
        self._clock = clock
        self._missed_since: dict[str, float] = {}
        self._unbegun = UnbegunRuns(
            begun=self._has_begun, executed=self._is_executed, waiting=self._waiting, clock=clock
        )

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration: everything is in the settings, and no URL is written down."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster for every instance.

        Raises:
            ConfigurationError: there is no queue; the text says what to set.
        """
        del config_value
        settings = load_settings()

        def engine() -> Engine:
            return create_engine(database_urls(settings).app, pool_size=1)

        return cls(broker=broker_url(settings), engine=engine, inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Queues the run, and looks after it until somebody has begun it."""
        run = context.dagster_run
        if run.job_code_origin is None:
            raise DagsterInvariantViolationError("The run does not say where its code is.")
        order = ExecuteRunArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        packed, task_id = pack_value(order), str(uuid.uuid4())
        # First, so that nobody meets a run in the queue of which it is not known that it is there.
        self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: task_id})

        def send() -> None:
            self.celery.send_task(
                TASK_EXECUTE_JOB_NAME, kwargs={"execute_job_args_packed": packed}, task_id=task_id, queue=QUEUE
            )

        send()
        self._instance.report_engine_event("Queued for a worker.", run, cls=self.__class__)
        self._unbegun.add(run.run_id, send)

    @property
    def supports_resume_run(self) -> bool:
        """No: a run that lost its worker is failed and retried, from its resume point."""
        return False

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether somebody executes the run. Dagster asks of runs that began.

        Dagster fails a run for any answer but RUNNING, so what cannot be judged is RUNNING: while the database does not
        answer, a command line's run on another host.
        """
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            gone = is_gone(run.tags.get(PROCESS_TAG, ""))
            return _lost("the process of the run is gone") if gone else CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            executed = is_present(self._database(), run.run_id)
        except (SQLAlchemyError, PipelineError):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        now = self._clock()
        if executed:
            self._missed_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if now - self._missed_since.setdefault(run.run_id, now) < GONE_FOR_SECONDS:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missed_since[run.run_id]
        return _lost(
            f"nobody executes the run any more; it was begun by {run.tags.get(WORKER_TAG, 'an unknown worker')}"
        )

    def terminate(self, run_id: str) -> bool:
        """Stops the run wherever it is: in the queue, or at its worker, which cleans up and ends as CANCELED."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        task_id = run.tags[DAGSTER_CELERY_TASK_ID_TAG]
        if is_present(self._database(), run_id):
            self.celery.control.revoke(task_id, terminate=True, signal="SIGTERM")
            return True
        # It waits in the queue, or its worker is gone. Who takes it from the queue all the same finds it canceled.
        self.celery.control.revoke(task_id)
        waiting = self._instance.get_run_by_id(run_id)
        if waiting is not None and waiting.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(
                waiting, "Canceled before a worker took it, or after its worker was gone."
            )
        return True

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What is said of a run that took too long to begin or to end."""
        del include_container_logs
        if worker := run.tags.get(WORKER_TAG):
            return f"Worker: {worker}."
        return "No worker took it. Look whether workers run and are not all busy: ghl-pipeline worker --check"

    def dispose(self) -> None:
        """Closes the connections to the database and to the queue."""
        self._unbegun.close()
        if self._engine is not None:
            self._engine.dispose()
        self.celery.close()

    def _has_begun(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        return run is None or run.status is not DagsterRunStatus.STARTING

    def _is_executed(self, run_id: str) -> bool:
        return is_present(self._database(), run_id)

    def _waiting(self) -> int:
        with self.celery.connection_for_read() as connection:
            try:
                return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)
            except connection.channel_errors:  # Redis keeps no empty list, so an empty queue is none
                return 0

    def _database(self) -> Engine:
        if self._engine is None:
            self._engine = self._open_engine()
        return self._engine


def _lost(what: str) -> CheckRunHealthResult:
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, what)
