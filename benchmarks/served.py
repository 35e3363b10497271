"""A demo that `ghl-pipeline dev` serves: its databases, its sandbox, its UI's GraphQL, from the outside."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import URL, Engine, text

from benchmarks.harness import ROOT, BenchmarkFailed
from ghl_pipeline.cli.demo_profile import SampleSize, demo_profile, make_sample
from ghl_pipeline.database.connection import create_engine, drop_databases
from ghl_pipeline.settings import Settings

START_WITHIN_SECONDS: Final = 400.0
HYDRATION: Final = ("eligible_leads", "resolved_contacts", "hydrated_leads")
ENDED: Final = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})

_LAUNCH = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
_BACKFILL = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
_SENSOR = """
query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor { id } } }
"""
_STOP_SENSOR = """
mutation($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }
"""
_GREEN = """
query($asset: AssetKeyInput!) { assetNodeOrError(assetKey: $asset) { ... on AssetNode {
  partitionStats { numMaterialized numFailed numMaterializing numPartitions } } } }
"""


@dataclass(frozen=True, slots=True)
class Partitions:
    """How the partitions of an asset stand on its page."""

    green: int
    failed: int
    running: int
    all: int


@dataclass(frozen=True, slots=True)
class Served:
    """A running `ghl-pipeline dev --demo`."""

    pid: int
    size: SampleSize
    home: Path
    ui: str
    sandbox: str
    receiver: str
    engine: Engine
    history: Engine
    output: Path

    def graphql(self, query: str, variables: Mapping[str, object] | None = None) -> dict[str, Any]:
        """What the UI's server answers, as the browser asks it.

        Raises:
            BenchmarkFailed: it answered with errors.
        """
        asked = {"query": query, "variables": dict(variables or {})}
        answer = httpx.post(f"{self.ui}/graphql", json=asked, headers={"Origin": self.ui}, timeout=300)
        body: dict[str, Any] = answer.raise_for_status().json()
        if body.get("errors"):
            raise BenchmarkFailed(f"GraphQL: {body['errors']}")
        data: dict[str, Any] = body["data"]
        return data

    def launch_backfill(self, partitions: Sequence[str] | None = None) -> str:
        """Starts a backfill of the hydration assets, of all partitions or these; its id."""
        params: dict[str, object] = {"assetSelection": [{"path": [asset]} for asset in HYDRATION]}
        params |= {"allPartitions": True} if partitions is None else {"partitionNames": list(partitions)}
        told = self.graphql(_LAUNCH, {"params": params})["launchPartitionBackfill"]
        if told["__typename"] != "LaunchBackfillSuccess":
            raise BenchmarkFailed(f"the backfill was refused: {told}")
        return str(told["backfillId"])

    def backfill_status(self, backfill_id: str) -> str:
        """COMPLETED_SUCCESS, REQUESTED, ..."""
        return str(self.graphql(_BACKFILL, {"id": backfill_id})["partitionBackfillOrError"]["status"])

    def partitions(self, asset: str = "hydrated_leads") -> Partitions:
        """How the asset's partitions stand."""
        node = self.graphql(_GREEN, {"asset": {"path": [asset]}})["assetNodeOrError"]
        stats = node["partitionStats"]
        return Partitions(
            stats["numMaterialized"], stats["numFailed"], stats["numMaterializing"], stats["numPartitions"]
        )

    def stop_sensor(self, name: str) -> None:
        """Switches a sensor off, as the UI does."""
        sensor = {
            "sensorName": name,
            "repositoryName": "__repository__",
            "repositoryLocationName": "ghl_pipeline",
        }
        found = self.graphql(_SENSOR, {"sensor": sensor})["sensorOrError"]
        told = self.graphql(_STOP_SENSOR, {"id": found["id"]})["stopSensor"]
        if told["__typename"] != "StopSensorMutationResult":
            raise BenchmarkFailed(f"the sensor {name} could not be switched off: {told}")

    def set_faults(self, **faults: object) -> None:
        """Lets the sandbox fail, as `sandbox.faults.Faults` says; without any, it is well again."""
        httpx.post(f"{self.sandbox}/_sandbox/faults", json=faults, timeout=60).raise_for_status()

    def statistics(self) -> dict[str, Any]:
        """What the sandbox counted, by location."""
        answer = httpx.get(f"{self.sandbox}/_sandbox/stats", timeout=60).raise_for_status()
        counts: dict[str, Any] = answer.json()["locations"]
        return counts

    def command(self, *words: str, given: str | None = None) -> str:
        """Output of a command of `ghl-pipeline` on this demo.

        Raises:
            BenchmarkFailed: it ended with another exit code than 0.
        """
        command = [sys.executable, "-m", "ghl_pipeline.cli.app", "--demo", *words]
        environment = {**os.environ, "GHL_PIPELINE_HOME": str(self.home)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchmarkFailed(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout


@contextlib.contextmanager
def served(size: SampleSize, *, first: Sequence[str] = ()) -> Iterator[Served]:
    """A demo of that size with free ports and a home folder of its own, all gone at the end.

    Args:
        size: of the sample agency.
        first: SQL statements for the demo's database before anything is served.
    """
    folder = Path(tempfile.mkdtemp(prefix="ghl-served-"))
    folder.chmod(0o755)  # the server runs as another user when this one is root
    settings = Settings(home=folder / "home")
    ours = {**os.environ, "GHL_PIPELINE_HOME": str(settings.home)}
    process: subprocess.Popen[bytes] | None = None
    try:
        profile = demo_profile(settings)
        make_sample(profile, size)
        _execute(profile.urls.app, first)
        port, webhook_port = free_port(), free_port()
        command = [
            sys.executable, "-m", "ghl_pipeline.cli.app", "dev", "--demo", "--port", str(port),
            "--webhook-port", str(webhook_port),
        ]  # fmt: skip
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=ours, stdout=output, stderr=output, start_new_session=True
            )
        ui, receiver = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{webhook_port}"
        sandbox = _wait_for_start(process, folder / "output", f"{receiver}/healthz", f"{ui}/server_info")
        engine, history = create_engine(profile.urls.app), create_engine(profile.urls.dagster)
        try:
            yield Served(process.pid, size, settings.home, ui, sandbox, receiver, engine, history, folder / "output")
        finally:
            engine.dispose()
            history.dispose()
            process.send_signal(signal.SIGINT)
            process.wait(120)
            drop_databases(profile.urls)
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        remove = [sys.executable, "-m", "ghl_pipeline.cli.app", "db", "remove", "--yes"]
        subprocess.run(remove, cwd=ROOT, env=ours, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _execute(url: URL, statements: Sequence[str]) -> None:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_start(process: subprocess.Popen[bytes], output: Path, *addresses: str) -> str:
    """Until all addresses answer; returns the sandbox's URL."""
    give_up_at = time.monotonic() + START_WITHIN_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if all(httpx.get(each).is_success for each in addresses):
                found = re.search(r"played by (http://\S+)", output.read_text())
                if found:
                    time.sleep(10)  # the daemon's first look at every sensor
                    return found[1]
        time.sleep(0.5)
    raise BenchmarkFailed(f"dev did not start: {output.read_text()[-500:]}")
