"""What the commands print: tables and progress for people on stderr and stdout, one JSON object for programs.

With `--json` stdout holds exactly one JSON document; everything else goes to stderr.
"""

import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

PIPE_COLUMNS = 120

# Soft-wrapped: a command that somebody copies must not have a line break in it.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


def print_json(document: object) -> None:
    """Writes one JSON document to stdout, in ASCII: a name with an umlaut is valid JSON in every terminal."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(document), indent=2) + "\n")
    sys.stdout.flush()


def print_problems(texts: Iterable[str]) -> None:
    """Prints what went wrong, a line each, to stderr."""
    for text in texts:
        err.print(text, style="red", soft_wrap=True, markup=False)


def tolerate_any_terminal() -> None:
    """Lets stdout and stderr replace letters that they cannot show, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, to_stderr: bool = False
) -> None:
    """Prints a table; numbers are right-aligned and grouped by thousands."""
    print_whole(make_table(title, columns, rows), to_stderr=to_stderr)


def print_whole(table: Table, *, to_stderr: bool = False) -> None:
    """Prints a table as wide as the terminal; a pipe has no width, and its tables stay whole."""
    whole = None if (err if to_stderr else out).is_terminal else PIPE_COLUMNS
    Console(highlight=False, stderr=to_stderr, width=whole).print(table)


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table as `print_table` prints it."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rows = [list(row) for row in rows]
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return "" if value is None else str(value)


def sum_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Adds up counts by name, in the order in which the names come."""
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total
