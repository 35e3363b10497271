"""Renders docs/reference/ from the code: settings, tables, commands, metrics. `make docs` writes it, a test compares.

Belongs here: turning what the code says of itself into Markdown. Not here: any description; a wrong or missing one is
corrected in the code, where it is also shown by `--help` and by the database.
"""

import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Protocol, Union, cast, get_args, get_origin, get_type_hints

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sqlalchemy import Column, Table, make_url

import ghl_pipeline
from ghl_pipeline.cli import app as cli
from ghl_pipeline.database.tables import metadata
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.operations.metrics.families import (
    DATABASE_UP,
    PER_LOCATION,
    READING_AGE,
    READING_SECONDS,
    RECEIVER,
    TOTALS,
)
from ghl_pipeline.settings import Settings, project_root

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
_TYPE_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", SecretStr: "secret", Path: "path"}
# What typer adds to every program of its own accord.
_TYPERS_OWN = frozenset({"install_completion", "show_completion"})


class Parameter(Protocol):
    """What is read of an argument or option of typer's."""

    name: str
    opts: list[str]
    secondary_opts: list[str]
    default: object
    required: bool
    help: str | None


class Command(Protocol):
    """What is read of a command or group of typer's; a group has `commands` too."""

    help: str | None
    params: list[Parameter]
    callback: Callable[..., object] | None


def pages() -> dict[str, str]:
    """Every page of the reference by file name, as it has to be."""
    return {
        "settings.md": settings_page(),
        "tables.md": tables_page(),
        "cli.md": cli_page(),
        "metrics.md": metrics_page(),
    }


def write_pages() -> None:
    """Writes the pages into docs/reference/."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


# --- settings


def settings_page() -> str:
    """One row per variable: name, type, default, meaning."""
    rows = [
        [f"`{field.alias}`", _type_name(field.annotation), _default(field), field.description or ""]
        for field in Settings.model_fields.values()
    ]
    return _page(
        "Settings",
        "ghl_pipeline/settings.py",
        "Every environment variable the project reads. A file `.env` in the project folder is read too; a real "
        "variable wins over it. An empty variable counts as unset. Secrets are never printed.",
        _table(["Variable", "Type", "Default", "Meaning"], rows),
    )


def _type_name(annotation: object) -> str:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    names = []
    for option in options:
        if option is NoneType:
            continue
        if get_origin(option) is list:
            names += [f"{_type_name(get_args(option)[0])}, several"]
        elif isinstance(option, type) and issubclass(option, Enum):
            names += [f"`{member.value}`" for member in option]
        elif isinstance(option, type):
            names.append(_TYPE_NAMES[option])
    return " or ".join(names)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        value = field.get_default(call_default_factory=True)
        assert isinstance(value, Path), "a computed default of another kind needs a rendering of its own"
        return f"`{value.relative_to(project_root())}` in the project folder"
    if field.default in (None, PydanticUndefined):
        return "unset"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


# --- tables


def tables_page() -> str:
    """Each table with its comment, columns, keys and indexes."""
    parts = []
    for table in metadata.sorted_tables:
        columns = [
            [f"`{column.name}`", _column_type(column), _column_default(column), column.comment or ""]
            for column in table.columns
        ]
        parts += [
            f"## {table.name}",
            f"{table.comment}.",
            _table(["Column", "Type", "When not given", "Meaning"], columns),
            *_rules(table),
        ]
    return _page(
        "Tables",
        "ghl_pipeline/database/tables/",
        "What `ghl-pipeline db upgrade` creates in the dashboard database. Times are kept by the database, in UTC; a "
        "trigger moves `updated_at` of `clients` and `leads` when a row really changes, whoever writes it. The "
        "migrations' own version table is `ghl_pipeline_alembic_version`. Dagster's tables are in another database.",
        *parts,
    )


def _column_type(column: Column[Any]) -> str:
    name = column.type.compile(dialect=make_url("postgresql+psycopg://").get_dialect()()).lower()
    return name.replace("timestamp with time zone", "timestamptz")


def _column_default(column: Column[Any]) -> str:
    if column.identity is not None:
        return "next number"
    if column.server_default is None:
        return "null" if column.nullable else "required"
    given = getattr(column.server_default, "arg", None)
    compiled = given if isinstance(given, str) else str(given)
    return f"`{compiled.removesuffix('::jsonb')}`"


def _rules(table: Table) -> Iterator[str]:
    keys = ", ".join(f"`{column.name}`" for column in table.primary_key)
    rules = [f"Primary key: {keys}"]
    for column in table.columns:
        rules += [f"`{column.name}` refers to `{key.target_fullname}`" for key in column.foreign_keys]
        rules += [f"Unique: `{column.name}`"] if column.unique else []
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        indexed = ", ".join(f"`{str(part).removeprefix(f'{table.name}.')}`" for part in index.expressions)
        only = index.dialect_options["postgresql"]["where"]
        condition = f" where `{only}`" if only is not None else ""
        rules.append(f"{'Unique' if index.unique else 'Index'}: {indexed.replace(f'{table.name}.', '')}{condition}")
    yield "\n".join(f"- {rule}" for rule in rules)


# --- commands


def cli_page() -> str:
    """Each command with its arguments and options, then the exit codes."""
    parts = [
        "\n\n".join([f"## {' '.join(path)}", command.help or "", *_parameters(command)])
        for path, command in commands()
        if not hasattr(command, "commands") or len(path) == 1
    ]
    codes = [[f"`{code}`", meaning, _errors_with(code)] for code, meaning in exit_codes().items()]
    return _page(
        "Commands",
        "ghl_pipeline/cli/",
        "With `--json` stdout holds exactly one JSON document; progress and messages for people go to stderr. Every "
        "command has `--help`.",
        *parts,
        "## Exit codes",
        _table(["Code", "Meaning", "Errors that end with it"], codes),
    )


def commands() -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every command and group of the program, depth first, with its words."""
    return _walk(("ghl-pipeline",), cast(Command, typer.main.get_command(cli.app)))


