"""How much of a limit the throttle reaches, and whether it ever goes beyond, counted where the requests arrive.

Worker processes ask as fast as they may; the sandbox, in a process of its own, notes when each request arrives, those
that it refuses too. One row per situation:

- *reached*: requests that were let in within whole windows after the first one, as a share of what these windows allow;
- *sustained*: how long a window's worth of requests takes in the long run, as a share of the speed allowed. The guard
  of 1.5 % of a window alone makes it 98.5 %; bursts hide that from *reached* for many windows;
- *highest*: most arrivals in any sliding window, and *429s* what the sandbox refused beyond what it was told to.

`python -m benchmarks.throttle` measures the harder ones in shorter windows, `--full` all of them in GHL's own, 100
requests per 10 s. The shorter the window, the less jitter the guard covers: a busy machine shows in the short version
first. At the end it tells what a reservation costs, which all processes ask of one database.
"""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
from sqlalchemy import Engine, text

from benchmarks.harness import ROOT, BenchmarkFailed, Results, read_options
from benchmarks.project import project
from benchmarks.sandbox import SandboxLocation
from ghl_pipeline.ghl import throttle_row
from ghl_pipeline.ghl.throttle import LEASE, Limits
from ghl_pipeline.sandbox.limits import Limits as ServerLimits
from ghl_pipeline.sandbox.limits import RateLimiter
from ghl_pipeline.sandbox.process import READY, serve
from ghl_pipeline.sandbox.world import World
from ghl_pipeline_tests.ghl.throttle_worker import Job, Report, report_of, start_worker

QUESTION = "How much of the limit does the throttle reach, and does it ever go beyond?"
COLUMNS = (
    "situation", "allowed", "reached %", "sustained %", "highest", "429s", "longest interactive wait s",
    "CPU ms per request",
)  # fmt: skip


