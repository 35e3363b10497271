"""The canaries, the commands that meet them, and the search of all places where none of them may be.

Searched: what is handed over as printed, every file in the home folder (compute logs among them), the database
server's log, every table of Dagster's, and every table of the pipeline's, less the columns that are for people.
"""

import contextlib
import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, text

from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.database import REPOSITORY

TOKEN = "pit-0ca4a47e-0000-4000-8000-00000000c0de"
# Nobody else in any test is called like this, so each is found only where it leaked. The end of a token has eight
# characters here: four hexadecimal ones come up by chance in a hash or a compressed page.
CANARIES = ("zyxwinda", "Quorvath", "Brindlemoth", "5550187", "555-0187", "555) 0187", TOKEN, "0000c0de")
EMAIL = "zyxwinda.{}@example.com"
# Tables that hold people for good; those that hold them only while a list is in work are empty at the end.
FOR_PEOPLE = {"leads", "clients", "messages"}
# Columns that hold people, what was written, or where to book, in tables of which the rest is searched.
COLUMNS_FOR_PEOPLE: Mapping[str, Sequence[str]] = {
    "webhook_events": ["body"],
    "contact_creations": ["address"],
    "vendors": [
        # The contact's id, because people type names into it.
        *("ghl_contact_id", "email", "phone", "name", "company_name", "service_categories", "services_offered"),
        *("service_zip_codes", "coverage_unread", "primary_service_category"),
    ],
    "draft_clients": ["tone"],
    "reply_drafts": ["body"],
    "booking_calendars": ["booking_link"],
    "sender_accounts": ["email", "name"],
}
WHILE_IN_WORK = ("resolved_contacts", "pulled_contacts")

# Reads orders, a line each, and answers with the codes by which the commands ended. What they print, on either stream,
# goes where its stderr goes.
_SHELL = """
import importlib, io, json, os, sys
orders, answers = sys.stdin, os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from ghl_pipeline.cli.app import main
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.orchestration.runs import open_instance, run_locations
from ghl_pipeline.settings import load_settings

def dagster(job, op, config, *locations):
    with open_instance(load_settings()) as instance:
        summary = run_locations(
            build_defs(), job=job, op=op, instance=instance, locations=locations, config=json.loads(config)
        )
    sys.exit(0 if summary.succeeded else 1)

def bug(says):
    def raises(*_, **__):
        raise ValueError(says)
    return raises

for line in orders:
    order = json.loads(line)
    os.environ.clear()
    os.environ.update(order["environment"])
    healthy = []
    for trap in order["traps"]:
        module, name = trap.split(":")
        module = importlib.import_module(module)
        healthy.append((module, name, getattr(module, name)))
        setattr(module, name, bug(order["says"]))
    codes = []
    for words, typed in order["commands"]:
        sys.argv, sys.stdin, code = ["ghl-pipeline", "--verbose", *words], io.StringIO(typed), 0
        try:
            dagster(*words[1:]) if words[0] == "dagster" else main()
        except SystemExit as ended:
            code = ended.code or 0
        codes.append(code)
    for module, name, function in healthy:
        setattr(module, name, function)
    sys.stdout.flush()
    answers.write(json.dumps(codes) + "\\n")
    answers.flush()
"""


