"""What every benchmark needs: the machine it ran on, tables, child processes whose memory and CPU time are taken.

A script makes one `Results`, adds its tables as it gets them and ends with `results.close()`. Tables go to standard
output; with `--write` they also go to `benchmarks/results/`, from where `docs/benchmarks.md` quotes them. The parts
that are measured run in processes of their own: `sandbox.py` starts GHL's stand-in, `project.py` the pipeline.
"""

import argparse
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from ghl_pipeline.database.embedded import EmbeddedPostgres

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".ghl_pipeline" / "benchmarks"
"""Where the benchmarks' own PostgreSQL lives, apart from a person's and from the tests'."""
RESULTS: Final = ROOT / "benchmarks" / "results"
_MIB: Final = 1024 * 1024


class BenchmarkFailed(Exception):
    """A measured program ended in an error, or did something other than what was to be measured."""


# --- options


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark was called."""

    name: str
    full: bool = False
    write: bool = False
    profile: bool = False


def read_options(name: str, question: str, *, can_profile: bool = False) -> Options:
    """The options of `python -m benchmarks.NAME`.

    Args:
        name: of the script, as its results are called.
        question: what it answers, for `--help`.
        can_profile: whether the script knows `--profile`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=question)
    parser.add_argument("--full", action="store_true", help="the long version")
    parser.add_argument("--write", action="store_true", help="also write the tables to benchmarks/results/")
    if can_profile:
        parser.add_argument("--profile", action="store_true", help="show the functions that take the time")
    given = parser.parse_args()
    return Options(name, given.full, given.write, can_profile and given.profile)


# --- the machine


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures come from. Memory is in GiB."""

    cores: int
    memory_gib: float
    cpu: str
    system: str
    python: str
    postgresql: str

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory_gib:.0f} GiB, {self.system}, Python {self.python}, "
            f"PostgreSQL {self.postgresql}"
        )


def machine() -> Machine:
    """This machine, with the PostgreSQL that the benchmarks use."""
    with (
        EmbeddedPostgres(HOME) as address,
        psycopg.connect(address.url("postgres").set(drivername="postgresql").render_as_string(False)) as connection,
    ):
        version = connection.info.parameter_status("server_version") or "unknown"
    return Machine(
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        cpu=_cpu_model(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        postgresql=version.split()[0],
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# --- tables


@dataclass
class Results:
    """The tables of one benchmark: printed when they are added, written together at the end."""

    title: str
    options: Options
    _parts: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._say(f"# {self.title}")
        self._say(f"`{self.command}` on {machine()}.")

    @property
    def command(self) -> str:
        """What to type to get these results."""
        words = ["python", "-m", f"benchmarks.{self.options.name}"]
        return " ".join(words + ["--full"] * self.options.full + ["--profile"] * self.options.profile)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
        """Adds a table as Markdown that is also readable as text; columns of numbers are right-aligned.

        Args:
            title: its heading.
            columns: their headings, with the unit.
            rows: cells; integers are grouped by thousands, floats keep what three digits need, None is empty.
            note: what a reader has to know about it.
        """
        self._say(f"## {title}\n\n{markdown_table(columns, rows)}" + (f"\n\n{note}" if note else ""))

    def text(self, text: str) -> None:
        """Adds a paragraph."""
        self._say(text)

    def close(self) -> None:
        """Ends the results; writes them when `--write` was given."""
        self._say(f"Measured in {time.monotonic() - self._began:.0f} s.")
        if self.options.write:
            RESULTS.mkdir(exist_ok=True)
            name = self.options.name + ("-full" if self.options.full else "")
            (RESULTS / f"{name}.md").write_text("\n\n".join(self._parts) + "\n", encoding="utf-8")

    def _say(self, part: str) -> None:
        self._parts.append(part)
        print(part, end="\n\n", flush=True)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, padded so that it reads well as text too."""
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    widths = [max(3, len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = (f"{'-' * (width - 1)}:" if right else "-" * width for width, right in zip(widths, numeric, strict=True))
    return "\n".join([line(columns), f"| {' | '.join(rule)} |", *map(line, cells)])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _is_number(text: str) -> bool:
    return not text or text.removeprefix("< ").replace(",", "").replace(".", "", 1).isdigit()


# --- child processes


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a child process ended and what it took: wall-clock and CPU seconds (user and system), peak RSS in MiB.

    Linux counts the memory of the forking parent as the child's own until it executes its program, so a peak below
    `least_rss_mib`, the benchmark's own, cannot be seen.
    """

    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    least_rss_mib: float
    output: str
    complaints: str

    @property
    def peak_text(self) -> str:
        """The peak for a table, in MiB; `< 95` when it is too low to be told."""
        if self.peak_rss_mib <= self.least_rss_mib:
            return f"< {self.least_rss_mib:.0f}"
        return f"{self.peak_rss_mib:.0f}"

    def require_success(self) -> "ChildResult":
        """Itself.

        Raises:
            BenchmarkFailed: it ended with another exit code than 0.
        """
        if self.exit_code:
            said = (self.complaints.strip().splitlines() or ["it said nothing"])[-1]
            raise BenchmarkFailed(f"A measured process ended with exit code {self.exit_code}: {said}")
        return self


class Child:
    """A process that is measured. Its output goes to files, so that it never waits for a reader."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by wait()
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by wait()
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._complaints,
            env={**os.environ, **environment},
            cwd=ROOT,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill_after(self, seconds: float) -> bool:
        """Sends SIGKILL `seconds` after it was started; False when it had ended by then."""
        while time.monotonic() - self._began < seconds:
            # WNOWAIT leaves the child to wait(), which takes its resource usage.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
            time.sleep(0.005)
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True

    def wait(self) -> ChildResult:
        """Waits for its end and takes its resource usage."""
        _, status, usage = os.wait4(self.pid, 0)
        seconds = time.monotonic() - self._began
        self._process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (self._output, self._complaints):
            with file:
                file.seek(0)
                texts.append(file.read())
        unit = 1 if sys.platform == "darwin" else 1024
        peak = usage.ru_maxrss * unit / _MIB
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
        cpu = usage.ru_utime + usage.ru_stime
        return ChildResult(self._process.returncode, seconds, cpu, peak, own, texts[0], texts[1])
