"""Backfills that are killed with SIGKILL at random moments and run again until they are done.

A round is a location that is backfilled, killed, backfilled again and so on until a backfill ends by itself; rounds are
made until there were as many kills as wanted. What is compared with an uninterrupted backfill of the same people: the
rows, the calls, and how many addresses were asked about more than once. Half of the kills meet a location where leads
are few among many contacts, half one where they are most of them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.harness import BenchmarkFailed, Options, Results, read_options
from benchmarks.project import Project, project
from benchmarks.sandbox import SandboxLocation, SandboxProcess, started_sandbox

KILLS, KILLS_FULL = 20, 50
PAGE: Final = 100
REQUESTS_PER_10S: Final = 1000
LATENCY_SECONDS: Final = 0.05
"""Of each answer: long enough for a backfill to be killed in the middle of its calls."""
SEED: Final = 20


@dataclass(frozen=True, slots=True)
class Situation:
    """A location to be: leads among contacts."""

    name: str
    leads: int
    contacts: int


SITUATIONS: Final = (Situation("few", 1_500, 20_000), Situation("most", 3_000, 3_600))


@dataclass(slots=True)
class Tally:
    """What the rounds of a situation came to."""

    rounds: int = 0
    kills: int = 0
    calls: int = 0
    repeated: int = 0
    leads_that_differ: int = 0


def main(options: Options) -> None:
    """Measures and prints."""
    results = Results("Killed backfills", options)
    wanted = (KILLS_FULL if options.full else KILLS) // len(SITUATIONS)
    rng = random.Random(SEED)  # noqa: S311 - repeatable moments
    rows = []
    for situation in SITUATIONS:
        # Nearly every round is killed at least once; those that end before their moment make some more necessary.
        names = ["first", "whole", *(f"round{number}" for number in range(2 * wanted))]
        places = [
            SandboxLocation.named(f"{situation.name}{name}", contacts=situation.contacts, requests=REQUESTS_PER_10S)
            for name in names
        ]
        with (
            started_sandbox(places, latency_seconds=LATENCY_SECONDS) as sandbox,
            project(sandbox.url, requests_per_10s=REQUESTS_PER_10S, page_size=PAGE) as pipeline,
        ):
            rows.append(Measurement(situation, sandbox, pipeline, wanted, rng).row(places))
    results.table(
        "Killed and run again, beside an uninterrupted run",
        [
            "leads",
            "contacts",
            "rounds",
            "kills",
            "leads that differ",
            "s uninterrupted",
            "calls uninterrupted",
            "calls more per kill",
            "asked twice per kill",
        ],
        rows,
        f"A page is {PAGE} leads. Moments are drawn evenly from an uninterrupted run's length, its start included. "
        "Asked twice: addresses or ids in searches beyond the first time, less those of the uninterrupted run.",
    )
    results.close()


@dataclass(frozen=True, slots=True)
class Measurement:
    """The rounds of a situation, until `wanted` kills met a running backfill."""

    situation: Situation
    sandbox: SandboxProcess
    pipeline: Project
    wanted: int
    rng: random.Random

    def row(self, places: Sequence[SandboxLocation]) -> list[object]:
        """The row of the table.

        Raises:
            BenchmarkFailed: too few kills met a running backfill, or a backfill failed by itself.
        """
        first, whole, *others = places
        self._add(first)
        self.pipeline.backfill(first)  # it also makes Dagster's tables, which a killed run need not do
        self._add(whole)
        uninterrupted, _ = self.pipeline.backfill(whole)
        expected, calls = self.pipeline.rows(whole), self.sandbox.requests(whole.id)
        repeated = _repeated(self.sandbox.stats(whole.id))
        tally = Tally()
        for place in others:
            if tally.kills >= self.wanted:
                break
            self._add(place)
            tally.kills += self._run_until_done(place, uninterrupted.seconds, self.wanted - tally.kills)
            tally.rounds += 1
            tally.calls += self.sandbox.requests(place.id) - calls
            tally.repeated += _repeated(self.sandbox.stats(place.id)) - repeated
            tally.leads_that_differ += len(set(self.pipeline.rows(place)) - set(expected))
        if tally.kills < self.wanted:
            raise BenchmarkFailed(f"Only {tally.kills} of {self.wanted} kills met a running backfill.")
        return [
            self.situation.leads,
            self.situation.contacts,
            tally.rounds,
            tally.kills,
            tally.leads_that_differ,
            uninterrupted.seconds,
            calls,
            tally.calls / tally.kills,
            tally.repeated / tally.kills,
        ]

    def _add(self, place: SandboxLocation) -> None:
        self.pipeline.add_client(place, leads=self.situation.leads)

    def _run_until_done(self, place: SandboxLocation, seconds: float, most_kills: int) -> int:
        """Backfills, killed at moments up to `seconds`, until one ends by itself; how often it was killed."""
        kills = 0
        while True:
            child = self.pipeline.start("backfill", "--location", place.id, "--json")
            killed = kills < most_kills and child.kill_after(self.rng.uniform(0.0, seconds))
            result = child.wait()
            if not killed:
                result.require_success()
                return kills
            kills += 1


def _repeated(counts: dict[str, Any]) -> int:
    return sum(int(of_field["repeated"]) for of_field in counts["lookups"].values())


if __name__ == "__main__":
    main(read_options("kills", "What does a kill cost?"))
