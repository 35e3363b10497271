"""`ghl-pipeline dev`: the UI, the daemon, the webhook receiver and, for the demo, the sandbox, until Ctrl-C.

`dagster dev` would start the UI too, but without the guard. So its parts are started one by one: one code server, and
the daemon and the UI that ask it. A daemon that starts a code server of its own renews it every minute.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ghl_pipeline.cli.demo_profile import SampleSize, demo_profile, introduce, known_sandbox, make_sample
from ghl_pipeline.cli.output import err
from ghl_pipeline.cli.session import database
from ghl_pipeline.locations.clients import active_locations, list_clients
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import open_instance
from ghl_pipeline.sandbox.process import SandboxProcess, start_sandbox_process
from ghl_pipeline.settings import Settings, load_settings, project_root

# As workspace.yaml has it: switches of schedules and sensors are kept under this name.
CODE_LOCATION = "ghl_pipeline"
FIRST_SAMPLE = SampleSize(locations=5, leads=2000, seed=7)
STOP_WITHIN_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.2
SOON_SECONDS = 20.0
MOST_RESTARTS = 5
# A program that should run for ever and ended with 0 all the same, as Dagster does when its daemon was killed.
ENDED_BY_ITSELF = 1
AUTOMATION_ON = (
    "Schedules and sensors start work by themselves (--automation or GHL_PIPELINE_AUTOMATION=true), except those "
    "switched off in the UI under Automation."
)
AUTOMATION_OFF = (
    "Schedules and sensors start no work by themselves, except those switched on in the UI under Automation. To have "
    "them on: --automation, or GHL_PIPELINE_AUTOMATION=true"
)


@dataclass(frozen=True, slots=True)
class Program:
    """What is run, and what it is called when it ends by itself."""

    name: str
    command: Sequence[str]
    needs: Path | None = None
    """A file that another program makes when it is ready. This one starts after it, and stops before it."""


def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI, on loopback.")] = 3000,
    webhook_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the webhook receiver, on loopback.")
    ] = 8788,
    live: Annotated[
        bool | None, typer.Option("--live/--demo", help="Your clients, or the demo. Default: your clients, if any.")
    ] = None,
    automation: Annotated[
        bool | None,
        typer.Option(
            help="Whether schedules and sensors start work by themselves. Default: in the demo they do, for your "
            "clients as GHL_PIPELINE_AUTOMATION says."
        ),
    ] = None,
) -> None:
    """Run the UI, daemon and webhook receiver here; work on your clients starts by itself only when switched on."""
    settings = load_settings()
    with ExitStack() as stack:
        if live is None:
            live = _has_clients(settings)
        if live and automation is not None:
            settings = settings.model_copy(update={"automation": automation})
        if live:
            err.print("Serving your clients. Work on them asks the real GHL.", soft_wrap=True)
            err.print(AUTOMATION_ON if settings.automation else AUTOMATION_OFF, soft_wrap=True)
        else:
            settings = _start_demo(settings, stack, webhook_port, automation=automation is not False)
        with database(settings) as engine, open_instance(settings) as instance, engine.connect() as connection:
            sync_partitions(instance, active_locations(connection))
        err.print(
            f"The UI will be at http://127.0.0.1:{port} in a few seconds, webhooks are received at "
            f"http://127.0.0.1:{webhook_port}. Stop everything with Ctrl-C.",
            soft_wrap=True,
        )
        # Nobody else on this machine may ask the code server: it starts whatever it is told to.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ghl-pipeline-")))
        code = run_until_stopped(_programs(port, webhook_port, folder), _child_environment(settings))
    raise typer.Exit(code)


def _has_clients(settings: Settings) -> bool:
    with database(settings) as engine, engine.connect() as connection:
        return bool(list_clients(connection))


def _start_demo(settings: Settings, stack: ExitStack, webhook_port: int, *, automation: bool) -> Settings:
    """The sandbox that fits the demo's databases, which are made first if there are none; both know of each other."""
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
    location_id, secret = introduce(profile, sandbox)
    order = {"url": f"http://127.0.0.1:{webhook_port}", "location": location_id}
    interest = {"event": "lead_interested", "strangers": True, "secret": secret.get_secret_value()}
    _print_order("To let a contact of the demo write an SMS:", sandbox, order | {"event": "inbound_sms"})
    _print_order("To let EmailBison report somebody interested whom GHL does not know:", sandbox, order | interest)
    err.print(
        "To bring the vendors and leads of a marketplace in step: "
        f"ghl-pipeline --demo crm-sync --location {location_id}",
        soft_wrap=True,
        markup=False,
    )
    keys = sandbox.ask("/_sandbox/webhook-keys")
    signing = {"webhook_ed25519_keys": keys["ed25519"], "webhook_rsa_keys": keys["rsa"]}
    return profile.with_sandbox(known_sandbox(sandbox)).model_copy(update={"automation": automation, **signing})


