"""`ghl-pipeline dev`: the UI, the daemon and, for the demo, the sandbox, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated

import typer

from ghl_pipeline.cli.demo_profile import SampleSize, demo_profile, make_sample
from ghl_pipeline.cli.output import err
from ghl_pipeline.cli.session import database
from ghl_pipeline.locations.clients import active_locations, list_clients
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import open_instance
from ghl_pipeline.sandbox.process import start_sandbox_process
from ghl_pipeline.settings import Settings, load_settings, project_root

FIRST_SAMPLE = SampleSize(locations=5, leads=2000, seed=7)
STOP_WITHIN_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.2
AUTOMATION_ON = (
    "Schedules and sensors start work by themselves (GHL_PIPELINE_AUTOMATION=true), except those switched off in the "
    "UI under Automation."
)
AUTOMATION_OFF = (
    "Schedules and sensors start no work by themselves, except those switched on in the UI under Automation. To have "
    "them on: GHL_PIPELINE_AUTOMATION=true"
)


def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI, on loopback.")] = 3000,
    live: Annotated[
        bool | None, typer.Option("--live/--demo", help="Your clients, or the demo. Default: your clients, if any.")
    ] = None,
) -> None:
    """Run the UI and the daemon on this machine; work on your clients starts by itself only when switched on."""
    settings = load_settings()
    with ExitStack() as stack:
        if live is None:
            live = _has_clients(settings)
        if live:
            err.print("Serving your clients. Work on them asks the real GHL.", soft_wrap=True)
            err.print(AUTOMATION_ON if settings.automation else AUTOMATION_OFF, soft_wrap=True)
        else:
            settings = _start_demo(settings, stack)
        with database(settings) as engine, open_instance(settings) as instance, engine.connect() as connection:
            sync_partitions(instance, active_locations(connection))
        err.print(
            f"The UI will be at http://127.0.0.1:{port} in a few seconds. Stop everything with Ctrl-C.", soft_wrap=True
        )
        code = run_until_stopped(_dagster_dev(port), _child_environment(settings))
    raise typer.Exit(code)


def _has_clients(settings: Settings) -> bool:
    with database(settings) as engine, engine.connect() as connection:
        return bool(list_clients(connection))


def _start_demo(settings: Settings, stack: ExitStack) -> Settings:
    """The sandbox that fits the demo's databases, which are made first if there are none."""
    profile = demo_profile(settings)
    size = profile.size()
    if size is None:
        size = FIRST_SAMPLE
        err.print("Making a sample agency ...")
        make_sample(profile, size)
    sandbox = stack.enter_context(start_sandbox_process(locations=size.locations, leads=size.leads, seed=size.seed))
    err.print(
        f"Serving the demo: {size.locations} locations with {size.leads:,} leads each, GHL played by {sandbox.url}",
        soft_wrap=True,
    )
    return profile.with_sandbox(sandbox.url).model_copy(update={"automation": True})


def _child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings in place of whatever it says of them.

    What the settings leave unset is not in `.env` either, which they were read from.
    """
    ours = {field.alias for field in Settings.model_fields.values()}
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    return inherited | settings.as_environment() | {"DAGSTER_HOME": str(project_root()), "GRPC_VERBOSITY": "ERROR"}


def _dagster_dev(port: int) -> list[str]:
    return [
        sys.executable, "-W", "ignore", "-m", "dagster", "dev", "--workspace", "workspace.yaml",
        "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
    ]  # fmt: skip


def run_until_stopped(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a program in the project's folder until it ends by itself or this process is told to stop.

    Returns:
        Its exit code; 0 when it was stopped, by force if it takes longer than `STOP_WITHIN_SECONDS`.
    """
    stopped = threading.Event()
    # Handlers of our own even for an interrupt that a shell's `&` made us inherit as ignored: Dagster would copy that
    # and then survive both signals. In a session of its own it hears of Ctrl-C from us alone, once.
    for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, lambda *_: stopped.set())
    process = subprocess.Popen(command, cwd=project_root(), env=environment, start_new_session=True)
    try:
        while process.poll() is None:
            if stopped.wait(LOOK_EVERY_SECONDS):
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_WITHIN_SECONDS)
                except subprocess.TimeoutExpired:
                    err.print(
                        f"It did not stop within {STOP_WITHIN_SECONDS:g} s and was killed. What was done is kept; "
                        "a run that was under way goes on from there when it is started again.",
                        soft_wrap=True,
                    )
                return 0
        return process.returncode
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
