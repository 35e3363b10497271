"""Canary people go through everything, the failure paths included, and must not be found anywhere but in the leads.

Searched: what the commands print, every file in the home folder (compute logs among them), the database server's log,
every table of Dagster's, and every table of the pipeline's but those whose job it is to hold people for good.
"""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, insert, text

from ghl_pipeline.database.tables import leads
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.sync import sync_lead
from ghl_pipeline.locations.clients import LocationAccess, add_client
from ghl_pipeline.locations.learning import record_survey
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import run_locations
from ghl_pipeline.privacy.redaction import safe_error_text
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.database import REPOSITORY
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

TOKEN = "pit-0ca4a47e-0000-4000-8000-00000000c0de"
# Nobody else in any test is called like this, so each is found only where it leaked.
CANARIES = ("zyxwinda", "Quorvath", "Brindlemoth", "5550187", "555-0187", "555) 0187", TOKEN, "c0de")
EMAIL = "zyxwinda.{}@example.com"
PEOPLE = 40
# Tables that hold people for good; those that hold them only while a list is in work are empty at the end.
FOR_PEOPLE = {"leads", "clients"}
WHILE_IN_WORK = ("resolved_contacts", "pulled_contacts")


@pytest.fixture
def location_id(engine: Engine, project: Settings, sandbox: Sandbox) -> str:
    """A client whose people are canaries, on both sides, in every state that hydration knows."""
    location = sandbox.world.add_location(token=TOKEN)
    rows: list[dict[str, object]] = []
    for number in range(PEOPLE):
        email = EMAIL.format(number)
        person = {"first_name": "Quorvath", "last_name": "Brindlemoth", "phone": "(305) 555-0187", "email": email}
        if number % 5:
            location.add(**person)
        rows.append({"email": email.upper() if number % 2 else email})
    rows.append({"email": "zyxwinda." + "x" * 290 + "@example.com"})
    rows.append({"email": EMAIL.format("junk"), "ghl_contact_id": "Quorvath Brindlemoth"})
    with engine.begin() as connection:
        cipher = TokenCipher.from_settings(project)
        client = add_client(connection, cipher, name="Acme", location_id=location.id, token=SecretStr(TOKEN))
        connection.execute(insert(leads), [{"client_id": client.id, "ghl_contact_id": None, **row} for row in rows])
    # Small groups make pulling all contacts the cheaper way for a backfill; Sync All looks them up.
    record_survey(engine, location.id, Survey(None, {10: GroupAnswer.RIGHT}))
    return location.id


def command(*words: str, expect: int = 0) -> str:
    """Everything that a command prints, on both streams, in the talkative mode."""
    line = [sys.executable, "-m", "ghl_pipeline.cli.app", "--verbose", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def everything_it_knows(access: LocationAccess) -> str:
    return f"{EMAIL.format(1)} Quorvath Brindlemoth 305-555-0187 {access.token.get_secret_value()}"


class Leaky:
    """A client opener with a bug whose text quotes everything it can lay its hands on."""

    def __call__(self, access: LocationAccess) -> AbstractAsyncContextManager[LocationClient]:
        # Made elsewhere: the logged stack quotes this line of code, as it may.
        raise ValueError(everything_it_knows(access))


def buggy(engine: Engine, project: Settings) -> Hydration:
    cipher = TokenCipher.from_settings(project)
    return Hydration(engine=engine, cipher=cipher, open_client=Leaky(), default_group_size=50)


def run_with_a_bug(engine: Engine, project: Settings, instance: DagsterInstance, location_id: str) -> None:
    definitions = build_defs({"engine": engine, "hydration": buggy(engine, project)})
    sync_partitions(instance, [location_id])
    summary = run_locations(
        definitions, job="hydrate_leads", op="lead_hydration", instance=instance, locations=[location_id], config={}
    )
    assert not summary.succeeded


@pytest.mark.slow
def test_nobody_is_found_outside_the_leads(
    location_id: str,
    engine: Engine,
    dagster_url: URL,
    project: Settings,
    sandbox: Sandbox,
    instance: DagsterInstance,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GHL_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("GHL_CALL_DEADLINE_SECONDS", "2")
    printed: list[str] = []
    with caplog.at_level(logging.DEBUG):
        run_with_a_bug(engine, project, instance, location_id)
        with pytest.raises(ValueError, match="zyxwinda") as bug:
            asyncio.run(sync_lead(buggy(engine, project), 1))
        printed.append(safe_error_text(bug.value))
    sandbox.faults(location_id, garbage_rate=1.0)
    printed.append(command("backfill", expect=1))
    sandbox.faults(location_id, error_rate=0.7, seed=3, drop_rate=0.3)
    printed.append(command("backfill", "--dry-run", expect=1))
    sandbox.faults(location_id, token_revoked=True)
    printed.append(command("backfill", expect=1))
    sandbox.faults()
    printed.append(command("sync-lead", "2"))
    printed.append(command("backfill"))
    printed.append(command("sync-all"))
    printed.append(command("status"))
    printed.append(command("clients", "list"))

    with engine.connect() as connection:
        # The canaries did go through: what was found was written.
        assert connection.execute(text("SELECT count(*) FROM leads WHERE last_name = 'Brindlemoth'")).scalar() == 32
        assert connection.execute(text("SELECT plan ->> 'way' FROM work_lists")).scalars().all() == ["scan"]
    printed.append(caplog.text)
    streams = capfd.readouterr()
    printed += [streams.out, streams.err]
    for number, output in enumerate(printed):
        assert_clean(f"output {number}", [output])
    for path, content in files_under(project.home):
        assert_clean(str(path), [content])
    for path, content in files_under(REPOSITORY / ".ghl_pipeline" / "tests" / "postgres", "*.log"):
        assert_clean(str(path), [content])
    assert tables_searched(dagster_url, except_for=set()) > 15
    assert tables_searched(engine.url, except_for=FOR_PEOPLE) > 5
    with engine.connect() as connection:
        for table in WHILE_IN_WORK:
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0, table


def files_under(folder: Path, pattern: str = "*") -> Iterator[tuple[Path, str]]:
    for path in folder.rglob(pattern):
        if path.is_file():
            yield path, path.read_text(errors="replace")


def tables_searched(url: URL, except_for: set[str]) -> int:
    """Searches every row of every table; returns how many tables there were."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            names = connection.execute(
                text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            ).scalars()
            searched = [name for name in names if name not in except_for]
            for name in searched:
                rows = connection.execute(text(f'SELECT row::text FROM "{name}" AS row')).scalars()
                assert_clean(f"table {name}", list(rows))
    finally:
        engine.dispose()
    return len(searched)


def assert_clean(where: str, contents: Sequence[str]) -> None:
    for content in contents:
        for canary in CANARIES:
            at = content.lower().find(canary.lower())
            assert at < 0, f"{where} holds {canary}: ...{content[max(0, at - 200) : at + 100]}..."
