"""How long until a lead that answers is in the dashboard, and until it is repaired, with `ghl-pipeline dev`.

The demo is served from a home folder of its own. People whom only GHL knows write SMS, one after the other at times
that fit no rhythm of the sensor; each is timed from the moment before the sandbox sends it to the moment at which
another session sees the message, and its lead with phone and name.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from sqlalchemy import Engine, text

from benchmarks.harness import ROOT, BenchmarkFailed, Results, read_options
from ghl_pipeline.cli.demo_profile import demo_profile
from ghl_pipeline.database.connection import create_engine, drop_databases
from ghl_pipeline.settings import Settings

ANSWERS: Final = 10
ANSWERS_FULL: Final = 40
START_WITHIN_SECONDS: Final = 180.0
REPAIR_WITHIN_SECONDS: Final = 60.0
# Longer than a run lingers for more events, so that most answers have to wait for a run to start.
PAUSE_SECONDS: Final = (7.0, 16.0)

_LOCATIONS = text("SELECT location_id FROM clients ORDER BY id")
_STATE = text("""
    SELECT EXISTS (SELECT FROM messages WHERE lead_id = lead.id) AS is_visible,
           phone IS NOT NULL AND first_name IS NOT NULL AS is_repaired
    FROM leads AS lead WHERE ghl_contact_id = :contact_id
""")


@dataclass(frozen=True, slots=True)
class Demo:
    """A running `ghl-pipeline dev --demo`."""

    engine: Engine
    sandbox: str
    receiver: str


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the moment before an SMS was sent."""

    visible: float
    repaired: float


@contextlib.contextmanager
def served_demo() -> Iterator[Demo]:
    """The demo with free ports and a home folder of its own, both gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="ghl-answers-"))
    home.chmod(0o755)  # the server runs as another user when this one is root
    settings = Settings(home=home / "home")
    port, webhook_port = _free_port(), _free_port()
    command = [
        sys.executable, "-m", "ghl_pipeline.cli.app", "dev", "--demo", "--port", str(port),
        "--webhook-port", str(webhook_port),
    ]  # fmt: skip
    environment = {**os.environ, "GHL_PIPELINE_HOME": str(settings.home)}
    with (home / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        sandbox = _wait_for_start(process, home / "output", f"http://127.0.0.1:{webhook_port}/healthz", port)
        profile = demo_profile(settings)
        engine = create_engine(profile.urls.app)
        try:
            yield Demo(engine, sandbox, f"http://127.0.0.1:{webhook_port}")
        finally:
            engine.dispose()
            process.send_signal(signal.SIGINT)
            process.wait(60)
            drop_databases(profile.urls)
    finally:
        if process.poll() is None:
            process.kill()
        subprocess.run(
            [sys.executable, "-m", "ghl_pipeline.cli.app", "db", "remove", "--yes"],
            cwd=ROOT, env=environment, check=False, capture_output=True,
        )  # fmt: skip
        shutil.rmtree(home, ignore_errors=True)


def _wait_for_start(process: subprocess.Popen[bytes], output: Path, health: str, port: int) -> str:
    """Until the receiver and the UI answer; returns the sandbox's URL."""
    give_up_at = time.monotonic() + START_WITHIN_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(health).is_success and httpx.get(f"http://127.0.0.1:{port}/server_info").is_success:
                found = re.search(r"played by (http://\S+)", output.read_text())
                if found:
                    time.sleep(10)  # the daemon's first look at every sensor
                    return found[1]
        time.sleep(0.5)
    raise BenchmarkFailed(f"dev did not start: {output.read_text()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answer(demo: Demo, location_id: str) -> Times:
    """Lets somebody write, and waits until the lead is repaired."""
    order = {"url": demo.receiver, "location": location_id, "event": "inbound_sms", "strangers": True}
    began = time.monotonic()
    told = httpx.post(f"{demo.sandbox}/_sandbox/webhooks", json=order).raise_for_status().json()
    if told["statuses"] != {"200": 1}:
        raise BenchmarkFailed(f"the receiver answered {told['statuses']}")
    who = {"contact_id": told["about"][0]["contact_id"]}
    visible = None
    while (waited := time.monotonic() - began) < REPAIR_WITHIN_SECONDS:
        with demo.engine.connect() as connection:
            row = connection.execute(_STATE, who).one_or_none()
        if row is not None and row.is_visible and visible is None:
            visible = waited
        if row is not None and row.is_repaired and visible is not None:
            return Times(visible, waited)
        time.sleep(0.005)
    raise BenchmarkFailed(f"a lead of location {location_id} was not repaired within {REPAIR_WITHIN_SECONDS:g} s")


def main() -> None:
    """Measures and prints."""
    options = read_options("answers", "How long until a lead that answers is repaired?")
    results = Results("Answers", options)
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    with served_demo() as demo:
        with demo.engine.connect() as connection:
            locations = connection.execute(_LOCATIONS).scalars().all()
        times: list[Times] = []
        for number in range(ANSWERS_FULL if options.full else ANSWERS):
            time.sleep(chance.uniform(*PAUSE_SECONDS))
            times.append(answer(demo, locations[number % len(locations)]))
    rows = [
        (name, len(times), min(values), statistics.median(values), max(values))
        for name, values in (
            ("the message is visible in another session", [each.visible for each in times]),
            ("the lead has its phone and name", [each.repaired for each in times]),
        )
    ]
    results.table(
        "From an SMS sent until ...",
        ["until", "answers", "min s", "median s", "max s"],
        rows,
        "Under `ghl-pipeline dev --demo` with everything on, five locations. Most of the wait is the sensor's rhythm "
        "of 5 s and the start of a run.",
    )
    results.close()


if __name__ == "__main__":
    main()
