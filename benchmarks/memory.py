"""Peak memory of the pipeline for 5,000, 50,000 and (with --full) 500,000 leads: it should not grow with them.

The location has a fifth more contacts than leads. The limit is ten times GHL's, which shortens the waits and nothing
else.
"""

from typing import Final

from benchmarks.harness import Options, Results, read_options
from benchmarks.project import project
from benchmarks.sandbox import SandboxLocation, started_sandbox

SIZES: Final = (5_000, 50_000)
FULL_SIZES: Final = (*SIZES, 500_000)
CONTACTS_PER_LEAD: Final = 1.2
REQUESTS_PER_10S: Final = 1000
GOAL: Final = 1.2
UNTIL_MEMORY_IS_LEVEL: Final = 500


def main(options: Options) -> None:
    """Measures and prints."""
    results = Results("Memory", options)
    sizes = FULL_SIZES if options.full else SIZES
    # The first run also makes Dagster's tables and is not measured.
    first = SandboxLocation.named("first", contacts=UNTIL_MEMORY_IS_LEVEL, requests=REQUESTS_PER_10S)
    places = {
        leads: SandboxLocation.named(
            f"leads{leads}", contacts=round(leads * CONTACTS_PER_LEAD), requests=REQUESTS_PER_10S
        )
        for leads in sizes
    }
    rows: list[list[object]] = []
    smallest = 0.0
    with (
        started_sandbox([first, *places.values()]) as sandbox,
        project(sandbox.url, requests_per_10s=REQUESTS_PER_10S) as pipeline,
    ):
        pipeline.add_client(first, leads=UNTIL_MEMORY_IS_LEVEL)
        pipeline.backfill(first)
        for leads, place in places.items():
            pipeline.add_client(place, leads=leads)
            result, _ = pipeline.backfill(place)
            peak = result.peak_rss_mib
            smallest = smallest or peak
            rows.append(
                [leads, place.contacts, sandbox.requests(place.id), result.seconds, peak, f"{peak / smallest:.2f}"]
            )
    results.table(
        "Peak memory of `ghl-pipeline backfill`",
        ["leads", "contacts", "calls", "s", "peak MiB", "ratio"],
        rows,
        f"The goal is a ratio of {GOAL} or less. Limit: {REQUESTS_PER_10S:,} calls per 10 s instead of 100.",
    )
    results.close()


if __name__ == "__main__":
    main(read_options("memory", "Does memory grow with the leads?"))