@dataclass(frozen=True)
class Situation:
    """Who works on how many locations at once. `ours` and `kept` are the limits that the processes ask for."""

    name: str
    processes: int = 1
    locations: int = 1
    ours: int = 100
    allowed: int = 100  # by the server, as its headers say
    kept: int = 0
    callers: int = 20
    interactive: bool = False
    storm_requests: int = 0
    full_only: bool = False

    @property
    def pace(self) -> int:
        """Requests per window that can be expected."""
        kept = min(self.kept, self.allowed // 5)
        backfill = min(self.ours, self.allowed - kept)
        return backfill + kept if self.interactive else backfill


SITUATIONS = (
    Situation("one process", full_only=True),
    Situation("four processes", processes=4, callers=10),
    Situation("two processes, 20 locations each", processes=2, locations=20, ours=25, allowed=25, callers=2),
    Situation("25 allowed, known from the headers only", ours=90, allowed=25, full_only=True),
    Situation("two processes after a storm of refusals", processes=2, storm_requests=2),
    Situation("backfill that leaves 5 of 100", kept=5, full_only=True),
    Situation("the same beside interactive work", kept=5, interactive=True, full_only=True),
    Situation("90 of 100, beside interactive work", ours=90, kept=5, interactive=True),
)


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """A request as the server saw it."""

    at: float  # epoch seconds
    let_in: bool


# --- the server


class NotingLimiter(RateLimiter):
    """Lets in like the sandbox's own, and notes every request outside a storm."""

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(limits)
        self.arrivals: list[Arrival] = []

    def admit(self, now: float) -> bool:
        """Notes what becomes of the request."""
        let_in = super().admit(now)
        self.arrivals.append(Arrival(now, let_in))
        return let_in


def serve_noting(described: str, notes: str) -> None:
    """The server process: serves until its input ends, then writes each location's arrivals to the file `notes`."""
    world = World()
    limiters = {}
    for each in msgspec.json.decode(described, type=list[SandboxLocation]):
        location = world.add_location(each.id, token=each.token)
        limiters[each.id] = NotingLimiter(ServerLimits(each.requests, each.interval_seconds))
        location.limiter = limiters[each.id]
    serve(0, world, stop_with_input=True)
    Path(notes).write_bytes(msgspec.json.encode({key: limiter.arrivals for key, limiter in limiters.items()}))


class Server:
    """The running server; `arrivals` are there when it has ended."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.arrivals: Mapping[str, Sequence[Arrival]] = {}


@contextlib.contextmanager
def serving(locations: Sequence[SandboxLocation]) -> Iterator[Server]:
    """Starts the server as a child process."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "arrivals.json"
        command = [sys.executable, "-m", "benchmarks.throttle", "--serve", msgspec.json.encode(locations).decode()]
        with subprocess.Popen(
            [*command, str(notes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            if process.stdin is None or process.stdout is None:
                raise BenchmarkFailed("The server has no pipes.")
            server = Server(process.stdout.readline().removeprefix(READY).strip())
            yield server
            process.stdin.close()
            process.wait(30)
        server.arrivals = msgspec.json.decode(notes.read_bytes(), type=dict[str, list[Arrival]])


# --- one situation


@dataclass
class Measured:
    """What the processes of a situation report, and which locations they worked on."""

    situation: Situation
    locations: Sequence[SandboxLocation]
    interval_seconds: float
    backfills: Sequence[Report]
    interactive: Report | None

    def row(self, arrivals: Mapping[str, Sequence[Arrival]], windows: int) -> tuple[object, ...]:
        """The row of the table; the slowest location stands for all."""
        noted = [arrivals[location.id] for location in self.locations]
        let_in = [[arrival.at for arrival in each if arrival.let_in] for each in noted]
        if self.situation.storm_requests:
            # Requests that were under way beside the refused ones are before the pause, not after it.
            let_in = [[at for at in times if at > times[0] + self.interval_seconds / 2] for times in let_in]
        calls = sum(report.calls for report in self.backfills)
        return (
            self.situation.name,
            self.situation.pace,
            100 * min(self._reached(times, windows) for times in let_in),
            100 * min(self._sustained(times) for times in let_in),
            max(highest([arrival.at for arrival in each], self.interval_seconds) for each in noted),
            sum(not arrival.let_in for each in noted for arrival in each),
            max(self.interactive.waits) if self.interactive else None,
            1000 * sum(report.cpu_seconds for report in self.backfills) / calls,
        )

    def _reached(self, times: Sequence[float], windows: int) -> float:
        within = sum(at < times[0] + windows * self.interval_seconds for at in times)
        return within / (self.situation.pace * windows)

    def _sustained(self, times: Sequence[float]) -> float:
        """Of every request and the one a window's worth later: how far apart they should be, by how far they are."""
        pace = self.situation.pace
        apart = [later - earlier for earlier, later in zip(times, times[pace:], strict=False)]
        if not apart:
            raise BenchmarkFailed(f"{self.situation.name}: {len(times)} requests arrived, not one window's worth.")
        return self.interval_seconds / (sum(apart) / len(apart))


def highest(times: Sequence[float], seconds: float) -> int:
    """Most of the ascending `times` in any window."""
    most = first = 0
    for nth, at in enumerate(times):
        while times[first] + seconds <= at:
            first += 1
        most = max(most, nth - first + 1)
    return most


def measure(
    situation: Situation, locations: Sequence[SandboxLocation], job: Job, between_interactive_calls: float
) -> Measured:
    """Lets the situation's processes do the job."""
    if situation.storm_requests:
        for location in locations:
            faults = {"location": location.id, "storm_requests": situation.storm_requests}
            httpx.post(f"{job.api_url}/_sandbox/faults", json=faults).raise_for_status()
    workers = [start_worker(job) for _ in range(situation.processes)]
    beside = None
    if situation.interactive:
        beside = start_worker(
            msgspec.structs.replace(job, callers=1, interactive=True, pause_seconds=between_interactive_calls)
        )
    reports = [report_of(worker) for worker in workers]
    return Measured(situation, locations, job.limits.interval_seconds, reports, report_of(beside) if beside else None)


# --- one reservation

RESERVATIONS = 300


def reservations(engine: Engine) -> list[tuple[str, float, float]]:
    """What a reservation takes, transaction and all: its name, milliseconds, and times an update of the same row."""
    limits = Limits(90, 10.0, 1_000_000)
    throttle_row.register(engine, "one reservation", limits)
    plain = text("UPDATE location_throttle SET leased = leased WHERE location_id = 'one reservation'")

    def update() -> None:
        with engine.begin() as connection:
            connection.execute(plain)

    def reserve() -> None:
        throttle_row.reserve(engine, "one reservation", LEASE, limits)

    def read() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def nothing() -> None:
        pass

    for _ in range(20):
        reserve()  # until the row remembers as much as it ever will, and the connection has its plan
    base = milliseconds(update, nothing)
    took = {
        "prepared on its connection": milliseconds(reserve, nothing),
        "after a read that was rolled back": milliseconds(reserve, read),
    }
    return [(name, each, each / base) for name, each in took.items()]


def milliseconds(timed: Callable[[], None], before: Callable[[], None]) -> float:
    """The median."""
    took = []
    for _ in range(RESERVATIONS):
        before()
        began = time.perf_counter()
        timed()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def main() -> None:
    """Measures every situation, one after the other."""
    options = read_options("throttle", QUESTION)
    interval_seconds, windows = (10.0, 3) if options.full else (4.0, 2)
    situations = [each for each in SITUATIONS if options.full or not each.full_only]
    results = Results("The throttle", options)
    crowds = [
        [
            SandboxLocation.named(
                f"throttle {number} {nth}", contacts=0, requests=each.allowed, interval_seconds=interval_seconds
            )
            for nth in range(each.locations)
        ]
        for number, each in enumerate(situations)
    ]
    measured = []
    with project("http://127.0.0.1") as databases, serving([each for crowd in crowds for each in crowd]) as server:
        database = databases.engine.url.render_as_string(hide_password=False)
        for situation, crowd in zip(situations, crowds, strict=True):
            job = Job(
                database_url=database,
                api_url=server.url,
                tokens={location.id: location.token for location in crowd},
                limits=Limits(situation.ours, interval_seconds, 1_000_000, situation.kept),
                # A quarter of a window more than is counted, for the last of the requests to arrive; and the pauses of
                # a storm that goes on after the first of them.
                seconds=(windows + 0.25 + 2 * bool(situation.storm_requests)) * interval_seconds,
                callers=situation.callers,
            )
            measured.append(measure(situation, crowd, job, interval_seconds / 5))
        costs = reservations(databases.engine)
    rows = [each.row(server.arrivals, windows) for each in measured]
    results.table(
        f"{windows} windows of {interval_seconds:g} s",
        COLUMNS,
        rows,
        "Of 20 locations the slowest is shown. CPU is that of the backfills' processes with their HTTP client.",
    )
    results.table(
        f"A reservation of up to {LEASE} slots",
        ("", "ms", "times a plain update of the row"),
        costs,
        "With its transaction; psycopg drops what is prepared on a connection when one is rolled back.",
    )
    results.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_noting(*sys.argv[2:])
    else:
        main()