def command(*words: str, expect: int = 0, stdin: str | None = None) -> str:
    """Everything that a command prints, on both streams, in the talkative mode."""
    line = [sys.executable, "-m", "ghl_pipeline.cli.app", "--verbose", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, input=stdin)
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def tried(*words: str) -> str:
    """What a command prints that may fail, but not crash."""
    line = [sys.executable, "-m", "ghl_pipeline.cli.app", "--verbose", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Order:
    """One command: its words, what is typed into it, and with what code, or one of which, it has to end.

    Of the words `dagster`, job, op, config as JSON, locations: a run of the job with a deployment's resources.
    """

    words: tuple[str, ...]
    expect: int | tuple[int, ...] = 0
    typed: str = ""


class Shell:
    """A process that runs one command after the other, talkatively: each start of Python takes 4 s of processor time.

    The commands find the environment that this process has when they are given.
    """

    def __init__(self, process: "subprocess.Popen[str]", said: Path) -> None:
        self._process = process
        self._said = said

    @property
    def printed(self) -> str:
        """Everything that the commands printed, on both streams."""
        return self._said.read_text()

    def run(self, *orders: Order | tuple[str, ...], traps: Sequence[str] = (), says: str = "") -> None:
        """Runs commands and compares how they end.

        Args:
            orders: the commands; words alone have to end well.
            traps: functions, as `module:name`, that have a bug meanwhile.
            says: what the bug's text quotes.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        batch = [each if isinstance(each, Order) else Order(each) for each in orders]
        order = {
            "commands": [(each.words, each.typed) for each in batch],
            "environment": dict(os.environ),
            "traps": list(traps),
            "says": says,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.printed
        for each, code in zip(batch, json.loads(answer), strict=True):
            expected = each.expect if isinstance(each.expect, tuple) else (each.expect,)
            assert code in expected, f"{' '.join(each.words)} ended with {code}\n{self.printed}"


@contextmanager
def open_shell(folder: Path) -> Iterator[Shell]:
    """A shell whose commands print into a file of the folder."""
    said = folder / "commands.txt"
    with (
        said.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-c", _SHELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
        ) as process,
    ):
        try:
            yield Shell(process, said)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(timeout=30) == 0, said.read_text()
        finally:
            process.kill()


def assert_found_nowhere(
    printed: Sequence[str], canaries: Sequence[str], engine: Engine, dagster_url: URL, project: Settings
) -> None:
    """Searches outputs, files, logs and tables; the tables for people, and their columns, are left out."""
    for number, output in enumerate(printed):
        assert_clean(f"output {number}", [output], canaries)
    for path, content in files_under(project.home):
        assert_clean(str(path), [content], canaries)
    for path, content in files_under(REPOSITORY / ".ghl_pipeline" / "tests" / "postgres", "*.log"):
        assert_clean(str(path), [content], canaries)
    assert tables_searched(dagster_url, canaries, except_for=set()) > 15
    assert tables_searched(engine.url, canaries, except_for=FOR_PEOPLE) > 5
    with engine.connect() as connection:
        for table in WHILE_IN_WORK:
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0, table


def files_under(folder: Path, pattern: str = "*") -> Iterator[tuple[Path, str]]:
    """Each file with its content, as far as that is text."""
    # Databases of other tests, and their folders, vanish meanwhile: `os.walk` passes over those, `rglob` fails.
    for parent, _, names in os.walk(folder):
        for name in fnmatch.filter(names, pattern):
            path = Path(parent) / name
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_text(errors="replace")


def tables_searched(url: URL, canaries: Sequence[str], except_for: set[str]) -> int:
    """Searches every row of every table but the columns for people; returns how many tables there were."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            names = connection.execute(
                text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            ).scalars()
            searched = [name for name in names if name not in except_for]
            for name in searched:
                left_out = {"columns": list(COLUMNS_FOR_PEOPLE.get(name, []))}
                rows = connection.execute(
                    text(f'SELECT CAST(to_jsonb(row) - CAST(:columns AS text[]) AS text) FROM "{name}" AS row'),
                    left_out,
                ).scalars()
                assert_clean(f"table {name}", list(rows), canaries)
    finally:
        engine.dispose()
    return len(searched)


def assert_clean(where: str, contents: Sequence[str], canaries: Sequence[str]) -> None:
    """Fails at the first canary, and shows where it stands."""
    for content in contents:
        lowered = content.lower()
        for canary in canaries:
            at = lowered.find(canary.lower())
            assert at < 0, f"{where} holds {canary}: ...{content[max(0, at - 200) : at + 100]}..."
