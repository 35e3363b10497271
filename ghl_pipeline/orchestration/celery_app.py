"""Runs as tasks of Celery: the queue that all machines share, and what a worker does with a run.

For runs on several machines; the packages come with the extra `celery`. Dagster's own worker (`dagster-celery worker`)
is not used: it writes the broker's URL into a file, and nobody could tell whether what it executes is still alive.
"""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any, cast

from dagster import DagsterInstance
from dagster._cli.api import _execute_run_command_body
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import unpack_value
from dagster._utils.interrupts import capture_interrupts

from ghl_pipeline.database.connection import create_engine, database_urls
from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.orchestration.presence import present
from ghl_pipeline.privacy import redaction
from ghl_pipeline.settings import Settings, load_settings, project_root

try:
    from celery import Celery
    from dagster_celery.config import DEFAULT_CONFIG, TASK_EXECUTE_JOB_NAME
    from dagster_celery.make_app import make_app
    from kombu.exceptions import OperationalError
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        f"Runs on several machines need the package {missing.name}. Install the extra: uv sync --extra celery, or "
        "pip install 'ghl-pipeline[celery]'."
    ) from None

log = logging.getLogger(__name__)

WORKER_TAG = "ghl_pipeline/worker"
QUEUE = "dagster"
SCHEMES = ("redis", "rediss")
# A worker's process is replaced after so many runs, so that what the libraries do not give back does not add up.
RUNS_PER_PROCESS = 25
ANSWER_WITHIN_SECONDS = 3.0

_DAGSTERS: Mapping[str, Any] = cast("Mapping[str, Any]", DEFAULT_CONFIG)
CELERY_SETTINGS: Mapping[str, Any] = {
    **_DAGSTERS,
    # Nobody reads results: Dagster's event log says how a run ended, its presence whether it goes on.
    "task_ignore_result": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # A dead connection to Redis (a host that lost its network) is noticed within a minute.
    "broker_transport_options": {
        **_DAGSTERS["broker_transport_options"],
        "socket_keepalive": True,
        "socket_connect_timeout": 10,
        "health_check_interval": 30,
    },
    # A task is acknowledged when it begins, and none is fetched before there is a process for it: what a dying host
    # had fetched ahead would come back after Redis' visibility timeout, an hour.
    "task_acks_late": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_max_tasks_per_child": RUNS_PER_PROCESS,
    # Dagster writes the standard streams of a run into its compute log, for which they have to be real files; and the
    # project's own logging withholds people's values.
    "worker_redirect_stdouts": False,
    "worker_hijack_root_logger": False,
}


def broker_url(settings: Settings) -> str:
    """The URL of the queue, in plain text.

    Raises:
        ConfigurationError: none is set, or it is not Redis'.
    """
    if settings.celery_broker_url is None:
        raise ConfigurationError(
            "CELERY_BROKER_URL is not set, so there is no queue through which runs reach workers. Set it to "
            "redis://:PASSWORD@HOST:6379/0, or rediss:// for TLS, or use the launcher of one machine (dagster.yaml)."
        )
    url = settings.celery_broker_url.get_secret_value().strip()
    scheme, separator, rest = url.partition("://")
    if scheme not in SCHEMES or not separator or not rest:
        # `from None` is not enough: the URL holds a password, so nothing of it is quoted.
        raise ConfigurationError(
            "CELERY_BROKER_URL is not a Redis URL. Use the form redis://:PASSWORD@HOST:6379/0, or "
            "rediss://:PASSWORD@HOST:6379/0?ssl_cert_reqs=required for TLS."
        )
    return url


def celery_app(settings: Settings) -> Celery:
    """The application that workers run. Connects to nothing.

    Raises:
        ConfigurationError: see `broker_url`.
    """
    arguments = {"broker": broker_url(settings), "config_source": dict(CELERY_SETTINGS)}
    app = make_app(arguments)  # type: ignore[no-untyped-call] # untyped there
    app.task(_execute, bind=True, name=TASK_EXECUTE_JOB_NAME)
    return app


def run_worker(settings: Settings, *, name: str, concurrency: int, log_level: str) -> None:
    """Works on runs until told to stop; the first SIGTERM or Ctrl-C waits for those under way.

    Args:
        settings: where the queue is.
        name: of this worker, among those of the same host.
        concurrency: runs at the same time, each in a process of its own.
        log_level: of Celery's own messages.

    Raises:
        ConfigurationError: see `broker_url`.
    """
    app = celery_app(settings)
    # What a run's process reads: the instance's configuration, from where the daemon has its copy too.
    os.environ.setdefault("DAGSTER_HOME", str(project_root()))
    # Options by argument, never the URL: a process list shows them.
    app.worker_main([
        "worker",
        f"--hostname={node_name(name)}",
        f"--concurrency={concurrency}",
        "--pool=prefork",
        f"--queues={QUEUE}",
        f"--loglevel={log_level}",
        "--without-gossip",
        "--without-mingle",
    ])  # fmt: skip


def answers(settings: Settings, *, name: str) -> bool:
    """Whether the worker of this name on this host answers through the queue.

    Raises:
        ConfigurationError: see `broker_url`.
    """
    inspection = celery_app(settings).control.inspect(destination=[node_name(name)], timeout=ANSWER_WITHIN_SECONDS)
    try:
        return bool(inspection.ping())
    except (OSError, OperationalError):  # the queue cannot be reached
        return False


def node_name(name: str) -> str:
    """A worker's name over all hosts, as Celery has it."""
    return f"{name}@{socket.gethostname()}"


def _execute(task: Any, execute_job_args_packed: Any) -> int:
    """What a worker does with a run: as Dagster's own task, but present, and stoppable as a run of the code server is.

    Returns:
        0 when the run succeeded or is another's.
    """
    redaction.install()
    run_id = unpack_value(execute_job_args_packed, as_type=ExecuteRunArgs).run_id
    engine = create_engine(database_urls(load_settings()).app, pool_size=1)
    try:
        with present(engine, run_id) as alone:
            if not alone:
                log.warning("run %s is executed by another process already", run_id)
                return 0
            # Signals are kept until Dagster or the op asks for them, so that Terminate ends in CANCELED.
            with capture_interrupts(), DagsterInstance.get() as instance:
                instance.add_run_tags(run_id, {WORKER_TAG: task.request.hostname or node_name("unknown")})
                return int(
                    _execute_run_command_body(
                        instance=instance,
                        run_id=run_id,
                        write_stream_fn=_to_nobody,
                        set_exit_code_on_failure=True,
                    )
                )
    finally:
        engine.dispose()


def _to_nobody(_event: object) -> None:
    """Events are in the event log; a worker streams them to nobody."""
