"""Machines of a test: network namespaces on a bridge of the test's own, and the servers that all of them reach.

Each machine has an address and a cable that can be pulled; whatever is started in it can be killed at once. The
bridge's address is this side: PostgreSQL, Redis and the sandbox listen there, the daemon and the code server run there.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL, text

from ghl_pipeline.database.connection import APP_DRIVER
from ghl_pipeline.database.embedded import EmbeddedPostgres, server
from ghl_pipeline.sandbox.process import QuietServer
from ghl_pipeline.sandbox.server import create_app
from ghl_pipeline.sandbox.world import World
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

NEEDED = ("ip", "redis-server")
STOP_WITHIN_SECONDS = 20


def why_not() -> str | None:
    """Why this machine cannot play several; None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    name = f"ghl{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
        return "this kernel or container allows no network namespaces"
    _ip("netns", "delete", name)
    return None


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@dataclass
class Machine:
    """A network namespace with one cable to the bridge."""

    label: str
    name: str
    address: str
    cable: str
    log: Path
    programs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a program in the machine; what it says goes to the machine's log."""
        with self.log.open("ab") as log:
            program = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command], env=dict(environment), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.programs.append(program)
        return program

    def lose_power(self) -> None:
        """Kills everything in it at once, without a word to anybody."""
        for pid in _ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for program in self.programs:
            program.wait(STOP_WITHIN_SECONDS)

    def pull_the_cable(self) -> None:
        """Nothing leaves or reaches it any more, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def plug_the_cable_in(self) -> None:
        """The network is back."""
        _ip("link", "set", self.cable, "up")


@dataclass(frozen=True)
class Network:
    """This side's address, and the machines."""

    address: str
    machines: tuple[Machine, ...]


@contextlib.contextmanager
def network(folder: Path, *names: str) -> Iterator[Network]:
    """Machines of these names on a bridge; all gone afterwards, with what still runs in them."""
    token = secrets.token_hex(2)
    bridge = f"ghlbr{token}"
    subnet = f"10.{secrets.randbelow(55) + 200}.{secrets.randbelow(250)}"
    made: list[Machine] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(names, start=2):
            namespace, cable, plug = f"ghl{name}{token}", f"ghl{number}h{token}", f"ghl{number}m{token}"
            _ip("netns", "add", namespace)
            made.append(Machine(name, namespace, f"{subnet}.{number}", cable, folder / f"{name}.log"))
            _ip("link", "add", cable, "type", "veth", "peer", "name", plug)
            _ip("link", "set", plug, "netns", namespace)
            _ip("link", "set", cable, "master", bridge)
            _ip("link", "set", cable, "up")
            _ip("-n", namespace, "address", "add", f"{subnet}.{number}/24", "dev", plug)
            _ip("-n", namespace, "link", "set", plug, "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
        yield Network(f"{subnet}.1", tuple(made))
    finally:
        for machine in made:
            with contextlib.suppress(subprocess.CalledProcessError):
                machine.lose_power()
            subprocess.run(["ip", "netns", "delete", machine.name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "delete", machine.cable], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)


@contextlib.contextmanager
def postgres(folder: Path, address: str) -> Iterator[URL]:
    """A cluster of the test's own, with the embedded server's binaries, that also listens on the bridge."""
    patch = pytest.MonkeyPatch()
    patch.setitem(server._SETTINGS, "listen_addresses", f"127.0.0.1,{address}")
    try:
        with EmbeddedPostgres(folder, durable=False) as found:
            url = found.url("postgres").set(drivername=APP_DRIVER)
            engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                rules = Path(connection.execute(text("SHOW hba_file")).scalar_one())
                with rules.open("a") as file:
                    file.write(f"host all all {address}/24 scram-sha-256\n")
                connection.execute(text("SELECT pg_reload_conf()"))
            engine.dispose()
            yield url.set(host=address)
    finally:
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def redis(address: str, password: str) -> Iterator[str]:
    """A Redis that keeps nothing on disk; yields its URL."""
    with socket.create_server((address, 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--bind", address, "--port", str(port), "--save", "", "--appendonly", "no", "--requirepass", password]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_until(lambda: _listens(address, port), 10, "Redis did not start")
            yield f"redis://:{password}@{address}:{port}/0"
        finally:
            process.terminate()


@contextlib.contextmanager
def sandbox_at(address: str) -> Iterator[Sandbox]:
    """A sandbox that listens on the bridge."""
    world = World()
    ready = threading.Event()
    sandbox_server = QuietServer(create_app(world), ready.set)
    with socket.create_server((address, 0)) as listener:
        thread = threading.Thread(target=sandbox_server.run, args=([listener],), daemon=True)
        thread.start()
        assert ready.wait(10), "the sandbox did not start"
        try:
            yield Sandbox(f"http://{address}:{listener.getsockname()[1]}", world)
        finally:
            sandbox_server.should_exit = True
            thread.join(10)


def wait_until(true: Callable[[], bool], seconds: float, otherwise: str | Callable[[], str]) -> float:
    """Waits; returns how many seconds it took."""
    began = time.monotonic()
    while not true():
        took = time.monotonic() - began
        assert took < seconds, otherwise if isinstance(otherwise, str) else otherwise()
        time.sleep(0.1)
    return time.monotonic() - began


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False
