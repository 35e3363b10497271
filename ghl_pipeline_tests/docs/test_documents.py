"""Every link, path, make target and command that a document shows exists, so that following it works."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest

from ghl_pipeline_tests.docs.reference import ROOT, Command, commands

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted([*(ROOT / "ghl_pipeline").rglob("*.py"), ROOT / "pyproject.toml", ROOT / ".env.example"])
# Files that are written when the project runs, or by the reader.
WRITTEN_LATER = (".ghl_pipeline/", "clients.csv")
# Tags of Dagster's runs, which look like paths.
RUN_TAGS = ("ghl_pipeline/worker", "ghl_pipeline/rerun")
# A path starts at the root of the repository, or for short at the package.
STARTS = (ROOT, ROOT / "ghl_pipeline")

_CODE_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_WORDS_OF_A_PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]*)*")
_FILE = re.compile(r"\.(?:py|md|toml|yaml|lock|png|csv)$")
_COMMAND = re.compile(r"(?:^|[\s/])ghl-pipeline(?P<rest>(?:\s.*)?)$")
# Where the shell's own words begin.
_END_OF_COMMAND = re.compile(r"\s(?:[<>|#;]|&&)")

of_each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


@of_each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(_without_code_blocks(document)):
        if "://" in target:
            continue
        path, _, anchor = unquote(target).partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


@of_each_document
def test_every_path_named_exists(document: Path) -> None:
    named = [code for code in _INLINE_CODE.findall(_without_code_blocks(document)) if _is_path(code)]
    assert [path for path in named if not _exists(path)] == []


@of_each_document
def test_every_make_target_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for code in _codes(document) for target in re.findall(r"(?:^|: )make ([a-z-]+)", code.strip())}
    assert named <= targets


@of_each_document
def test_every_command_shown_can_be_typed(document: Path) -> None:
    refused = {}
    for shown in _shown_commands(document):
        try:
            _parse(shown)
        except Exception as error:  # noqa: BLE001 - whatever the parser raises is the finding
            refused[" ".join(shown)] = f"{type(error).__name__}: {error}"
    assert refused == {}


def test_readme_and_runbook_show_commands() -> None:
    assert all(list(_shown_commands(ROOT / name)) for name in ("README.md", "docs/runbook.md"))


def test_the_parser_of_these_tests_refuses_what_the_program_refuses() -> None:
    for wrong in (
        ["backfil"],
        ["backfill", "--no-such-option"],
        ["clients", "rename"],
        ["sync-lead", "ID"],
        ["demo", "x"],
    ):
        with pytest.raises(Exception, match=r".+"):
            _parse(wrong)


def test_every_command_that_a_message_advises_exists() -> None:
    unknown = []
    for source in SOURCES:
        # A text that goes on in the next line: quotes and line ends between two words.
        text = re.sub(r"\"\s*\n\s*f?\"", "", source.read_text(encoding="utf-8"))
        for words in re.findall(r"ghl-pipeline (?:--demo )?((?:[a-z-]+ ?){1,2})", text):
            unknown += [words] if not _is_command(words.split()) else []
    assert unknown == []


def test_every_document_that_the_code_refers_to_exists() -> None:
    named = {name for path in SOURCES for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))}
    assert named, "the code refers to no document any more"
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_decisions_are_numbered_without_gaps_and_all_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    found = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in found] == list(range(1, len(found) + 1))
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert listed == found


# --- reading documents


def _without_code_blocks(document: Path) -> str:
    return _CODE_BLOCK.sub("", document.read_text(encoding="utf-8"))


def _codes(document: Path) -> Iterator[str]:
    """Lines of code blocks, those that go on after a backslash joined, and pieces of inline code."""
    for block in _CODE_BLOCK.findall(document.read_text(encoding="utf-8")):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()
    yield from _INLINE_CODE.findall(_without_code_blocks(document))


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = _HEADING.findall(_without_code_blocks(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _is_path(code: str) -> bool:
    if not _WORDS_OF_A_PATH.fullmatch(code) or code.startswith(WRITTEN_LATER) or code in RUN_TAGS:
        return False
    if code.endswith((".readonly", ".write")):  # a scope of GHL's, such as conversations/message.readonly
        return False
    return "/" in code or _FILE.search(code) is not None


def _exists(path: str) -> bool:
    return any(next(start.glob(path.rstrip("/")), None) is not None for start in STARTS)


# --- commands


def _shown_commands(document: Path) -> Iterator[list[str]]:
    for code in _codes(document):
        found = _COMMAND.search(code.strip())
        if found is not None:
            words = shlex.split(_END_OF_COMMAND.split(found["rest"])[0])
            if words:
                yield words


def _parse(words: Sequence[str]) -> None:
    """Lets the command that the words name read its options; nothing is run."""
    path, command = next(commands())
    rest = list(words)
    while (below := _below(command)) and rest:
        word = rest.pop(0)
        if not any(word in parameter.opts for parameter in command.params):  # else an option of the group itself
            path, command = (*path, word), below[word]
    if not below:
        make_context = getattr(command, "make_context")  # noqa: B009 - typer keeps its own copy of click's classes
        make_context(" ".join(path), rest)


def _is_command(words: Sequence[str]) -> bool:
    _, command = next(commands())
    for word in words:
        below = _below(command)
        if not below:
            return True
        if word not in below:
            return False
        command = below[word]
    return True


def _below(command: Command) -> Mapping[str, Command]:
    below: Mapping[str, Command] = getattr(command, "commands", {})
    return below
