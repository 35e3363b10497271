"""A document as somebody who follows it sees it: sections, and in each what is to be typed, in order.

What a document may show, and how it is understood:

- a block of `sh`: each line is a command; `\\` at the end of a line goes on in the next. A comment behind a command may
  promise an exit code (`# exits 1`; without one it is 0) or say that it `asks`: then somebody answers "y".
- a block of `console`: lines with `$ ` are commands, and what follows each is what it prints. Numbers may differ, a
  line `...` stands for any others, and `...` in a line for any words.
- a block of `sql`: statements for the dashboard database; a comment `-- no rows` or `-- some rows` promises so.
- `ghl-pipeline ...` in inline code: a command, too.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_HEADING = re.compile(r"^(#+) +(.+)$")
_FENCE = re.compile(r"^ *```(\w*)$")
_INLINE = re.compile(r"`((?:ghl-pipeline|make|dagster|psql|pg_dump|pg_restore|curl) [^`\n]+)`")
_EXITS = re.compile(r"#.*\bexits(?: with)? (\d+)")
_ASKS = re.compile(r"#.*\basks\b")
# A number, a time, or what is made at random; how many blanks stand around it depends on its width.
_VARIES = re.compile(r"\d[\d,.:-]*")


class Kind(StrEnum):
    """How something to be typed is shown."""

    COMMAND = "command"
    SQL = "sql"


@dataclass(frozen=True, slots=True)
class Typed:
    """Something to be typed, and what is promised about it."""

    kind: Kind
    text: str
    line: int
    exits: int = 0
    asks: bool = False
    prints: tuple[str, ...] = ()
    no_rows: bool = False
    some_rows: bool = False
    is_inline: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code, and all that it wrote."""

    code: int
    printed: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands between it and the next one."""

    title: str
    typed: tuple[Typed, ...]


def sections(document: Path) -> list[Section]:
    """The sections of a document that have something to be typed."""
    found: list[Section] = []
    title, typed = document.name, list[Typed]()
    fence: str | None = None
    block: list[tuple[int, str]] = []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        opened = _FENCE.match(line)
        if fence is not None:
            if opened:
                typed += _of_block(fence, block)
                fence, block = None, []
            else:
                block.append((number, line))
        elif opened:
            fence = opened[1]
        elif heading := _HEADING.match(line):
            found.append(Section(title, tuple(typed)))
            title, typed = heading[2], []
        else:
            typed += [Typed(Kind.COMMAND, text, number, is_inline=True) for text in _INLINE.findall(line)]
    found.append(Section(title, tuple(typed)))
    return [section for section in found if section.typed]


def is_printed(promised: str, printed: str) -> bool:
    """Whether a line that the document shows is among the lines that were printed."""
    return any(_pattern(promised).search(_even(line)) for line in printed.splitlines())


def program_words(line: str) -> list[str]:
    """The words behind `ghl-pipeline`, up to where the shell's own begin; empty when it is no command of ours."""
    words = shlex.split(re.split(r"\s(?:[<>|;]|&&)", line)[0], comments=True)
    words = words[len(variables(line)) :]
    return words[1:] if words[:1] == ["ghl-pipeline"] else []


def variables(line: str) -> dict[str, str]:
    """Variables that are set in front of a command, for it alone."""
    set_here: dict[str, str] = {}
    for word in shlex.split(line, comments=True):
        name, sign, value = word.partition("=")
        if not (sign and name.isidentifier()):
            break
        set_here[name] = value
    return set_here


def programs(line: str) -> list[str]:
    """The programs that a command line calls, those in `$(...)` too."""
    outside = re.sub(r"'[^']*'", "", line.partition(" #")[0])
    inside = re.findall(r"\$\(([^)]*)\)", outside)
    quiet = re.sub(r'"[^"]*"', "", re.sub(r"\$\([^)]*\)", "", outside))
    pieces = [*re.split(r"\||&&|;", quiet), *inside]
    found = []
    for piece in pieces:
        words = [word for word in piece.split() if not re.fullmatch(r"\w+=\S*", word)]
        found += words[:1]
    return found


def _of_block(language: str, lines: list[tuple[int, str]]) -> Iterator[Typed]:
    if language == "sh":
        for number, text in _joined(lines):
            if not text.startswith("#"):
                yield _command(number, text, ())
    elif language == "console":
        command: tuple[int, str] | None = None
        prints: list[str] = []
        for number, text in _joined(lines):
            if text.startswith("$ "):
                if command is not None:
                    yield _command(*command, tuple(prints))
                command, prints = (number, text.removeprefix("$ ")), []
            elif text != "...":
                prints.append(text)
        assert command is not None, f"line {lines[0][0]}: a block of console without a command"
        yield _command(*command, tuple(prints))
    elif language == "sql":
        yield from _statements(lines)


def _statements(lines: list[tuple[int, str]]) -> Iterator[Typed]:
    begun: list[tuple[int, str]] = []
    for number, text in lines:
        begun.append((number, text))
        sql, _, comment = text.partition("--")
        if sql.rstrip().endswith(";"):
            yield Typed(
                Kind.SQL,
                "\n".join(each for _, each in begun),
                begun[0][0],
                no_rows="no rows" in comment,
                some_rows="some rows" in comment,
            )
            begun = []
    assert not any(text.strip() for _, text in begun), f"line {lines[0][0]}: a statement without a semicolon"


def _joined(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines without blank ones; those that go on after a backslash as one."""
    begun: tuple[int, str] | None = None
    for number, line in lines:
        start, text = (number, line.strip()) if begun is None else (begun[0], begun[1] + line.strip())
        if text.endswith("\\"):
            begun = (start, text.removesuffix("\\"))
        else:
            begun = None
            if text:
                yield start, text


def _command(number: int, text: str, prints: tuple[str, ...]) -> Typed:
    exits = _EXITS.search(text)
    return Typed(
        Kind.COMMAND, text, number, exits=int(exits[1]) if exits else 0, asks=bool(_ASKS.search(text)), prints=prints
    )


def _pattern(promised: str) -> re.Pattern[str]:
    """Any number in place of a number, any words in place of `...`."""
    return re.compile(
        "".join(
            ".*" if piece == "..." else r"\d[\d,.:-]*".join(map(re.escape, _VARIES.split(piece)))
            for piece in re.split(r"(\.\.\.)", _even(promised))
        )
    )


def _even(line: str) -> str:
    return " ".join(line.split())
