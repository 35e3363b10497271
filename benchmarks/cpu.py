"""CPU time of the pipeline for each lead, without that of the sandbox, of PostgreSQL and of starting a process.

A run of few leads and one of many are measured; what the second took more, divided by the leads it had more, is the
cost of a lead. `--profile` shows the functions that take the time, by their own time and with what they call.
"""

import io
import pstats
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.harness import ROOT, Child, Options, Results, read_options
from benchmarks.project import Project, project
from benchmarks.sandbox import SandboxLocation, started_sandbox

FEW, MANY, MANY_FULL = 1_000, 25_000, 100_000
CONTACTS_PER_LEAD: Final = 1.2
REQUESTS_PER_10S: Final = 1000
SHOWN: Final = 25
# Only the main thread's CPU time, so that waiting for an answer costs nothing; the import of the program is left out.
_PROFILED: Final = """
import cProfile, sys, time
from ghl_pipeline.cli.app import main
profile = cProfile.Profile(time.thread_time)
file = sys.argv.pop(1)
try:
    profile.runcall(main)
finally:
    profile.dump_stats(file)
"""


def main(options: Options) -> None:
    """Measures and prints."""
    results = Results("CPU time", options)
    many = MANY_FULL if options.full else MANY
    sizes = {"first": FEW, "few": FEW, "many": many, "profiled": many}
    places = {
        name: SandboxLocation.named(name, contacts=round(leads * CONTACTS_PER_LEAD), requests=REQUESTS_PER_10S)
        for name, leads in sizes.items()
    }
    with (
        started_sandbox(list(places.values())) as sandbox,
        project(sandbox.url, requests_per_10s=REQUESTS_PER_10S) as pipeline,
    ):
        taken: dict[str, float] = {}
        rows: list[list[object]] = []
        for name in ("first", "few", "many"):  # the first also makes Dagster's tables and is not counted
            pipeline.add_client(places[name], leads=sizes[name])
            result, _ = pipeline.backfill(places[name])
            taken[name] = result.cpu_seconds
            if name != "first":
                calls = sandbox.requests(places[name].id)
                per_lead = result.cpu_seconds / sizes[name] * 1000
                rows.append([sizes[name], calls, result.seconds, result.cpu_seconds, per_lead])
        for_a_lead = (taken["many"] - taken["few"]) / (many - FEW) * 1000
        results.table(
            "CPU time of `ghl-pipeline backfill`",
            ["leads", "calls", "s", "CPU s", "CPU ms per lead"],
            rows,
            f"CPU is user and system time of the pipeline's process, its start included. A further lead costs "
            f"**{for_a_lead:.3f} ms**: the difference of the two runs.",
        )
        if options.profile:
            pipeline.add_client(places["profiled"], leads=many)
            show_profile(results, pipeline, places["profiled"])
    results.close()


def show_profile(results: Results, pipeline: Project, place: SandboxLocation) -> None:
    """Runs the same under cProfile, which slows Python down, and adds what it found."""
    with TemporaryDirectory() as folder:
        found = Path(folder) / "profile"
        command = [sys.executable, "-c", _PROFILED, str(found)]
        environment = pipeline.settings.as_environment()
        Child([*command, "backfill", "--location", place.id, "--json"], environment).wait().require_success()
        for order, title in (("tottime", "own time"), ("cumulative", "time with what they call")):
            text = io.StringIO()
            pstats.Stats(str(found), stream=text).sort_stats(order).print_stats(SHOWN)
            told = re.sub(r"\S*/(?:site-packages|lib/python[\d.]+)/", "", text.getvalue().replace(f"{ROOT}/", ""))
            table = told[told.index("ncalls") :].strip()
            results.text(f"## Functions by {title}, CPU seconds of the main thread\n\n```\n{table}\n```")


if __name__ == "__main__":
    main(read_options("cpu", "What does a lead cost in CPU time?", can_profile=True))
