"""Clients from a CSV file: all of it or nothing, and every fault of it in one answer.

Here is what a file may look like and how it is compared with the database; the rules for one value are in `clients.py`.
A client is recognised by its location and name together. Importing adds the unknown ones and updates the known ones; it
deletes nothing, and an optional cell that is blank leaves what is stored.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Row, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.database.tables import clients
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import (
    DEFAULT_REGION,
    DEFAULT_TIME_ZONE,
    NO_PREVIOUS_TOKEN,
    valid_location_id,
    valid_name,
    valid_region,
    valid_time_zone,
    valid_token,
)
from ghl_pipeline.privacy.tokens import TokenCipher, TokenUnreadable

REQUIRED_COLUMNS = ("name", "location_id", "token")
OPTIONAL_COLUMNS = ("default_region", "time_zone", "active")
_YES, _NO = ("yes", "true", "1", "y", "active"), ("no", "false", "0", "n", "inactive")
_DELIMITERS = ",;\t"
_PROBLEMS_SHOWN = 20


@dataclass(frozen=True, slots=True, order=True)
class CsvProblem:
    """One fault: the line it is on (1 is the header), the column or "" for the whole line, and what is wrong."""

    line: int
    column: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}{f', {self.column}' if self.column else ''}: {self.reason}"


class InvalidCsv(InvalidInput):
    """The file cannot be imported. Holds every fault; the text names lines and columns, never what stands there."""

    def __init__(self, source: str, problems: list[CsvProblem]) -> None:
        self.problems = sorted(problems)
        shown = "; ".join(map(str, self.problems[:_PROBLEMS_SHOWN]))
        rest = len(self.problems) - _PROBLEMS_SHOWN
        super().__init__(
            f"{source} has {len(self.problems)} problem(s), nothing was imported: {shown}"
            f"{f'; and {rest} more' if rest > 0 else ''}. Correct the file and import it again."
        )


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How many clients the file added, changed, and described as they were."""

    added: int
    updated: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class _ClientRow:
    """A row of the file that is right in itself. None: the cell was blank."""

    line: int
    name: str
    location_id: str
    token: SecretStr | None
    default_region: str | None
    time_zone: str | None
    active: bool | None


def import_clients(engine: Engine, cipher: TokenCipher, source: Path | TextIO) -> ImportReport:
    """Add and update clients from a CSV file, in one transaction.

    The file: UTF-8 with or without BOM, separated by comma, semicolon or tab, a header with `name`, `location_id`,
    `token` and, if wanted, `default_region` (US), `time_zone` (UTC), `active` (yes), in any order, case and spacing.

    Raises:
        InvalidCsv: the file or rows of it cannot be used; all faults at once, and nothing was imported.
        InvalidInput: the file cannot be opened.
        DatabaseUnavailable: the database does not answer.
    """
    label, content = _content(source)
    rows, problems = _read(label, content)
    try:
        with engine.begin() as connection:
            # Two imports at once, or an import and an `add`, would otherwise judge by what the other is changing.
            connection.execute(text("LOCK TABLE clients IN SHARE ROW EXCLUSIVE MODE"))
            return _apply(connection, cipher, label, rows, problems)
    except OperationalError as error:
        raise unavailable(engine.url, error) from None


def _content(source: Path | TextIO) -> tuple[str, str]:
    if not isinstance(source, Path):
        return "The CSV", source.read().removeprefix("\ufeff")
    label = f"CSV {source.name}"
    try:
        raw = source.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{label} cannot be read: {error.strerror}. Check the path {source}.") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidCsv(label, [CsvProblem(1, "", 'is UTF-16; save it as "CSV UTF-8"')])
    try:
        return label, raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidCsv(label, [CsvProblem(line, "", 'is not UTF-8; save it as "CSV UTF-8"')]) from None


def _read(label: str, content: str) -> tuple[list[_ClientRow], list[CsvProblem]]:
    """The usable rows and the faults of the others. Raises `InvalidCsv` if there is no header to read them by."""
    problems: list[CsvProblem] = []
    lines = _lines(content, problems)
    line, header = next(lines, (1, []))
    if not header:
        raise InvalidCsv(label, problems or [CsvProblem(1, "", f"is empty; it needs {', '.join(REQUIRED_COLUMNS)}")])
    columns = [_column(cell) for cell in header]
    problems += _header_problems(line, header, columns)
    if problems:
        raise InvalidCsv(label, problems)
    rows = []
    for line, cells in lines:
        if any(cell.strip() for cell in cells[len(columns) :]):
            problems.append(CsvProblem(line, "", "has more cells than the header; quote cells that hold the delimiter"))
            continue
        padded = cells + [""] * (len(columns) - len(cells))
        row, faults = _row(line, {column: cell for column, cell in zip(columns, padded, strict=False) if column})
        problems += faults
        rows += [row] if row is not None else []
    if not rows and not problems:
        problems.append(CsvProblem(line, "", "the file has no row below its header"))
    return rows, problems + _duplicates(rows)


