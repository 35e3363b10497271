"""The canaries, the commands that meet them, and the search of all places where none of them may be.

Searched: what is handed over as printed, every file in the home folder (compute logs among them), the database
server's log, every table of Dagster's, and every table of the pipeline's, less the columns that are for people.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        *("email", "phone", "name", "company_name", "service_categories", "services_offered"),
        *("service_zip_codes", "coverage_unread", "primary_service_category"),
    ],
    "draft_clients": ["tone"],
    "reply_drafts": ["body"],
    "booking_calendars": ["booking_link"],
    "sender_accounts": ["email", "name"],
}
WHILE_IN_WORK = ("resolved_contacts", "pulled_contacts")

# One start of Python takes seconds of processor time, so that a batch of commands shares it.
_BATCH = """
import importlib, io, json, sys
order = json.load(sys.stdin)
def bug(*_, **__):
    raise ValueError(order["says"])
for trap in order["traps"]:
    module, name = trap.split(":")
    setattr(importlib.import_module(module), name, bug)
from ghl_pipeline.cli.app import main
codes = []
for words, typed in order["commands"]:
    sys.argv, sys.stdin, code = ["ghl-pipeline", "--verbose", *words], io.StringIO(typed), 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    codes.append(code)
print("\\n" + json.dumps(codes))
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
    """One command of a batch: its words, what is typed into it, and with what code it has to end."""

    words: tuple[str, ...]
    expect: int = 0
    typed: str = ""


def commands(orders: Iterable[Order | tuple[str, ...]], *, traps: Sequence[str] = (), says: str = "") -> str:
    """Everything that these commands print, one after the other in one talkative process.

    Args:
        orders: the commands; words alone have to end well.
        traps: functions, as `module:name`, that have a bug in that process.
        says: what the bug's text quotes.
    """
    batch = [each if isinstance(each, Order) else Order(each) for each in orders]
    order = {"commands": [(each.words, each.typed) for each in batch], "traps": list(traps), "says": says}
    done = subprocess.run(
        [sys.executable, "-c", _BATCH],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        input=json.dumps(order),
    )
    assert done.returncode == 0, done.stderr
    ended = dict(zip([each.words for each in batch], json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert ended == {each.words: each.expect for each in batch}, done.stdout + done.stderr
    return done.stdout + done.stderr


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
    for path in folder.rglob(pattern):
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
