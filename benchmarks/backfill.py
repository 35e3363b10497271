"""One location, 50,000 leads that have nothing but an address, among 60,000 contacts: calls, seconds, memory, repairs.

The pipeline runs as `ghl-pipeline backfill`, Dagster included, at GHL's true limit of 100 requests per 10 s. Then come
two nights after: one on which nothing changed, and one on which 100 contacts did. The baselines run on the same
sandbox; each has a location of its own, so that nobody spends another's limit.
"""

import importlib.util
import math
import sys
from typing import Final

from benchmarks.baselines.asked import Asked
from benchmarks.harness import Child, Options, Results, read_options
from benchmarks.project import UNKNOWN_EVERY, Project, project
from benchmarks.sandbox import SandboxLocation, SandboxProcess, started_sandbox, statuses

LEADS: Final = 50_000
CONTACTS: Final = 60_000
CHANGED: Final = 100
LEADS_PER_CALL, CONTACTS_PER_CALL = 100, 500
GOAL_SECONDS: Final = 60
GOAL_FACTOR: Final = 1.1
WINDOW: Final = 100
WINDOW_SECONDS: Final = 10.0
SEARCHES, GETS, SDK_PAGES = 100, 100, 50
_MORE: Final = 10  # --full: searches and GETs as many times as many

Row = list[object]


def main(options: Options) -> None:
    """Measures and prints."""
    names = ("pipeline", "searches", "gets", "dlt", "sdk", "sdkall")
    places = {name: SandboxLocation.named(name, contacts=CONTACTS) for name in names}
    results = Results("50,000 leads among 60,000 contacts", options)
    with started_sandbox(list(places.values())) as sandbox:
        with project(sandbox.url, requests_per_10s=WINDOW) as pipeline:
            pipeline.add_client(places["pipeline"], leads=LEADS)
            own = measure_pipeline(results, sandbox, pipeline, places["pipeline"])
        measure_baselines(results, sandbox, places, own, slices=_MORE if options.full else 1)
    results.close()


def measure_pipeline(
    results: Results, sandbox: SandboxProcess, pipeline: Project, place: SandboxLocation
) -> tuple[int, float, str]:
    """The first backfill and the two nights after; returns the first one's calls, seconds and peak memory."""
    goal_calls = math.ceil(GOAL_FACTOR * min(LEADS / LEADS_PER_CALL, CONTACTS / CONTACTS_PER_CALL))
    goals = [goal_calls, 1, 2]
    rows: list[Row] = []
    repaired = 0
    for label, goal in zip(("first backfill", "next night, nothing changed", f"{CHANGED} changed"), goals, strict=True):
        if goal == goals[-1]:
            change_contacts(sandbox, place)
        sandbox.reset_stats()
        result, _ = pipeline.backfill(place)
        counts = sandbox.stats(place.id)
        now_repaired = pipeline.repaired(place)
        rows.append(
            [
                label,
                counts["requests"],
                goal,
                result.seconds,
                counts["highest_in_window"],
                counts["refused_429"],
                result.cpu_seconds,
                result.peak_text,
                now_repaired - repaired,
            ]
        )
        repaired = now_repaired
    unknown = LEADS // UNKNOWN_EVERY
    results.table(
        "The pipeline",
        ["run", "calls", "goal", "s", "most in 10 s", "429s", "CPU s", "peak MiB", "leads repaired"],
        rows,
        f"Calls as the sandbox counted them; the goal of the first is {GOAL_FACTOR} x min(leads/{LEADS_PER_CALL}, "
        f"contacts/{CONTACTS_PER_CALL}) calls in {GOAL_SECONDS} s. Seconds and CPU are those of the whole "
        f"`ghl-pipeline backfill` process. {unknown:,} leads are of nobody at GHL and stay as they are. Of the "
        f"{CHANGED} changes half are touched contacts, half are new contacts of leads that were of nobody.",
    )
    return int(str(rows[0][1])), float(str(rows[0][3])), str(rows[0][7])


