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
from sqlalchemy import Engine, QueuePool, make_url, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.connection import GONE_AFTER_MS
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.orchestration import launcher, storage
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


def test_a_machine_lost_in_the_middle_of_a_write_keeps_the_others_waiting_for_a_moment_only(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of an asset is everybody's: whoever has it locked holds up the events of all locations."""
    monkeypatch.setattr(storage, "IDLE_IN_TRANSACTION_TIMEOUT_SECONDS", 1)
    lost = cast(Any, PooledPostgresStorage.from_config_value(None, {}).event_log_storage)
    with pytest.raises(DBAPIError), lost.index_transaction() as connection:  # noqa: PT012 - it ends while others wait
        connection.execute(text("""INSERT INTO asset_keys (asset_key) VALUES ('["one"]')"""))
        instance.report_runless_asset_event(dg.AssetMaterialization("one"))
        connection.execute(text("SELECT 1"))
    assert instance.get_latest_materialization_event(dg.AssetKey("one")) is not None


def test_whoever_waits_for_a_lost_machine_outlasts_it(instance: DagsterInstance) -> None:
    engine = cast(Engine, cast(Any, instance.event_log_storage)._engine)
    names = "statement_timeout", "idle_in_transaction_session_timeout"
    with engine.connect() as connection:
        told = {name: connection.execute(text(f"SHOW {name}")).scalar_one() for name in names}
    assert told == {"statement_timeout": "2min", "idle_in_transaction_session_timeout": "30s"}
    assert storage.STATEMENT_TIMEOUT_MS >= 1.5 * GONE_AFTER_MS


def test_what_the_url_says_of_its_sessions_holds(monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance) -> None:
    url = make_url(cast(Any, instance.event_log_storage).postgres_url)
    own = url.update_query_dict({"options": "-c idle_in_transaction_session_timeout=7s"})
    monkeypatch.setenv("GHL_PIPELINE_DAGSTER_DATABASE_URL", own.render_as_string(hide_password=False))
    engine = cast(Any, PooledPostgresStorage.from_config_value(None, {}).run_storage)._engine
    with engine.connect() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "7s"


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
