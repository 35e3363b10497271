"""Commands of the document that serve until stopped: started on free ports, asked whether they are well, stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ghl_pipeline_tests.docs.manual import Ended, program_words, variables

PROGRAM = Path(sys.executable).with_name("ghl-pipeline")
WELL_WITHIN_SECONDS = 120.0
STOPPED_WITHIN_SECONDS = 40.0
SERVING = ("dev", "ui", "webhooks", "sandbox", "worker")
# What a person who presses Ctrl-C sees; anything else is a failure to stop.
GOOD_ENDS = (0, 130, -signal.SIGINT)


def is_serving(line: str) -> bool:
    """Whether the command goes on until it is stopped."""
    words = program_words(line)
    names = [word for word in words if not word.startswith("-")]
    return names[:1] != [] and "--check" not in words and (names[0] in SERVING or "--watch" in words)


@dataclass
class Served:
    """A command while it serves: the port it was given, and whether it was well; how it ended, afterwards."""

    port: int
    is_well: bool = False
    code: int | None = None
    printed: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What others need to reach it."""


def serve(line: str, folder: Path, environment: Mapping[str, str]) -> Ended:
    """Starts it, waits until it is well, presses Ctrl-C; 0 when all of that went well, else 1."""
    with served(program_words(line), folder, {**environment, **variables(line)}) as serving:
        pass
    well = serving.is_well and serving.code in GOOD_ENDS
    return Ended(int(not well), f"{serving.printed}\n(well: {serving.is_well}, ended with {serving.code})")


@contextmanager
def served(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Served]:
    """The command while it is well."""
    name = next(word for word in words if not word.startswith("-"))
    serving, receiver = Served(_free_port()), _free_port()
    options = {"dev": ["--webhook-port", str(receiver)]}.get(name, [])
    if name in SERVING and name != "worker":
        options += ["--port", str(serving.port)]
    pages = {
        "dev": [f"http://127.0.0.1:{serving.port}/healthz", f"http://127.0.0.1:{receiver}/healthz"],
        "ui": [f"http://127.0.0.1:{serving.port}/healthz"],
        "webhooks": [f"http://127.0.0.1:{serving.port}/healthz"],
        "sandbox": [f"http://127.0.0.1:{serving.port}/_sandbox/health"],
    }.get(name, [])
    log = folder / f"{name}.log"

    def said() -> bool:
        if name == "worker":
            check = [str(PROGRAM), "worker", "--check"]
            return subprocess.run(check, env={**environment, **serving.environment}, check=False).returncode == 0
        return name in SERVING or log.stat().st_size > 0

    with _broker(name, folder) as broker, log.open("w") as output:
        serving.environment = broker
        process = subprocess.Popen(
            [PROGRAM, *words, *options],
            cwd=folder,
            env={**environment, **broker},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with process:
            try:
                serving.is_well = _wait(lambda: all(map(_is_well, pages)) and said(), process)
                yield serving
                process.send_signal(signal.SIGINT)
                serving.code = process.wait(STOPPED_WITHIN_SECONDS)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                serving.printed = log.read_text(encoding="utf-8", errors="replace")


def _is_well(page: str) -> bool:
    try:
        return httpx.get(page, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _wait(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> bool:
    give_up_at = time.monotonic() + WELL_WITHIN_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        if ready():
            return True
        time.sleep(0.2)
    return False


@contextmanager
def _broker(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """What a run worker is reached through; nobody else needs it."""
    if name != "worker":
        yield {}
        return
    program = shutil.which("redis-server")
    assert program, "a run worker needs redis-server, which is not on this machine"
    port = _free_port()
    broker = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    with broker:
        try:
            yield {"CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/0"}
        finally:
            broker.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
