"""Webhooks received per second: what the receiver holds, how long its answers take, and whether it loses any.

The receiver is `ghl-pipeline webhooks` as a user starts it, on PostgreSQL with fsync; the senders are a process of
their own (`webhook_load.py`) on the same machine. Afterwards the database is asked for every event, message and person
that was answered 200: none may be missing, none there twice.
"""

import argparse
import base64
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import Engine, text

from benchmarks.harness import BenchmarkFailed, Child, Options, Results
from benchmarks.project import Project, project
from benchmarks.webhook_load import Maker, Place, Plan, Report, known_contact
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving.senders import create_secret

RATE: Final = 500
SECONDS: Final = 60.0
STEP: Final = 250
STEP_SECONDS: Final = 15.0
HIGHEST: Final = 4000
HELD_P99_MS: Final = 50.0
CLIENTS: Final = 5
KNOWN: Final = 2_000
SAMPLES: Final = 50
WARM_UP_SECONDS: Final = 3.0

_ADD_LEADS = text("""
    INSERT INTO leads (client_id, ghl_contact_id, email)
    SELECT :client_id, contact_id, lower(contact_id) || '@example.com'
    FROM unnest(CAST(:contacts AS text[])) AS contact_id
""")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the benchmark was called."""

    rate: int
    seconds: float
    processes: int


@dataclass
class Measurement:
    """A receiver with its database, and the rounds that are sent to it."""

    pipeline: Project
    url: str
    private_key: str
    places: Sequence[Place]
    numbers: int = 1

    def round(self, rate: int, seconds: float) -> Report:
        """Sends for that long; what came back."""
        plan = Plan(self.url, rate, seconds, list(self.places), KNOWN, self.private_key, self.numbers)
        self.numbers += int(rate * seconds) + 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plan.json"
            path.write_bytes(msgspec.json.encode(plan))
            result = Child([sys.executable, "-m", "benchmarks.webhook_load", str(path)], {}).wait().require_success()
        return msgspec.json.decode(result.output, type=Report)

    def lost_and_double(self, reports: Sequence[Report], *, others: int) -> tuple[int, int]:
        """Events and messages that were answered 200 and are not there; those that are there more than once.

        Args:
            reports: of every round.
            others: messages that were sent besides.
        """
        with self.pipeline.engine.connect() as connection:

            def missing(ids: list[str], table: str, column: str, part: int) -> int:
                query = f"""
                    SELECT count(*) FROM (
                        SELECT id FROM unnest(CAST(:ids AS text[])) AS id
                        EXCEPT SELECT split_part({column}, ':', {part}) FROM {table}
                    ) AS missing
                """
                return int(connection.execute(text(query), {"ids": ids}).scalar_one())

            def count(table: str) -> int:
                return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

            ghl_ids = [each for report in reports for each in report.ghl_ids]
            message_ids = [each for report in reports for each in report.message_ids]
            lost = missing(ghl_ids, "webhook_events", "dedupe_key", 2)
            lost += missing(message_ids, "messages", "external_id", 1)
            double = count("webhook_events") - sum(report.events for report in reports) - others
            double += count("messages") - len(message_ids) - others
        return lost, double


def main(options: Options, wanted: Wanted) -> None:
    """Measures and prints."""
    results = Results("Webhooks", options)
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    private = base64.b64encode(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())).decode()
    with project("http://127.0.0.1:9") as pipeline:
        places = _add_clients(pipeline)
        port = _free_port()
        receiver = pipeline.start(
            *("webhooks", "--port", str(port), "--processes", str(wanted.processes)),
            environment={"GHL_WEBHOOK_ED25519_KEYS": public},
        )
        measurement = Measurement(pipeline, f"http://127.0.0.1:{port}", private, places)
        try:
            _wait_until_up(measurement.url)
            reports = [measurement.round(RATE, WARM_UP_SECONDS)]
            visible = _visible_after(measurement)
            rows = []
            before = _cpu_seconds(receiver.pid)
            report = measurement.round(wanted.rate, wanted.seconds)
            cpu_ms = (_cpu_seconds(receiver.pid) - before) / len(report.latencies) * 1000
            reports.append(report)
            rows.append(_row(wanted.rate, report))
            held = wanted.rate if _is_held(report) else 0
            for rate in range(wanted.rate + STEP, HIGHEST + 1, STEP):
                report = measurement.round(rate, STEP_SECONDS)
                reports.append(report)
                rows.append(_row(rate, report))
                if not _is_held(report):
                    break
                held = rate
            lost, double = measurement.lost_and_double(reports, others=SAMPLES)
        finally:
            os.kill(receiver.pid, signal.SIGTERM)
            ended = receiver.wait()
    ended.require_success()
    results.table(
        "Sent at a steady rate",
        ["per second", "s", "sent", "answered 200", "others", "p50 ms", "p95 ms", "p99 ms", "max ms"],
        rows,
        f"{wanted.processes} process(es), {cpu_ms:.2f} ms of its CPU time per event in the first row. Latencies count "
        f"from the moment a request was due. The highest rate of these that was held (all 200, p99 under "
        f"{HELD_P99_MS:g} ms): **{held} per second**. Of all that was answered 200, lost: **{lost}**, double: "
        f"**{double}**. 5 % of the requests are repetitions.",
    )
    results.table(
        "From an inbound SMS sent to its message visible in another session",
        ["messages", "p50 ms", "p95 ms", "max ms"],
        [[len(visible), _percentile(visible, 50), _percentile(visible, 95), max(visible)]],
        "One at a time, on a receiver with nothing else to do.",
    )
    results.close()


def _add_clients(pipeline: Project) -> list[Place]:
    """Clients with leads that GHL knows, secrets and workspaces."""
    cipher = TokenCipher.from_settings(pipeline.settings)
    places = []
    with pipeline.engine.begin() as connection:
        for index in range(CLIENTS):
            location_id = f"BenchmarkLocation{index:04}"
            client = add_client(connection, cipher, name=location_id, location_id=location_id)
            contacts = [known_contact(index, number) for number in range(KNOWN)]
            connection.execute(_ADD_LEADS, {"client_id": client.id, "contacts": contacts})
            workspace_id = 100 + index
            connection.execute(
                text(
                    "INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id) "
                    "VALUES (:client_id, 'https://bison.example.com', :workspace_id)"
                ),
                {"client_id": client.id, "workspace_id": workspace_id},
            )
            secret = create_secret(connection, client.id, Provider.EMAILBISON).get_secret_value()
            places.append(Place(location_id, workspace_id, secret))
    with pipeline.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE leads"))
    return places


def _visible_after(measurement: Measurement) -> list[float]:
    """Milliseconds from sending an inbound SMS until another session sees its message, for some of them."""
    plan = Plan(measurement.url, 1, 1, list(measurement.places), KNOWN, measurement.private_key, 900_000_000)
    maker = Maker(plan, datetime.now(UTC))
    found: list[float] = []
    number = plan.first_number
    with httpx.Client(base_url=measurement.url, timeout=15) as http:
        engine: Engine = measurement.pipeline.engine
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            query = text("SELECT 1 FROM messages WHERE external_id = :id")
            while len(found) < SAMPLES:
                request = maker.make(number)
                number += 1
                if request.ghl_id is None or request.message_id is None:
                    continue
                began = time.perf_counter()
                answer = http.post(request.path, content=request.body, headers=request.headers)
                if not answer.is_success:
                    raise BenchmarkFailed(f"An inbound SMS was answered {answer.status_code}.")
                while connection.execute(query, {"id": request.message_id}).scalar() is None:
                    if time.perf_counter() - began > 10:
                        raise BenchmarkFailed("A message that was answered 200 was not visible after 10 s.")
                found.append((time.perf_counter() - began) * 1000)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_up(url: str) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/healthz", timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > give_up_at:
            raise BenchmarkFailed("The receiver did not start within 60 s.")
        time.sleep(0.1)


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children that it has by now."""
    children = (path.name for path in Path("/proc").iterdir() if path.name.isdigit() and _parent(path) == pid)
    return sum(_own_cpu_seconds(int(each)) for each in (str(pid), *children))