def _print_order(what: str, sandbox: SandboxProcess, order: Mapping[str, object]) -> None:
    err.print(what, soft_wrap=True)
    err.print(f"curl {sandbox.url}/_sandbox/webhooks -d '{json.dumps(order)}'", soft_wrap=True, markup=False)


def _child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings in place of whatever it says of them.

    What the settings leave unset is not in `.env` either, which they were read from. Metrics may be looked at without a
    token: this is somebody's own machine.
    """
    settings = settings.model_copy(update={"metrics_without_token": True})
    ours = {field.alias for field in Settings.model_fields.values()}
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    return inherited | settings.as_environment() | {"DAGSTER_HOME": str(project_root()), "GRPC_VERBOSITY": "ERROR"}


def _programs(port: int, webhook_port: int, folder: Path) -> list[Program]:
    """The programs, which meet at a socket and a `workspace.yaml` in `folder`."""
    socket, workspace = folder / "code-server", folder / "workspace.yaml"
    location = {"location_name": CODE_LOCATION, "socket": str(socket), "host": "localhost"}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}))
    dagster = [sys.executable, "-W", "ignore", "-m"]
    code_server = [
        *dagster, "dagster", "code-server", "start", "--socket", str(socket), "--location-name", CODE_LOCATION,
        "--module-name", "ghl_pipeline.definitions", "--working-directory", str(project_root()),
        "--use-python-environment-entry-point", "--inject-env-vars-from-instance", "--log-level", "warning",
    ]  # fmt: skip
    daemon = [*dagster, "dagster._daemon", "run", "--workspace", str(workspace), "--log-level", "warning"]
    ui = [
        sys.executable, "-W", "ignore", "-m", "ghl_pipeline.cli.app", "ui", "--workspace", str(workspace),
        "--port", str(port),
    ]  # fmt: skip
    receiver = [sys.executable, "-m", "ghl_pipeline.cli.app", "webhooks", "--port", str(webhook_port)]
    return [
        Program("the code server", code_server),
        Program("the daemon", daemon, needs=socket),
        Program("the UI", ui, needs=socket),
        Program("the webhook receiver", receiver),
    ]


def run_until_stopped(programs: Sequence[Program], environment: Mapping[str, str]) -> int:
    """Runs programs side by side in the project's folder until this process is told to stop.

    One that ends by itself is started again, unless it did so soon after its start (a port that is taken, a setting) or
    for the `MOST_RESTARTS`th time: then all are stopped.

    Returns:
        0 when it was told to stop; else the exit code of the one that ended, never 0, and that one is named. Those that
        take longer than `STOP_WITHIN_SECONDS` to stop are killed.
    """
    stopped = threading.Event()
    # Handlers of our own even for an interrupt that a shell's `&` made us inherit as ignored: Dagster would copy that
    # and then survive both signals. In sessions of their own they hear of Ctrl-C from us alone, once.
    for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, lambda *_: stopped.set())
    running: dict[str, subprocess.Popen[bytes]] = {}
    restarts = _Restarts()
    try:
        while not stopped.wait(LOOK_EVERY_SECONDS):
            for program in programs:
                process = running.get(program.name)
                if process is None:
                    if program.needs is None or program.needs.exists():
                        running[program.name] = _start(program, environment)
                        restarts.started(program.name)
                    continue
                if process.poll() is None:
                    continue
                ended = f"{program.name} ended by itself with exit code {process.returncode}"
                if not restarts.allow(program.name):
                    err.print(f"{ended}.", soft_wrap=True)
                    return process.returncode or ENDED_BY_ITSELF
                err.print(f"{ended}; it is started again.", soft_wrap=True)
                running[program.name] = _start(program, environment)
                restarts.started(program.name)
        return 0
    finally:
        give_up_at = time.monotonic() + STOP_WITHIN_SECONDS
        for needing in (True, False):
            names = {program.name for program in programs if (program.needs is not None) is needing}
            _stop({name: process for name, process in running.items() if name in names}, give_up_at)


class _Restarts:
    """When each program was started, and how often again."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def started(self, name: str) -> None:
        self._started[name] = time.monotonic()

    def allow(self, name: str) -> bool:
        self._times[name] = self._times.get(name, 0) + 1
        return time.monotonic() - self._started[name] >= SOON_SECONDS and self._times[name] <= MOST_RESTARTS


def _start(program: Program, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(program.command, cwd=project_root(), env=environment, start_new_session=True)


def _stop(running: Mapping[str, subprocess.Popen[bytes]], give_up_at: float) -> None:
    alive = {name: process for name, process in running.items() if process.poll() is None}
    for process in alive.values():
        process.send_signal(signal.SIGINT)
    for name, process in alive.items():
        try:
            process.wait(max(0.0, give_up_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            err.print(
                f"{name} did not stop within {STOP_WITHIN_SECONDS:g} s and was killed. What was done is kept; a run "
                "that was under way goes on from there when it is started again.",
                soft_wrap=True,
            )
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