def _lines(content: str, problems: list[CsvProblem]) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not blank, with the number at which it starts. Stops at one that is not CSV."""
    first = content.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    starts_at = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield starts_at, cells
            starts_at = reader.line_num + 1
    except csv.Error:
        # Its text may quote the file. What follows a stray quote cannot be told apart, so reading ends here.
        problems.append(CsvProblem(starts_at, "", "has a quote that is not closed, or a cell over 131,072 characters"))


def _column(cell: str) -> str | None:
    """The column that a header cell names: Location ID, location-id and LOCATIONID are one."""
    letters = "".join(filter(str.isalnum, cell)).lower()
    known = {column.replace("_", ""): column for column in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)}
    return known.get(letters)


def _header_problems(line: int, header: list[str], columns: list[str | None]) -> list[CsvProblem]:
    # A header cell is not quoted: in a file without header it is somebody's token.
    known = ", ".join((*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS))
    missing = [
        CsvProblem(line, column, "the column is missing") for column in REQUIRED_COLUMNS if column not in columns
    ]
    unknown = [
        CsvProblem(line, "", f"column {position} is not known; known are {known}")
        for position, (cell, column) in enumerate(zip(header, columns, strict=True), start=1)
        if column is None and cell.strip()
    ]
    named = [column for column in columns if column is not None]
    twice = [
        CsvProblem(line, name, "the column is there twice") for name in sorted(set(named)) if named.count(name) > 1
    ]
    return missing + unknown + twice


def _row(line: int, cells: Mapping[str, str]) -> tuple[_ClientRow | None, list[CsvProblem]]:
    """The row if it is right in itself, else its faults."""
    problems: list[CsvProblem] = []
    rules = {
        "name": valid_name,
        "location_id": valid_location_id,
        "token": valid_token,
        "default_region": valid_region,
        "time_zone": valid_time_zone,
        "active": _valid_active,
    }
    values: dict[str, str | None] = {}
    for column, rule in rules.items():
        cell = cells.get(column, "")
        try:
            values[column] = rule(cell) if cell.strip() or column in ("name", "location_id") else None
        except InvalidInput as error:
            problems.append(CsvProblem(line, column, str(error)))
    if problems:
        return None, problems
    name, location_id, token, active = (values[column] for column in ("name", "location_id", "token", "active"))
    row = _ClientRow(
        line=line,
        name=name or "",
        location_id=location_id or "",
        token=None if token is None else SecretStr(token),
        default_region=values["default_region"],
        time_zone=values["time_zone"],
        active=None if active is None else active in _YES,
    )
    return row, []


def _valid_active(text: str) -> str:
    word = text.strip().lower()
    if word not in (*_YES, *_NO):
        raise InvalidInput("must be yes or no")
    return word


def _duplicates(rows: list[_ClientRow]) -> list[CsvProblem]:
    problems = []
    first_with_location: dict[str, int] = {}
    first_with_name: dict[str, int] = {}
    for row in rows:
        for column, key, first in (
            ("location_id", row.location_id, first_with_location),
            ("name", row.name.lower(), first_with_name),
        ):
            line = first.setdefault(key, row.line)
            if line != row.line:
                problems.append(CsvProblem(row.line, column, f"is the same as in line {line}"))
    return problems


def _apply(
    connection: Connection, cipher: TokenCipher, label: str, rows: list[_ClientRow], problems: list[CsvProblem]
) -> ImportReport:
    known = connection.execute(select(clients)).all()
    by_location = {client.location_id: client for client in known}
    by_name = {client.name.lower(): client for client in known}
    new: list[dict[str, object]] = []
    changed: list[tuple[int, dict[str, object]]] = []
    for row in rows:
        client = by_location.get(row.location_id)
        namesake = by_name.get(row.name.lower())
        if client is not None and client is not namesake:
            reason = f'belongs to client {client.id} ("{client.name}"); correct the id, or use that name'
            problems.append(CsvProblem(row.line, "location_id", reason))
        elif client is None and namesake is not None:
            reason = f"is the name of client {namesake.id}, location {namesake.location_id}; choose another name"
            problems.append(CsvProblem(row.line, "name", reason))
        elif client is not None:
            changes = _changes(cipher, row, client)
            changed += [(client.id, changes)] if changes else []
        elif row.token is None:
            problems.append(CsvProblem(row.line, "token", "is blank, and the client is new"))
        else:
            new.append(_new_client(cipher, row, row.token))
    if problems:
        raise InvalidCsv(label, problems)
    for values in new:
        connection.execute(insert(clients).values(values))
    for client_id, changes in changed:
        connection.execute(update(clients).where(clients.c.id == client_id).values(changes))
    return ImportReport(added=len(new), updated=len(changed), unchanged=len(rows) - len(new) - len(changed))


def _new_client(cipher: TokenCipher, row: _ClientRow, token: SecretStr) -> dict[str, object]:
    inactive = row.active is False
    return {
        "name": row.name,
        "location_id": row.location_id,
        "ghl_token_encrypted": cipher.encrypt(token.get_secret_value()),
        "default_region": row.default_region or DEFAULT_REGION,
        "time_zone": row.time_zone or DEFAULT_TIME_ZONE,
        "active": not inactive,
        "deactivated_at": func.now() if inactive else None,
    }


def _changes(cipher: TokenCipher, row: _ClientRow, client: Row[*tuple[Any, ...]]) -> dict[str, object]:
    """The columns in which the file says something else than the database."""
    wanted = {
        "name": row.name,
        "default_region": row.default_region,
        "time_zone": row.time_zone,
        "active": row.active,
    }
    stored = client._mapping
    changes: dict[str, object] = {
        column: value for column, value in wanted.items() if value is not None and value != stored[column]
    }
    if "active" in changes:
        changes["deactivated_at"] = None if row.active else func.now()
    if row.token is not None and not _is_stored(cipher, row.token, client.ghl_token_encrypted):
        changes |= {"ghl_token_encrypted": cipher.encrypt(row.token.get_secret_value()), **NO_PREVIOUS_TOKEN}
    return changes


def _is_stored(cipher: TokenCipher, token: SecretStr, encrypted: str | None) -> bool:
    if encrypted is None:
        return False
    try:
        return cipher.decrypt(encrypted) == token
    except TokenUnreadable:
        return False  # importing is how a token whose key was lost is replaced
