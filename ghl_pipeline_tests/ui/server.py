"""`ghl-pipeline ui` as a process, and requests to it that no HTTP client would send."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

PROGRAM = str(Path(sys.executable).with_name("ghl-pipeline"))

# A code location that loads quickly and has one of everything that a mutation could be about.
SMALL_DEFINITIONS = """
import dagster as dg

@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["one", "two"]))
def figures() -> None: ...

@dg.sensor(target=figures)
def watcher(): ...

@dg.schedule(target=figures, cron_schedule="0 0 * * *")
def nightly(): ...

defs = dg.Definitions(assets=[figures], sensors=[watcher], schedules=[nightly])
"""


@dataclass(frozen=True)
class RunningUi:
    """The process and where it is."""

    process: "subprocess.Popen[str]"
    url: str

    @property
    def name(self) -> str:
        """Host and port, as browsers ask for it."""
        return urlsplit(self.url).netloc

    def ask(self, query: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The answer to a question that the UI could ask."""
        answer = httpx.post(f"{self.url}/graphql", json={"query": query}, headers=headers, timeout=60)
        document: dict[str, Any] = answer.json()
        return document

    def raw(self, request: str) -> int:
        """The status of the answer to these bytes; `HERE` stands for the name, and lines end as HTTP has it."""
        host, _, port = self.name.rpartition(":")
        text = request.strip("\n").replace("HERE", self.name).replace("\n", "\r\n")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"{text}\r\n\r\n".encode())
            answer = connection.recv(64).decode()
        return int(answer.split()[1])


@contextmanager
def running_ui(folder: Path, *options: str, code: str | None = None, **variables: str) -> Iterator[RunningUi]:
    """The UI on a free port with a small code location, or none; killed at the end if it still runs."""
    workspace = folder / "workspace.yaml"
    locations = []
    if code is not None:
        (folder / "small.py").write_text(code)
        locations.append({"python_file": {"relative_path": "small.py", "location_name": "small"}})
    workspace.write_text(json.dumps({"load_from": locations}))
    log = folder / "log"
    command = [PROGRAM, "ui", "--port", "0", "--workspace", str(workspace), *options]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | variables,
            text=True,
            start_new_session=True,
        )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), log.read_text()
        try:
            yield RunningUi(process, url)
        finally:
            process.kill()
