"""What a tree of processes takes, read from `/proc`: memory that is its own, CPU time, how many they are."""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class TreeUse:
    """One look: processes, their proportional memory in MiB, CPU seconds with those of children that ended."""

    processes: int
    memory_mib: float
    cpu_seconds: float


def tree_of(pid: int) -> list[int]:
    """The process and all that descend from it, as of now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        found.append(each)
        waiting += children.get(each, [])
    return found


def use_of(pid: int) -> TreeUse:
    """What the tree of `pid` uses now. Processes that end while it is read count with what could be read."""
    pids = tree_of(pid)
    cpu = 0.0
    memory = 0
    for each in pids:
        fields = _stat(each)
        if fields:
            # utime, stime, and those of children that were waited for.
            cpu += sum(int(fields[place]) for place in (11, 12, 13, 14)) / _TICKS
            memory += _proportional_kib(each)
    return TreeUse(len(pids), memory / 1024, cpu)


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, so that [1] is the parent; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _proportional_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


@dataclass
class Watch:
    """Looks at a tree every few seconds in a thread of its own; use it as a context manager."""

    pid: int
    every_seconds: float = 2.0
    peak_memory_mib: float = 0.0
    peak_processes: int = 0
    cpu_seconds: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        self._first = use_of(self.pid).cpu_seconds
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.cpu_seconds = use_of(self.pid).cpu_seconds - self._first
        self.seconds = time.monotonic() - self._began

    def _look(self) -> None:
        while not self._stop.is_set():
            now = use_of(self.pid)
            self.peak_memory_mib = max(self.peak_memory_mib, now.memory_mib)
            self.peak_processes = max(self.peak_processes, now.processes)
            self._stop.wait(self.every_seconds)