def _stat(path: Path) -> list[str]:
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(path: Path) -> int:
    fields = _stat(path)
    return int(fields[1]) if fields else 0


def _own_cpu_seconds(pid: int) -> float:
    fields = _stat(Path("/proc") / str(pid))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _row(rate: int, report: Report) -> list[object]:
    accepted = report.statuses.get("200", 0)
    latencies = report.latencies
    return [
        rate,
        report.seconds,
        len(latencies),
        accepted,
        len(latencies) - accepted,
        *(_percentile(latencies, each) for each in (50, 95, 99)),
        max(latencies),
    ]


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _is_held(report: Report) -> bool:
    return report.statuses.keys() == {"200"} and _percentile(report.latencies, 99) < HELD_P99_MS


def _read_options() -> tuple[Options, Wanted]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description="How many webhooks a second?")
    parser.add_argument("--full", action="store_true", help="the same; for `make bench-full`")
    parser.add_argument("--write", action="store_true", help="also write the tables to benchmarks/results/")
    parser.add_argument("--rate", type=int, default=RATE, help="per second, in the first and longest round")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the first and longest round")
    parser.add_argument("--processes", type=int, default=1, help="of the receiver")
    given = parser.parse_args()
    return Options("webhooks", write=given.write), Wanted(given.rate, given.seconds, given.processes)


if __name__ == "__main__":
    main(*_read_options())
