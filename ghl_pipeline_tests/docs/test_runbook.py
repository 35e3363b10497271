"""Every command and statement of the runbook is run, section by section, in a world in which its story is true.

So are the commands of README.md and deploy/README.md, as far as they are ours.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from ghl_pipeline_tests.docs.manual import Kind, Section, Typed, is_printed, program_words, programs, sections
from ghl_pipeline_tests.docs.program import program_on_path
from ghl_pipeline_tests.docs.reference import ROOT
from ghl_pipeline_tests.docs.runbook_stories import STORIES
from ghl_pipeline_tests.docs.runbook_world import World, prepared_world
from ghl_pipeline_tests.docs.serving import is_serving
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

RUNBOOK = sections(ROOT / "docs" / "runbook.md")


def program_calls(document: str) -> list[Section]:
    """The sections of another document, with what its blocks show of our own commands, and the SQL."""
    found = []
    for section in sections(ROOT / document):
        typed = [
            each for each in section.typed if each.kind is Kind.SQL or (program_words(each.text) and not each.is_inline)
        ]
        if typed:
            found.append(Section(f"{document}: {section.title}", tuple(typed)))
    return found


DOCUMENTED = [*RUNBOOK, *program_calls("README.md"), *program_calls("deploy/README.md")]

KNOWN_PROGRAMS = {"ghl-pipeline", "psql", "pg_dump", "pg_restore", "curl", "export", "cat", "cp"}
# Of what is needed nothing is on the machine of a test.
# How these begin, and why a test cannot run them.
CANNOT_RUN_HERE = {
    "ssh -N": "there is no other machine, and nobody's key to it",
    "make setup": "it would install into the environment that the tests run in; `.ci/run` does it before them",
}
# Serving takes many seconds; what is said of `ghl-pipeline dev` in passing is tried once.
_served_in_passing: set[str] = set()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH in which the program is."""
    with program_on_path(tmp_path_factory.mktemp("program")) as path:
        yield path


@pytest.fixture
def world(
    tmp_path: Path, shelf: Path, database_url: URL, dagster_url: URL, engine: Engine, sandbox: Sandbox
) -> Iterator[World]:
    with prepared_world(tmp_path, shelf, database_url, dagster_url, engine, sandbox) as prepared:
        yield prepared


@pytest.mark.parametrize("section", DOCUMENTED, ids=lambda section: section.title)
def test_what_a_section_says_can_be_typed_and_does_what_it_says(section: Section, world: World) -> None:
    tell = STORIES.get(section.title)
    story = tell(world) if tell else iter(())
    until = next(story, None)
    for typed in section.typed:
        if until is not None and until in typed.text:
            until = next(story, None)
        follow(world, typed)
    assert until is None, f"no command of the section has in it: {until}"
    assert next(story, "the end") == "the end", "the story goes on after the section"


def follow(world: World, typed: Typed) -> None:
    """Types it, and compares what it does with what is promised."""
    where = f"line {typed.line}: {typed.text}"
    if typed.kind is Kind.SQL:
        rows = world.sql(typed.text)
        assert not (typed.no_rows and rows), f"{where}\n{rows}"
        assert rows or not typed.some_rows, f"{where}\nreturned nothing"
        return
    if typed.text.startswith(tuple(CANNOT_RUN_HERE)):
        return
    unknown = set(programs(typed.text)) - KNOWN_PROGRAMS
    assert not unknown, f"{where}\nis of programs that this test does not know: {', '.join(sorted(unknown))}"
    if typed.is_inline and is_serving(typed.text):
        if typed.text in _served_in_passing:
            return
        _served_in_passing.add(typed.text)
    ended = world.run(typed)
    assert ended.code == typed.exits, f"{where}\nended with {ended.code}:\n{ended.printed}"
    for line in typed.prints:
        assert is_printed(line, ended.printed), f"{where}\ndid not print: {line}\nbut:\n{ended.printed}"


def test_every_story_is_of_a_section() -> None:
    assert set(STORIES) <= {section.title for section in DOCUMENTED}
