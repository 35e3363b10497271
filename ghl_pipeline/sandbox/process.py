"""The sandbox as a process of its own: how it is started, found to be ready, and stopped.

The child binds a free loopback port itself and tells its URL on its standard output, so no port can be lost between
choosing and using it. It ends when its standard input ends: a starter that is killed leaves no server behind.
"""

import asyncio
import contextlib
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec
import uvicorn
from starlette.types import ASGIApp

from ghl_pipeline.errors import PipelineError
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.sandbox.emailbison_payloads import BisonLead
from ghl_pipeline.sandbox.sample_messages import add_sample_messages
from ghl_pipeline.sandbox.server import create_app
from ghl_pipeline.sandbox.world import World

READY: Final = "sandbox listens at "
_STOP_SECONDS: Final = 5.0


class SandboxFailed(PipelineError):
    """The sandbox process ended or did not answer in time."""


def bind_loopback(port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 takes a free one.

    Raises:
        SandboxFailed: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise SandboxFailed(f"Port {port} cannot be used ({error.strerror}). Give another one, or 0 for any.") from None
    return listener


class QuietServer(uvicorn.Server):
    """A uvicorn server that logs nothing, stops without waiting for slow answers, and can tell when it listens."""

    def __init__(self, app: ASGIApp, when_ready: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            date_header=False,  # the application tells the time, by a clock that may be wrong
            # A connection that is dropped on purpose would be reported as an error of the application.
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, then says so."""
        await super().startup(sockets)
        self._when_ready()


def serve(port: int, world: World, *, stop_with_input: bool = False) -> None:
    """Serves until interrupted, or until standard input ends; prints the URL when it listens.

    Raises:
        SandboxFailed: the port is taken.
    """
    listener = bind_loopback(port)

    def ready() -> None:
        if stop_with_input:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _stop_at_end_of_input, server)
        sys.stdout.write(f"{READY}http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()

    server = QuietServer(create_app(world), ready)
    with contextlib.closing(listener), contextlib.suppress(KeyboardInterrupt):
        server.run([listener])


def serve_sample_agency(port: int, *, locations: int, leads: int, seed: int, stop_with_input: bool = False) -> None:
    """Serves the sample agency of these numbers; see `agency.sample_agency`."""
    world = World(seed=seed)
    for sample in sample_agency(locations=locations, leads=leads, seed=seed).locations:
        location = world.add_location(
            sample.id, name=sample.name, token=sample.token, contacts=sample.contacts, time_zone=sample.time_zone
        )
        location.calendars.add("Introduction", slug=f"introduction-{len(world.locations)}")
        add_sample_messages(location, sample, seed=seed, now=int(world.clock() * 1000))
        world.add_workspace(
            sample.id,
            name=sample.name,
            leads=(
                BisonLead(id=lead.emailbison_lead_id, email=lead.email.strip())
                for lead in sample.leads
                if lead.emailbison_lead_id is not None and lead.email
            ),
        )
    serve(port, world, stop_with_input=stop_with_input)


@dataclass
class SandboxProcess:
    """A running sandbox. Use it as a context manager, or call `stop`."""

    url: str
    _process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def ask(self, path: str, order: object = None) -> dict[str, Any]:
        """Asks one of the sandbox's own routes, such as `/_sandbox/workspaces`; with an order it is a POST.

        Raises:
            SandboxFailed: it does not answer, or refuses.
        """
        try:
            answer = httpx.get(self.url + path) if order is None else httpx.post(self.url + path, json=order)
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=dict[str, Any])
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise SandboxFailed(
                f"The sandbox did not answer {path} ({type(error).__name__}). Start it again."
            ) from None

    def stop(self) -> None:
        """Ends the server, by force if it does not end in 5 s. May be called again."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()  # the end of its input is the agreed sign to stop
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def start_sandbox_process(
    *, locations: int = 5, leads: int = 2000, seed: int = 7, port: int = 0, timeout_seconds: float = 60.0
) -> SandboxProcess:
    """Starts a sandbox with a sample agency in a child process and waits until it listens.

    Args:
        locations: how many locations it has.
        leads: lead rows per location; each location has slightly more contacts.
        seed: equal numbers give equal people, ids and tokens.
        port: loopback port; 0 takes a free one.
        timeout_seconds: how long to wait for it.

    Raises:
        SandboxFailed: it ended or was not ready in time; the text holds the last line it wrote to standard error.
    """
    numbers = {"--port": port, "--locations": locations, "--leads": leads, "--seed": seed}
    arguments = [word for name, value in numbers.items() for word in (name, str(value))]
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "ghl_pipeline.sandbox", *arguments, "--stop-with-input"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            # Ctrl-C in a terminal goes to the starter, which stops the sandbox when it no longer needs it.
            start_new_session=True,
        )
        line = _first_line(process, timeout_seconds)
        sandbox = SandboxProcess(line.removeprefix(READY).strip(), process)
        if line.startswith(READY):
            return sandbox
        sandbox.stop()
        complaints.seek(0)
        said = (complaints.read().strip().splitlines() or ["it said nothing"])[-1]
    raise SandboxFailed(f"The sandbox was not ready within {timeout_seconds:g} s: {said}")


def _first_line(process: subprocess.Popen[str], timeout_seconds: float) -> str:
    """The child's first line, empty when it ends or the time is up before one."""
    if process.stdout is None:
        return ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(timeout_seconds) else ""


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        server.should_exit = True
