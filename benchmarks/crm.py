"""Vendors and leads of a marketplace kept in step: calls, seconds and memory of `ghl-pipeline crm-sync`.

The limit is GHL's, 100 requests in any 10 s of true time, and the settings are the defaults. Each run is a process of
its own, start included. Beside it, for 800 contacts: one GET for each known id, 0.12 s between them, run to the end.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import text

from benchmarks.baselines.asked import Asked
from benchmarks.harness import BenchmarkFailed, Child, ChildResult, Options, Results, read_options
from benchmarks.project import Project, project
from benchmarks.sandbox import SandboxLocation, SandboxProcess, started_sandbox
from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.database.rows import as_json_rows
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.privacy.tokens import TokenCipher

SMALL_VENDORS, SMALL_LEADS = 300, 500
VENDORS, LEADS = 5_000, 10_000
BY_EMAIL_EVERY: Final = 5
STRANGERS: Final = 10
CHANGED: Final = 100
WINDOW_CALLS: Final = 3
FALLBACK_LIST_CALLS: Final = 2

_ADD_ROWS = """
    INSERT INTO {table} (client_id, ghl_contact_id, email)
    SELECT :client_id, contact_id, email FROM json_to_recordset(CAST(:rows AS json)) AS t (contact_id text, email text)
"""
_LINKED = "SELECT count(*) FROM {table} WHERE client_id = :client_id AND ghl_contact_id <> ''"
_DATABASE_SECONDS = text("SELECT active_time / 1000 FROM pg_stat_database WHERE datname = current_database()")

TOOK: Final = ("s", "sync s", "database s", "peak MiB")

Row = list[object]


@dataclass(frozen=True, slots=True)
class Place:
    """A marketplace at the sandbox, and its client in the project."""

    id: str
    client_id: int
    contact_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run took and did."""

    process: ChildResult
    counts: Mapping[str, Any]
    document: Mapping[str, Any]
    database_seconds: float

    @property
    def calls(self) -> int:
        """Requests that the sandbox answered."""
        return int(self.counts["requests"])

    @property
    def sync_seconds(self) -> float:
        """What the location took; the rest is the start of the process and the reading of settings."""
        return float(sum(location["seconds"] for location in self.document["locations"]))

    @property
    def list_calls(self) -> int:
        """Of them, those that go through the location's list."""
        return int(self.counts["list_calls"])


def main(options: Options) -> None:
    """Measures and prints."""
    results = Results("Vendors and leads in step", options)
    gets = SandboxLocation.named("gets", contacts=SMALL_VENDORS + SMALL_LEADS)
    with started_sandbox([gets]) as sandbox, project(sandbox.url) as pipeline:
        measure_known(results, sandbox, pipeline, gets)
        measure_fallback(results, sandbox, pipeline)
        measure_large(results, sandbox, pipeline)
    results.close()


def measure_known(results: Results, sandbox: SandboxProcess, pipeline: Project, gets: SandboxLocation) -> None:
    """800 contacts, all known by id, beside one GET for each."""
    place = add_marketplace(sandbox, pipeline, "Known", vendors=SMALL_VENDORS, leads=SMALL_LEADS)
    ran = run(sandbox, pipeline, place, "--full")
    _require(ran.list_calls == 0, "everybody was known by id, and the list was gone through all the same")
    command = [sys.executable, "-m", "benchmarks.baselines.get_per_contact"]
    asked = Asked(sandbox.url, gets.id, gets.token, gets.contacts)
    baseline = Child(command, asked.as_environment()).wait().require_success()
    results.table(
        "800 contacts, all known by id",
        ["way", "calls", "list calls", *TOOK],
        [
            ["ghl-pipeline crm-sync --full", ran.calls, ran.list_calls, *_took(ran)],
            [
                "one GET per id, 0.12 s apart",
                sandbox.requests(gets.id),
                0,
                baseline.seconds,
                None,
                None,
                baseline.peak_text,
            ],
        ],
        f"{SMALL_VENDORS} vendors and {SMALL_LEADS} leads. The GETs only read: nothing is classified, compared or "
        "written. Two of our calls are the location's custom fields and its users.",
    )


def measure_fallback(results: Results, sandbox: SandboxProcess, pipeline: Project) -> None:
    """800 contacts and a few leads whom nobody has: the list is gone through for them, once."""
    place = add_marketplace(
        sandbox, pipeline, "Fallback", vendors=SMALL_VENDORS, leads=SMALL_LEADS, strangers=STRANGERS
    )
    first, second = (run(sandbox, pipeline, place, "--full") for _ in range(2))
    _require(first.list_calls == FALLBACK_LIST_CALLS, f"the fallback took {first.list_calls} list calls")
    _require(second.list_calls == 0, f"the second run took {second.list_calls} list calls")
    results.table(
        f"800 contacts, and {STRANGERS} leads whose e-mails nobody has",
        ["run", "calls", "list calls", "goal", *TOOK],
        [
            ["first full pass", first.calls, first.list_calls, FALLBACK_LIST_CALLS, *_took(first)],
            ["second full pass", second.calls, second.list_calls, 0, *_took(second)],
        ],
        "Who was not found by a scan is not scanned for again until the row changes, or 30 days are over.",
    )


