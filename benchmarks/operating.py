"""A thousand locations under `ghl-pipeline dev`: a full backfill from the UI, refused tokens, and GHL down.

Everything runs as a user runs it: the UI, the daemon, the receiver and all schedules and sensors of the demo, on one
machine with the database and with the sandbox that plays GHL. Nobody presses anything after a backfill is launched.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from pydantic import SecretStr
from sqlalchemy import Engine, TextClause, text

from benchmarks.harness import BenchmarkFailed, Results, read_options
from benchmarks.process_tree import Watch
from benchmarks.served import ENDED, Partitions, Served, served
from ghl_pipeline.cli.demo_profile import SampleSize, demo_profile
from ghl_pipeline.locations.clients import set_token
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.settings import Settings

LOCATIONS, LOCATIONS_FULL = 100, 1000
LEADS: Final = 200
SEED: Final = 7
REVOKED_SHARE: Final = 10
"""Of so many locations, one token is revoked."""
DOWN_SECONDS, DOWN_SECONDS_FULL = 60.0, 300.0
LOOK_EVERY_SECONDS: Final = 5.0
GIVE_UP_AFTER_SECONDS: Final = 3600.0

# The new-lead sensor would repair a fresh agency before anybody can launch a backfill: the leads come once it is off.
_PUT_ASIDE = ("CREATE TABLE benchmark_leads AS SELECT * FROM leads", "TRUNCATE leads CASCADE")
# A tenth of the phones that a contact gave is lost again, so that every location has something to repair.
_BLANKED = text("CREATE TABLE IF NOT EXISTS benchmark_blanked (lead_id bigint PRIMARY KEY)")
_CHOOSE = text("INSERT INTO benchmark_blanked SELECT id FROM leads WHERE id % 10 = 0 AND enrichment_source = 'ghl'")
_BLANK = text("UPDATE leads SET phone = NULL FROM benchmark_blanked WHERE leads.id = lead_id")
_WITHOUT_PHONE = text("SELECT count(*) FROM leads JOIN benchmark_blanked ON lead_id = id WHERE phone IS NULL")
_TOKENS = text("SELECT location_id FROM clients WHERE active ORDER BY id")
_HELD = text("""
    SELECT count(*) FROM location_standings
    WHERE capability = 'hydration' AND state = 'failed' AND error_class = 'TokenRejected'
""")
_EVENTS = text("""
    SELECT coalesce(dagster_event_type, 'log') AS kind, count(*) AS rows FROM event_logs GROUP BY 1 ORDER BY 2 DESC
""")
_EVENT_BYTES = text("SELECT pg_total_relation_size('event_logs')")
_CONNECTIONS = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
_RUNS = text("""
    SELECT count(*) FILTER (WHERE run_body LIKE '%ghl_pipeline/rerun%') AS reruns, count(*) AS all FROM runs
