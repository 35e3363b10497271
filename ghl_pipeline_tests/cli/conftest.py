"""The command as a person meets it: `main()` in this process (importing it costs seconds), or a process of its own."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ghl_pipeline import settings as settings_module
from ghl_pipeline.cli.app import main
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

PROGRAM = Path(sys.executable).with_name("ghl-pipeline")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code, and what it wrote."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on stdout; fails when there is anything else."""
        return json.loads(self.out)

    def words(self) -> str:
        """Stdout and stderr as one line of words: frames and line breaks are for the eye."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", self.out + self.err)


Cli = Callable[..., Ended]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable and no `.env` of the person who runs the tests reaches a command; returns the folder of `.env`."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(field.alias or "", raising=False)
    monkeypatch.setattr(settings_module, "project_root", lambda: tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs a command in this process: `cli("backfill", "--json")`. What it sets for its process is undone."""
    factory = logging.getLogRecordFactory()
    levels = {name: logging.getLogger(name).level for name in (None, "alembic", "dagster", "dagster.redacted_errors")}
    environment = dict(os.environ)

    def run(*words: object, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["ghl-pipeline", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return Ended(code, *capsys.readouterr())

    yield run
    logging.setLogRecordFactory(factory)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for added in os.environ.keys() - environment.keys():
        del os.environ[added]


def run_process(*words: object, stdin: str = "", **environment: str) -> Ended:
    """Runs a command as a process, with variables on top of this process's."""
    done = subprocess.run(
        [PROGRAM, *map(str, words)],
        input=stdin,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Agency:
    """A client with a location in the sandbox, and the leads that a test gives it."""

    engine: Engine
    location: Location
    client_id: int

    def add_lead(self, **values: object) -> int:
        """Inserts a lead; returns its id."""
        columns = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        query = text(f"INSERT INTO leads (client_id, {columns}) VALUES (:client_id, {places}) RETURNING id")
        with self.engine.begin() as connection:
            return int(connection.execute(query, values | {"client_id": self.client_id}).scalar_one())

    def lead(self, lead_id: int) -> Mapping[str, object]:
        """The lead as it is now."""
        with self.engine.connect() as connection:
            row = connection.execute(text("SELECT * FROM leads WHERE id = :id"), {"id": lead_id}).one()
        return dict(row._mapping)

    def set(self, **columns: object) -> None:
        """Changes columns of the client's row."""
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(text(f"UPDATE clients SET {changes} WHERE id = :id"), columns | {"id": self.client_id})


AddClient = Callable[..., Agency]


@pytest.fixture
def add_client(cli: Cli, project: Settings, engine: Engine, sandbox: Sandbox) -> AddClient:
    """Adds a client through the command line, with a location of its own in the sandbox."""

    def add(name: str = "Acme", token: str | None = None, **location: Any) -> Agency:
        place = sandbox.add_location(**location)
        added = cli("clients", "add", "--name", name, "--location", place.id, "--json", stdin=token or place.token)
        assert added.code == 0, added.err
        return Agency(engine, place, added.document()["id"])

    return add