def _walk(path: tuple[str, ...], command: Command) -> Iterator[tuple[tuple[str, ...], Command]]:
    yield path, command
    below: Mapping[str, Command] = getattr(command, "commands", {})
    for name, subcommand in below.items():
        yield from _walk((*path, name), subcommand)


def _parameters(command: Command) -> Iterator[str]:
    hints = get_type_hints(command.callback) if command.callback else {}
    rows = []
    for parameter in command.params:
        if parameter.name in _TYPERS_OWN:
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        is_option = names[0].startswith("-")
        shown = ", ".join(f"`{name}`" for name in names) if is_option else f"`{parameter.name.upper()}`"
        rows.append([shown, _kind(parameter, hints[parameter.name]), _given(parameter), parameter.help or ""])
    if rows:
        yield _table(["Option", "Type", "Default", "Meaning"], rows)


def _kind(parameter: Parameter, annotation: object) -> str:
    if getattr(parameter, "is_flag", False):
        return "switch"
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    span = f", {low} to {high}" if high is not None else f", from {low}" if low is not None else ""
    return _type_name(annotation) + span


def _given(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    default = parameter.default() if callable(parameter.default) else parameter.default
    return "" if default is None or default is False else f"`{default}`"


def exit_codes() -> dict[int, str]:
    """Codes and meanings, as the program's own documentation has them."""
    text = " ".join(inspect.cleandoc(cli.__doc__ or "").partition("Exit codes:")[2].split())
    return {int(code): meaning for code, meaning in re.findall(r"(\d+) ([^;]+?)(?=;|\.$)", text)}


def error_classes() -> list[type[PipelineError]]:
    """Every error of the project, the sandbox's included, by name."""
    for module in pkgutil.walk_packages(ghl_pipeline.__path__, "ghl_pipeline."):
        if not module.name.endswith("__main__") and ".migrations." not in module.name:
            importlib.import_module(module.name)
    found: set[type[PipelineError]] = set()
    waiting = [PipelineError]
    while waiting:
        below = waiting.pop().__subclasses__()
        found.update(kind for kind in below if kind.__module__.startswith("ghl_pipeline."))
        waiting += below
    return sorted(found, key=lambda kind: kind.__name__)


def _errors_with(code: int) -> str:
    return ", ".join(f"`{kind.__name__}`" for kind in error_classes() if kind.exit_code == code)


# --- metrics


def metrics_page() -> str:
    """Each metric with its kind, labels and meaning."""
    groups = {
        "Of the receiver": RECEIVER,
        "Of the reading of the database": (DATABASE_UP, READING_SECONDS, READING_AGE),
        "Of all locations": TOTALS,
        "Of each location": PER_LOCATION,
    }
    parts = []
    for title, families in groups.items():
        rows = [
            [f"`{each.name}`", each.kind.value, ", ".join(f"`{label}`" for label in each.labels), each.meaning]
            for each in families
        ]
        parts += [f"## {title}", _table(["Metric", "Kind", "Labels", "Meaning"], rows)]
    return _page(
        "Metrics",
        "ghl_pipeline/operations/metrics/families.py",
        "What the receiver's `/metrics` tells, and, but for what is its own, `ghl-pipeline metrics`. Times are "
        "seconds. Those of each location are left out where there are more than METRICS_PER_LOCATION_UP_TO. Labels "
        "hold ids of locations and words of this project, nothing of a person.",
        *parts,
    )


# --- Markdown


def _page(title: str, source: str, introduction: str, *parts: str) -> str:
    made = f"<!-- Made from {source} by `make docs`; change it there. -->"
    return "\n\n".join([f"# {title}", made, textwrap.fill(introduction, 120, break_on_hyphens=False), *parts]) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    write_pages()