""")


@dataclass(frozen=True, slots=True)
class Round:
    """What a backfill and what came after it took."""

    seconds: float
    backfill: str
    partitions: Partitions
    peak_connections: int
    rates: list[float]
    """Requests per second that the sandbox answered, in each look."""


def main() -> None:
    """Measures and prints."""
    options = read_options("operating", "What does it take to keep a thousand locations repaired?")
    results = Results("Operating many locations", options)
    locations = LOCATIONS_FULL if options.full else LOCATIONS
    down = DOWN_SECONDS_FULL if options.full else DOWN_SECONDS
    with served(SampleSize(locations, LEADS, SEED), first=_PUT_ASIDE) as demo:
        _whole_backfill(demo, results, locations)
        _refused_tokens(demo, results)
        _ghl_down(demo, results, down)
    results.close()


def _whole_backfill(demo: Served, results: Results, locations: int) -> None:
    demo.stop_sensor("new_leads")
    with demo.engine.begin() as connection:
        connection.execute(text("INSERT INTO leads SELECT * FROM benchmark_leads"))
    before = dict(_events(demo.history))
    bytes_before = _one(demo.history, _EVENT_BYTES)
    with Watch(demo.pid) as watch:
        told = _backfill(demo)
    _require_green(told, locations)
    leads = _one(demo.engine, text("SELECT count(*) FROM leads"))
    events = {kind: rows - before.get(kind, 0) for kind, rows in _events(demo.history)}
    grown = _one(demo.history, _EVENT_BYTES) - bytes_before
    peak = max(int(each["highest_in_window"]) for each in demo.statistics().values())
    results.table(
        "A full backfill from the UI",
        [
            "locations", "leads", "minutes to green", "peak MiB", "CPU ms per lead", "connections", "event rows",
            "event MiB", "most in 10 s",
        ],
        [
            [
                locations, leads, told.seconds / 60, watch.peak_memory_mib, watch.cpu_seconds / leads * 1000,
                told.peak_connections, sum(events.values()), grown / 1024**2, peak,
            ]
        ],
        "Memory and CPU are those of all processes of `dev`: UI, daemon, code server, receiver, sandbox, runs (the "
        "database is not among them), with every other schedule and sensor of the demo at work meanwhile. The last "
        "column is what the sandbox counted at the busiest location; GHL allows 100.",
    )  # fmt: skip
    results.table("Event rows of it, by kind", ["kind", "rows"], [each for each in events.items() if each[1]][:12])


def _refused_tokens(demo: Served, results: Results) -> None:
    with demo.engine.connect() as connection:
        everyone = list(connection.execute(_TOKENS).scalars())
    revoked = everyone[::REVOKED_SHARE]
    blanked = _blank(demo.engine)
    for location in revoked:
        demo.set_faults(location=location, token_revoked=True)
    told = _backfill(demo, until_green=len(everyone) - len(revoked))
    shown = _seconds_until(lambda: _one(demo.engine, _HELD) >= len(revoked), "all refused tokens are on record")
    runs = _runs(demo.history)
    time.sleep(60)
    more = _runs(demo.history)[0] - runs[0]
    still = _one(demo.engine, _WITHOUT_PHONE)
    document = msgspec.json.decode(demo.command("status", "--json"))
    told_by_status = sum("TokenRejected" in (each["error"] or "") for each in document["locations"])
    for location in revoked:
        demo.set_faults(location=location)
    _give_tokens(demo, revoked)
    repaired = _seconds_until(lambda: _one(demo.engine, _WITHOUT_PHONE) == 0, "the rest is repaired")
    green = _seconds_until(lambda: demo.partitions().green == len(everyone), "all are green")
    results.table(
        "One token in ten revoked",
        [
            "locations", "revoked", "phones blanked", "minutes to the rest green", "held after s",
            "reruns in a minute", "shown by status", "still blank", "repaired after s", "green after s",
        ],
        [
            [
                len(everyone), len(revoked), blanked, told.seconds / 60, shown, more, told_by_status, still, repaired,
                repaired + green,
            ]
        ],
        "The last two columns count from the last new token (`clients set-token`); no run was started by hand.",
    )  # fmt: skip


def _ghl_down(demo: Served, results: Results, down: float) -> None:
    everyone = demo.partitions().all
    blanked = _blank(demo.engine)
    runs = _runs(demo.history)
    began = time.monotonic()
    told: list[tuple[str, float]] = []
    backfill = demo.launch_backfill()
    _seconds_until(lambda: _one(demo.engine, _WITHOUT_PHONE) < blanked * 0.9, "the backfill is under way")
    counted = _Requests(demo)
    demo.set_faults(error_rate=1.0, error_status=503)
    until = time.monotonic() + down
    while time.monotonic() < until:
        time.sleep(LOOK_EVERY_SECONDS)
        told.append(("down", counted.per_second()))
    demo.set_faults()
    back = time.monotonic()
    while _one(demo.engine, _WITHOUT_PHONE) or demo.partitions().green < everyone or demo.partitions().failed:
        if time.monotonic() - back > GIVE_UP_AFTER_SECONDS:
            raise BenchmarkFailed(f"{_one(demo.engine, _WITHOUT_PHONE)} phones missing, {demo.partitions()}")
        time.sleep(LOOK_EVERY_SECONDS)
        told.append(("after", counted.per_second()))
    green = time.monotonic() - back
    after = _runs(demo.history)
    while_down = [rate for when, rate in told if when == "down"]
    then = [rate for when, rate in told if when == "after"]
    quarter = max(1, len(while_down) // 4)
    results.table(
        "GHL down in the middle of a backfill",
        [
            "locations", "down s", "phones blanked", "req/s, first quarter", "req/s, last quarter", "req/s after, peak",
            "green after s", "minutes in all", "runs", "of them reruns", "backfill",
        ],
        [
            [
                everyone, down, blanked, sum(while_down[:quarter]) / quarter, sum(while_down[-quarter:]) / quarter,
                max(then, default=0.0), green, (time.monotonic() - began) / 60, after[1] - runs[1],
                after[0] - runs[0], demo.backfill_status(backfill),
            ]
        ],
        "Every request is answered 503 meanwhile. Requests per second are those of all locations together, as the "
        "sandbox counted them; `green after` counts from its first good answer until every partition is green and no "
        "phone is missing.",
    )  # fmt: skip


def _backfill(demo: Served, until_green: int | None = None) -> Round:
    """Launches one of all partitions and waits for its end, and for so many green partitions."""
    began = time.monotonic()
    backfill = demo.launch_backfill()
    connections, rates = 0, []
    counted = _Requests(demo)
    while True:
        time.sleep(LOOK_EVERY_SECONDS)
        connections = max(connections, _one(demo.engine, _CONNECTIONS))
        rates.append(counted.per_second())
        status = demo.backfill_status(backfill)
        if status in ENDED:
            break
        if time.monotonic() - began > GIVE_UP_AFTER_SECONDS:
            raise BenchmarkFailed(f"the backfill is {status} after {GIVE_UP_AFTER_SECONDS:g} s")
    partitions = demo.partitions()
    if until_green is not None and partitions.green < until_green:
        raise BenchmarkFailed(f"{partitions} after the backfill, {until_green} should be green")
    return Round(time.monotonic() - began, status, partitions, connections, rates)


class _Requests:
    """Requests per second between two looks, over all locations."""

    def __init__(self, demo: Served) -> None:
        self._demo = demo
        self._at, self._count = time.monotonic(), self._all()

    def _all(self) -> int:
        return sum(int(each["requests"]) for each in self._demo.statistics().values())

    def per_second(self) -> float:
        now, count = time.monotonic(), self._all()
        rate = (count - self._count) / (now - self._at)
        self._at, self._count = now, count
        return rate


def _require_green(told: Round, locations: int) -> None:
    if told.backfill != "COMPLETED_SUCCESS" or told.partitions.green != locations:
        raise BenchmarkFailed(f"the backfill ended as {told.backfill}: {told.partitions}")


def _blank(engine: Engine) -> int:
    with engine.begin() as connection:
        connection.execute(_BLANKED)
        connection.execute(text("TRUNCATE benchmark_blanked"))
        connection.execute(_CHOOSE)
        return connection.execute(_BLANK).rowcount


def _give_tokens(demo: Served, locations: Sequence[str]) -> None:
    """Stores the locations' tokens again, as `clients set-token` does, but in one go."""
    settings = demo_profile(Settings(home=demo.home)).settings
    cipher = TokenCipher.from_settings(settings)
    tokens = {
        each.id: each.token for each in sample_agency(locations=demo.size.locations, leads=0, seed=SEED).locations
    }
    with demo.engine.begin() as connection:
        for location in locations:
            set_token(connection, cipher, location, SecretStr(tokens[location]))


def _events(engine: Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        return [(row.kind, int(row.rows)) for row in connection.execute(_EVENTS)]


def _runs(engine: Engine) -> tuple[int, int]:
    with engine.connect() as connection:
        row = connection.execute(_RUNS).one()
        return int(row.reruns), int(row.all)


def _one(engine: Engine, query: TextClause) -> int:
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def _seconds_until(done: Callable[[], bool], what: str) -> float:
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > GIVE_UP_AFTER_SECONDS:
            raise BenchmarkFailed(f"{GIVE_UP_AFTER_SECONDS:g} s passed before {what}")
        time.sleep(1)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
