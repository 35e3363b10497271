"""The instance that `dagster.yaml` describes: pooled storage, a launcher that notices dead runs, the queue's rules.

Both classes build on interfaces that Dagster does not document; these tests are what an upgrade has to pass.
"""

import logging
import socket
import subprocess
import sys
from typing import Any, cast

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from sqlalchemy import Engine, QueuePool

from ghl_pipeline.definitions import build_defs
from ghl_pipeline.orchestration import launcher
from ghl_pipeline.orchestration.launcher import HealthCheckedRunLauncher
from ghl_pipeline.orchestration.processes import PROCESS_TAG, is_gone, process_tag, this_process
from ghl_pipeline.orchestration.storage import PooledPostgresStorage


def started_run(instance: DagsterInstance, **tags: str) -> dg.DagsterRun:
    job = build_defs().resolve_job_def("hydrate_leads")
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)


def test_the_storage_speaks_psycopg2_through_a_pool(instance: DagsterInstance) -> None:
    storage = instance._ref.storage if instance._ref else None
    assert isinstance(storage, PooledPostgresStorage)
    for part in (instance.event_log_storage, instance.run_storage, instance.schedule_storage):
        engine: Engine = vars(part)["_engine"]  # what is checked here is not public
        assert isinstance(engine.pool, QueuePool)
        assert engine.url.drivername == "postgresql+psycopg2"


def test_the_queue_retries_crashes_and_nothing_else(instance: DagsterInstance) -> None:
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 2
    assert instance.run_retries_retry_on_asset_or_op_failure is False
    assert instance.run_monitoring_enabled
    assert not instance.telemetry_enabled


def test_the_launcher_is_asked_for_the_health_of_runs(instance: DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, HealthCheckedRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health


def monitored(instance: DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    """The run's status after one look of Dagster's run monitoring."""
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    monitor_started_run(instance, cast("Any", None), record, logging.getLogger("monitoring"))
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_whose_code_server_is_gone_is_failed(instance: DagsterInstance) -> None:
    run = started_run(instance, **{GRPC_INFO_TAG: '{"host": "127.0.0.1", "port": 9}'})
    assert monitored(instance, run) is dg.DagsterRunStatus.FAILURE


def test_a_code_server_that_is_slow_to_answer_has_not_lost_its_run(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "ANSWER_WITHIN_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        run = started_run(instance, **{GRPC_INFO_TAG: f'{{"host": "127.0.0.1", "port": {port}}}'})
        assert monitored(instance, run) is dg.DagsterRunStatus.STARTED


def test_a_command_lines_run_lives_as_long_as_its_process(instance: DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        run = started_run(instance, **{PROCESS_TAG: process_tag(child.pid)})
        assert monitored(instance, run) is dg.DagsterRunStatus.STARTED
        child.kill()
        child.wait()
    assert monitored(instance, run) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("tags", [{}, {PROCESS_TAG: "another-host/4711/1"}])
def test_a_run_that_cannot_be_judged_is_left_alone(instance: DagsterInstance, tags: dict[str, str]) -> None:
    assert monitored(instance, started_run(instance, **tags)) is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("process", ["", "nonsense", "another-host/1/1", "vm"])
def test_other_hosts_processes_cannot_be_judged(process: str) -> None:
    assert is_gone(process) is None


def test_a_reused_pid_is_not_the_process() -> None:
    host, pid, _ = this_process().split("/")
    assert is_gone(this_process()) is False
    assert is_gone(f"{host}/{pid}/1") is True
