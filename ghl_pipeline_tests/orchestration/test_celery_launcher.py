"""Runs in a queue: whose worker is gone is found out by their presence, and only then.

With several machines, a real queue and real kills: `deploy/test_two_hosts.py`.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.database.locks import AdvisoryLocks, is_held
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.orchestration import presence
from ghl_pipeline.orchestration.celery_app import CELERY_SETTINGS, broker_url, celery_app
from ghl_pipeline.orchestration.celery_launcher import GONE_FOR_SECONDS, PresenceCheckedCeleryLauncher
from ghl_pipeline.orchestration.presence import is_present, present
from ghl_pipeline.orchestration.processes import PROCESS_TAG, process_tag
from ghl_pipeline.orchestration.unbegun import LOST_AFTER_SECONDS, UnbegunRuns
from ghl_pipeline.settings import Settings

PASSWORD = "zyxwinda-s3cret"
ORIGIN = JobPythonOrigin(
    "hydrate_leads",
    RepositoryPythonOrigin(sys.executable, ModuleCodePointer("ghl_pipeline.definitions", "defs", ".")),
)
TASK = {DAGSTER_CELERY_TASK_ID_TAG: "4711"}


class Clock:
    """A clock that stands still until told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def launcher(instance: DagsterInstance, database_url: URL, clock: Clock) -> Iterator[PresenceCheckedCeleryLauncher]:
    """The launcher on the test's instance, with a queue in memory."""
    launcher = PresenceCheckedCeleryLauncher(
        broker="memory://localhost/", engine=lambda: create_engine(database_url, pool_size=1), clock=clock
    )
    launcher.register_instance(instance)
    yield launcher
    launcher.dispose()


def started_run(instance: DagsterInstance, **tags: str) -> dg.DagsterRun:
    job = build_defs().resolve_job_def("hydrate_leads")
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)


