"""What a process of the receiver has counted since it started, and how several processes are told as one.

Processes share a socket, so a scrape reaches any of them. Each writes its counts to a folder of theirs every two
seconds; the one that answers adds the others'. A process that died is still counted: a counter must not fall.
"""

import logging
import secrets
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from ghl_pipeline.operations.metrics import families as f
from ghl_pipeline.operations.metrics.exposition import Distribution, Distributions
from ghl_pipeline.operations.metrics.families import Family
from ghl_pipeline.operations.metrics.readings import Samples

log = logging.getLogger(__name__)

# An answer takes 2 to 20 ms; a sender gives up after 15 s.
ANSWER_BOUNDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SHARE_EVERY_SECONDS: Final = 2.0
# What a process says of now, as what waits, counts while it goes on saying it.
ALIVE_SECONDS: Final = 10.0

_COUNTERS: Final = {
    family.name: family for family in (f.ANSWERS, f.REFUSALS, f.BATCHES, f.BATCH_EVENTS, f.BATCH_FAILURES)
}
_HISTOGRAMS: Final = {
    f.ANSWER_SECONDS.name: (f.ANSWER_SECONDS, ANSWER_BOUNDS),
    f.BATCH_SECONDS.name: (f.BATCH_SECONDS, BATCH_BOUNDS),
}


class Told(msgspec.Struct):
    """One process's counts as the others read them: by the names of a family and the values of its labels."""

    counters: list[tuple[list[str], int]]
    histograms: list[tuple[list[str], list[int], float]]
    waiting: int


@dataclass
class _Buckets:
    counts: list[int]
    total: float = 0.0

    def add(self, bounds: tuple[float, ...], value: float) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value


@dataclass
class Counts:
    """Counts of one process; called once or twice for an answer, from the event loop alone.

    `waiting` tells how many events wait to be stored.
    """

    waiting: Callable[[], int] = lambda: 0
    _counters: Counter[tuple[str, ...]] = field(default_factory=Counter, init=False)
    _answers: dict[str, _Buckets] = field(
        default_factory=lambda: defaultdict(lambda: _Buckets([0] * (len(ANSWER_BOUNDS) + 1))), init=False
    )
    _batches: _Buckets = field(default_factory=lambda: _Buckets([0] * (len(BATCH_BOUNDS) + 1)), init=False)

    def answered(self, route: str, status: int, reason: str, seconds: float) -> None:
        """Counts an answer; `reason` is the word of a refusal, empty for a success."""
        self._counters[f.ANSWERS.name, route, str(int(status))] += 1
        if reason:
            self._counters[f.REFUSALS.name, route, reason] += 1
        self._answers[route].add(ANSWER_BOUNDS, seconds)

    def stored(self, events: int, seconds: float, failed: bool) -> None:
        """Counts a transaction that stored events, or failed to."""
        self._counters[f.BATCHES.name,] += 1
        self._counters[f.BATCH_EVENTS.name,] += events
        self._counters[f.BATCH_FAILURES.name,] += failed
        self._batches.add(BATCH_BOUNDS, seconds)

    def told(self) -> Told:
        """A copy, as it is shared."""
        histograms = [
            ([f.ANSWER_SECONDS.name, route], list(it.counts), it.total) for route, it in self._answers.items()
        ]
        histograms.append(([f.BATCH_SECONDS.name], list(self._batches.counts), self._batches.total))
        return Told([(list(key), count) for key, count in self._counters.items()], histograms, self.waiting())


@dataclass(frozen=True)
class Shared:
    """The folder in which the receiver's processes leave their counts; None: there is one process."""

    folder: Path | None
    # Not the process's number: that of one that died is given again, and its counts would be overwritten.
    name: str = field(default_factory=lambda: secrets.token_hex(8))

    def write(self, told: Told) -> None:
        """Leaves this process's counts. A folder that cannot be written costs the metrics, not the receiver."""
        if self.folder is None:
            return
        own = self.folder / f"{self.name}.json"
        try:
            own.with_suffix(".new").write_bytes(msgspec.json.encode(told))
            own.with_suffix(".new").replace(own)
        except OSError as error:
            log.warning("the counts of this process could not be left for the others: %s", type(error).__name__)

    def others(self) -> Iterator[tuple[Told, bool]]:
        """What the other processes left, and whether each still does."""
        if self.folder is None:
            return
        for path in self.folder.glob("*.json"):
            if path.stem == self.name:
                continue
            try:
                is_alive = time.time() - path.stat().st_mtime < ALIVE_SECONDS
                yield msgspec.json.decode(path.read_bytes(), type=Told), is_alive
            except (OSError, msgspec.DecodeError):
                continue


def added_up(own: Told, others: Iterator[tuple[Told, bool]]) -> tuple[Samples, Distributions]:
    """The values of all processes together, as a scrape tells them."""
    counters: Counter[tuple[str, ...]] = Counter()
    histograms: dict[tuple[str, ...], _Buckets] = {}
    waiting = processes = 0
    for told, is_alive in ((own, True), *others):
        for key, count in told.counters:
            counters[tuple(key)] += count
        for key, counts, total in told.histograms:
            sum_so_far = histograms.setdefault(tuple(key), _Buckets([0] * len(counts)))
            sum_so_far.counts = [a + b for a, b in zip(sum_so_far.counts, counts, strict=True)]
            sum_so_far.total += total
        processes += is_alive
        waiting += told.waiting if is_alive else 0
    samples: dict[Family, list[tuple[tuple[str, ...], float]]] = {family: [] for family in _COUNTERS.values()}
    for (name, *labels), count in sorted(counters.items()):
        samples[_COUNTERS[name]].append((tuple(labels), float(count)))
    samples[f.WAITING] = [((), float(waiting))]
    samples[f.RECEIVER_PROCESSES] = [((), float(processes))]
    return samples, _distributions(histograms)


def _distributions(histograms: Mapping[tuple[str, ...], _Buckets]) -> Distributions:
    found: dict[Family, dict[tuple[str, ...], Distribution]] = {family: {} for family, _ in _HISTOGRAMS.values()}
    for (name, *labels), buckets in sorted(histograms.items(), key=lambda each: each[0]):
        family, bounds = _HISTOGRAMS[name]
        found[family][tuple(labels)] = Distribution(bounds, buckets.counts, buckets.total)
    return found