def change_contacts(sandbox: SandboxProcess, place: SandboxLocation) -> None:
    """Half of the changes touch a linked contact, half add one for a lead that had none."""
    half = CHANGED // 2
    touched = [number * UNKNOWN_EVERY + 1 for number in range(half)]
    added = [number * UNKNOWN_EVERY for number in range(1, half + 1)]
    newcomers = [(CONTACTS + number, f"nobody.{number}@example.com") for number in added]
    sandbox.change(place.id, touch=touched, add=newcomers)


def measure_baselines(
    results: Results,
    sandbox: SandboxProcess,
    places: dict[str, SandboxLocation],
    own: tuple[int, float, str],
    *,
    slices: int,
) -> None:
    """The baselines on their slices, and what the slices come to for all leads."""
    searches, gets = SEARCHES * slices, GETS * slices
    known = LEADS - LEADS // UNKNOWN_EVERY
    calls, seconds, memory = own
    rows: list[Row] = [["ghl-pipeline backfill", f"{LEADS:,} leads", calls, 0, seconds, memory, "measured", seconds]]
    wanted: list[tuple[str, str, str, int, str, float]] = [
        ("one search per lead", "search_per_lead", "searches", searches, f"{searches:,} leads", LEADS / searches),
        ("one GET per contact", "get_per_contact", "gets", gets, f"{gets:,} contacts", known / gets),
        ("dlt rest_api", "dlt_listing", "dlt", 0, f"{CONTACTS:,} contacts", 1.0),
        ("official SDK", "sdk_listing", "sdk", SDK_PAGES, f"{SDK_PAGES * 500:,} contacts", 0.0),
        ("official SDK", "sdk_listing", "sdkall", 0, f"{CONTACTS:,} contacts", 1.0),
    ]
    missing = [name for name in ("dlt", "highlevel") if importlib.util.find_spec(name) is None]
    if missing:
        wanted = wanted[:2]
    for label, module, name, slice_, worked_on, factor in wanted:
        place = places[name]
        asked = Asked(sandbox.url, place.id, place.token, slice_)
        command = [sys.executable, "-m", f"benchmarks.baselines.{module}"]
        child = Child(command, asked.as_environment() | {"RUNTIME__DLTHUB_TELEMETRY": "false"})
        result = child.wait()
        counts = sandbox.stats(place.id)
        ended = "reckoned" if factor > 1 else "measured"
        whole: object = result.seconds * factor
        if not factor:
            ended, whole = "the next line", None
        if result.exit_code:
            ended, whole = f"failed: {_last_words(result.complaints)}", None
        row = [label, worked_on, counts["requests"], statuses(counts).get("429", 0), result.seconds]
        rows.append([*row, result.peak_text, ended, whole])
    results.table(
        "Beside what people use today",
        ["way", "worked on", "calls", "429s", "s", "peak MiB", "for all", "s for all"],
        rows,
        "All but the pipeline only read: they write no lead and cannot go on after a kill. One search per lead is "
        "paced at 90 per 10 s in its process and finds 4 of 5 leads; one GET per contact sleeps 0.12 s between calls "
        "and needs the contacts' ids, which leads without a link do not have, so `for all` counts the "
        f"{known:,} that exist. dlt and the SDK list the location by pages of 500 and match nothing; dlt loads JSON "
        "lines into DuckDB. Where `for all` is reckoned, it is the slice times the ratio of the sizes; nobody waited "
        "for it.",
    )
    if missing:
        results.text(f"Not installed, so not measured: {', '.join(missing)}. `make bench` installs them.")


def _last_words(complaints: str) -> str:
    """The class of the exception that ended a baseline, without its text."""
    lines = [line for line in complaints.splitlines() if line and not line[0].isspace()]
    return lines[-1].partition(":")[0].rpartition(".")[2] if lines else "nothing said"


if __name__ == "__main__":
    main(read_options("backfill", "What do 50,000 leads cost?"))