def measure_large(results: Results, sandbox: SandboxProcess, pipeline: Project) -> None:
    """15,000 contacts, of which every fifth is known by its e-mail only; then a run without changes and one with."""
    place = add_marketplace(sandbox, pipeline, "Large", vendors=VENDORS, leads=LEADS, by_email_every=BY_EMAIL_EVERY)
    rows: list[Row] = []
    for label in ("first full pass", "second run, nothing changed", f"{CHANGED} contacts changed", "full pass again"):
        if str(CHANGED) in label:
            sandbox.touch(place.id, place.contact_ids[:CHANGED])
        ran = run(sandbox, pipeline, place, *(["--full"] if "full" in label else []))
        if "nothing" in label:
            _require(ran.calls <= WINDOW_CALLS, f"a run without changes took {ran.calls} calls")
        counts = [ran.calls, ran.list_calls, ran.counts["highest_in_window"], ran.counts["refused_429"]]
        rows.append([label, *counts, *_took(ran), ran.process.cpu_seconds, _written(ran)])
    for table, expected in (("vendors", VENDORS), ("leads", LEADS)):
        with pipeline.engine.connect() as connection:
            linked = connection.execute(text(_LINKED.format(table=table)), {"client_id": place.client_id}).scalar_one()
        _require(linked == expected, f"{linked} of {expected} {table} are linked")
    results.table(
        f"{VENDORS + LEADS:,} contacts, {VENDORS:,} vendors, {LEADS:,} leads",
        ["run", "calls", "list calls", "most in 10 s", "429s", *TOOK, "CPU s", "rows written"],
        rows,
        f"Every {BY_EMAIL_EVERY}th row has an e-mail and no link at first. Seconds, CPU and memory are those of the "
        "whole `ghl-pipeline crm-sync` process, of which `sync s` are the location's; database seconds are those in "
        f"which PostgreSQL worked on its statements. The goal for a run without changes is {WINDOW_CALLS} calls.",
    )


def add_marketplace(
    sandbox: SandboxProcess,
    pipeline: Project,
    name: str,
    *,
    vendors: int,
    leads: int,
    by_email_every: int = 0,
    strangers: int = 0,
) -> Place:
    """A location with vendors and leads, and its client with a row for each.

    Args:
        sandbox: where the contacts will be.
        pipeline: where the rows will be.
        name: of the client.
        vendors: contacts of vendors.
        leads: contacts of leads.
        by_email_every: every so-manyth row has its e-mail and no link; 0: all have their link.
        strangers: further leads whose e-mails nobody has.
    """
    made = sandbox.marketplace(vendors=vendors, leads=leads, staff=0)
    with pipeline.engine.begin() as connection:
        client = add_client(
            connection,
            TokenCipher.from_settings(pipeline.settings),
            name=name,
            location_id=made["location"],
            token=SecretStr(made["token"]),
        )
        set_crm(connection, made["location"], enabled=True)
        for table in ("vendors", "leads"):
            rows = [
                {"contact_id": None if by_email_every and not n % by_email_every else each["contact_id"]}
                | {"email": each["email"]}
                for n, each in enumerate(made[table])
            ]
            if table == "leads":
                rows += [{"contact_id": None, "email": f"nobody.{n}@example.com"} for n in range(strangers)]
            values = {"client_id": client.id, "rows": as_json_rows(rows)}
            connection.execute(text(_ADD_ROWS.format(table=table)), values)
    with pipeline.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Tables that have been there for a while have statistics.
        connection.execute(text("VACUUM ANALYZE vendors, leads"))
    ids = [each["contact_id"] for each in (*made["vendors"], *made["leads"])]
    return Place(made["location"], client.id, ids)


def run(sandbox: SandboxProcess, pipeline: Project, place: Place, *options: str) -> Ran:
    """Runs `ghl-pipeline crm-sync` for a location to its end.

    Raises:
        BenchmarkFailed: it ended in an error.
    """
    sandbox.reset_stats()
    before = _database_seconds(pipeline)
    process = pipeline.start("crm-sync", "--location", place.id, "--yes", "--json", *options).wait().require_success()
    document = json.loads(process.output)
    return Ran(process, sandbox.stats(place.id), document, _database_seconds(pipeline) - before)


def _database_seconds(pipeline: Project) -> float:
    with pipeline.engine.connect() as connection:
        return float(connection.execute(_DATABASE_SECONDS).scalar_one())


def _took(ran: Ran) -> Row:
    return [ran.process.seconds, ran.sync_seconds, ran.database_seconds, ran.process.peak_text]


def _written(ran: Ran) -> int:
    return sum(count for name, count in ran.document["stats"].items() if name not in {"ghl_contacts_fetched", "errors"})


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise BenchmarkFailed(f"Not what was to be measured: {otherwise}.")


if __name__ == "__main__":
    main(read_options("crm", "What does keeping vendors and leads in step cost?"))