def status_of(instance: DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def wait_until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_run_that_somebody_executes_is_well_however_long_it_takes(
    launcher: PresenceCheckedCeleryLauncher, instance: DagsterInstance, engine: Engine, clock: Clock
) -> None:
    run = started_run(instance, **TASK)
    with present(engine, run.run_id) as alone:
        assert alone
        for _ in range(3):
            assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
            clock.now += 3600


def test_a_run_that_nobody_executes_is_failed_after_a_while_and_not_before(
    launcher: PresenceCheckedCeleryLauncher,
    instance: DagsterInstance,
    engine: Engine,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instance, "_run_launcher", launcher)
    run = started_run(instance, **TASK)
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None

    def look() -> dg.DagsterRunStatus:
        monitor_started_run(instance, cast("Any", None), record, logging.getLogger("monitoring"))
        return status_of(instance, run)

    assert look() is dg.DagsterRunStatus.STARTED
    clock.now += GONE_FOR_SECONDS - 1
    assert look() is dg.DagsterRunStatus.STARTED
    # A database that was restarted has forgotten who is there; who comes back in time was never gone.
    with present(engine, run.run_id):
        clock.now += 2
        assert look() is dg.DagsterRunStatus.STARTED
    assert look() is dg.DagsterRunStatus.STARTED
    clock.now += GONE_FOR_SECONDS
    assert look() is dg.DagsterRunStatus.FAILURE


def test_nothing_is_failed_while_the_database_does_not_answer(
    instance: DagsterInstance, database_url: URL, clock: Clock
) -> None:
    unreachable = create_engine(database_url.set(port=9), connect_timeout_seconds=2)
    launcher = PresenceCheckedCeleryLauncher(broker="memory://localhost/", engine=lambda: unreachable, clock=clock)
    launcher.register_instance(instance)
    run = started_run(instance, **TASK)
    for _ in range(2):
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        clock.now += 10 * GONE_FOR_SECONDS
    launcher.dispose()


def test_a_command_lines_run_is_judged_by_its_process(
    launcher: PresenceCheckedCeleryLauncher, instance: DagsterInstance
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        run = started_run(instance, **{PROCESS_TAG: process_tag(child.pid)})
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        child.kill()
        child.wait()
    assert launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND


def test_a_run_that_waits_in_the_queue_is_canceled_at_once(
    launcher: PresenceCheckedCeleryLauncher, instance: DagsterInstance
) -> None:
    job = build_defs().resolve_job_def("hydrate_leads")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING, tags=TASK)
    assert launcher.terminate(run.run_id)
    assert status_of(instance, run) is dg.DagsterRunStatus.CANCELED
    assert not launcher.terminate(run.run_id)


def test_a_second_execution_of_a_run_is_turned_away(engine: Engine) -> None:
    with present(engine, "run-1") as first, present(engine, "run-1") as second, present(engine, "run-2") as other:
        assert (first, second, other) == (True, False, True)
    with present(engine, "run-1") as again:
        assert again


def test_a_presence_is_back_soon_after_its_connection_broke(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_EVERY_SECONDS", 0.2)
    with present(engine, "run-1"), engine.connect() as connection:
        holder = connection.execute(
            text("""
                SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
                WHERE locktype = 'advisory' AND granted AND datname = current_database()
            """)
        )
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": holder.scalar_one()})
        wait_until(lambda: not is_present(engine, "run-1"))
        wait_until(lambda: is_present(engine, "run-1"))
    assert not is_present(engine, "run-1")


@pytest.mark.parametrize("name", ["a", "execution of run 6f1f2b1e", "Grüße", "x" * 500])
def test_looking_at_a_lock_sees_who_has_it_and_takes_nothing(engine: Engine, name: str) -> None:
    locks = AdvisoryLocks(engine)
    with engine.connect() as connection:
        assert not is_held(connection, name)
        with locks.hold(name):
            assert is_held(connection, name)
            assert not is_held(connection, f"{name}!")
        assert not is_held(connection, name)


@pytest.mark.parametrize(
    "url", [f"amqp://guest:{PASSWORD}@queue.example.com", PASSWORD, f"redis:{PASSWORD}", "redis://", " "]
)
def test_a_queue_that_is_not_redis_is_refused_without_a_word_of_its_url(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        broker_url(Settings(celery_broker_url=SecretStr(url)))
    assert "CELERY_BROKER_URL" in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_without_a_queue_it_is_said_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="CELERY_BROKER_URL is not set"):
        broker_url(Settings(celery_broker_url=None))


def test_without_the_packages_it_is_said_what_to_install() -> None:
    program = (
        "import sys; sys.modules['celery'] = None\n"
        "from ghl_pipeline.errors import ConfigurationError\n"
        "try:\n    import ghl_pipeline.orchestration.celery_launcher\n"
        "except ConfigurationError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert "uv sync --extra celery" in told.stdout


def test_a_dying_host_has_fetched_nothing_ahead_and_writes_no_results() -> None:
    """Each of these was a run that nobody executed and nobody missed; see docs/decisions/0037-run-workers.md."""
    app = celery_app(Settings(celery_broker_url=SecretStr("redis://127.0.0.1:6379/0")))
    assert app.conf.worker_disable_prefetch
    assert not app.conf.task_acks_late
    assert not app.conf.worker_redirect_stdouts
    assert app.conf.result_backend is None
    assert "execute_job" in app.tasks
    assert CELERY_SETTINGS["task_ignore_result"]


class Queue:
    """A queue that loses what it is told to, and what it was sent."""

    def __init__(self, clock: Clock) -> None:
        self.sent: list[str] = []
        self.begun: set[str] = set()
        self.executed: set[str] = set()
        self.waiting = 0
        self.runs = UnbegunRuns(
            begun=self.begun.__contains__,
            executed=self.executed.__contains__,
            waiting=lambda: self.waiting,
            clock=clock,
        )

    def send(self, run_id: str) -> None:
        self.runs.add(run_id, lambda: self.sent.append(run_id))


def test_a_task_that_got_lost_on_its_way_is_sent_again_until_somebody_begins_it(clock: Clock) -> None:
    queue = Queue(clock)
    queue.send("lost")
    queue.send("begun")
    queue.begun.add("begun")
    assert queue.runs.look() == []
    clock.now += LOST_AFTER_SECONDS
    assert queue.runs.look() == ["lost"]
    assert queue.runs.look() == []
    clock.now += LOST_AFTER_SECONDS
    assert queue.runs.look() == ["lost"]
    queue.begun.add("lost")
    clock.now += LOST_AFTER_SECONDS
    assert queue.runs.look() == []
    queue.begun.clear()
    clock.now += LOST_AFTER_SECONDS
    assert queue.runs.look() == []
    assert queue.sent == ["lost", "lost"]
    queue.runs.close()


def test_a_run_whose_taker_is_cut_off_before_it_could_say_so_is_sent_again_once_that_is_known(clock: Clock) -> None:
    queue = Queue(clock)
    queue.send("taken")
    queue.executed.add("taken")
    clock.now += 3 * LOST_AFTER_SECONDS
    assert queue.runs.look() == []
    queue.executed.clear()
    assert queue.runs.look() == ["taken"]
    queue.runs.close()


def test_a_run_that_waits_for_a_free_worker_is_not_sent_twice(clock: Clock) -> None:
    queue = Queue(clock)
    queue.waiting = 1
    queue.send("waits")
    clock.now += 10 * LOST_AFTER_SECONDS
    assert queue.runs.look() == []
    queue.waiting = 0
    assert queue.runs.look() == ["waits"]
    queue.runs.close()


def test_a_queued_run_names_its_task_before_it_is_in_the_queue_and_holds_no_secret(
    launcher: PresenceCheckedCeleryLauncher, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "_run_launcher", launcher)
    sent: list[dict[str, Any]] = []

    def send_task(name: str, **options: Any) -> None:
        tagged = instance.get_run_by_id(run.run_id)
        assert tagged is not None
        assert tagged.tags[DAGSTER_CELERY_TASK_ID_TAG] == options["task_id"]
        sent.append({"name": name, **options})

    monkeypatch.setattr(launcher.celery, "send_task", send_task)
    run = instance.create_run_for_job(
        build_defs().resolve_job_def("hydrate_leads"), status=dg.DagsterRunStatus.STARTING, job_code_origin=ORIGIN
    )
    launcher.launch_run(LaunchRunContext(run, None))
    (task,) = sent
    assert task["name"] == "execute_job"
    assert run.run_id in str(task["kwargs"])
    assert "postgresql" not in str(task["kwargs"])
