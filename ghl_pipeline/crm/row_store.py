"""Rows of one side, written in sets without ever losing what somebody else wrote: how, for vendors and leads alike.

The rows of a page are locked in id order and compared with what was known of them when the contacts were asked for. One
that was changed since, in whatever column, is left for the next run: GHL's value was asked for before it was typed. Of
the rest only rows that differ are written, by one statement. What a row is merged to is in `vendor_store.py` and
`lead_store.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.crm.identifiers import KnownRow, Side, table_of
from ghl_pipeline.crm.key_owners import KeyOwners, Row
from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.crm.side_rules import Columns, Planned, SideRules, V, insert_statement, update_statement
from ghl_pipeline.database.lead_rows import is_race
from ghl_pipeline.database.leads import lock_clients
from ghl_pipeline.database.rows import as_array, as_json_list, as_json_rows
from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.hydration.matching import normal_address

# Rows that are locked and written at a time: 1,000 take some 0.1 s.
PAGE = 1000
# As for the write-back: each attempt that fails means that another writer took a contact or an address meanwhile.
RACE_ATTEMPTS = 5
# A row may wait for an address that another one gives up, which may wait itself. Such chains are short.
MOST_ROUNDS = 10

P = TypeVar("P")


@dataclass(slots=True)
class SideCounts:
    """What became of a side's rows. `updated` counts those that came back, too.

    `changed_meanwhile`: rows, and contacts to make rows of, that somebody else wrote since the contacts were asked for.
    `conflicts`: rows that were written without a contact or an address that is another row's, or not at all.
    """

    updated: int = 0
    created: int = 0
    missing: int = 0
    back: int = 0
    changed_meanwhile: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class _Change(Generic[V]):
    """One row's part in a page: what it was and will be, and whether a key that it wants is another row's.

    `updated_at` is the row's after it is written, so that this run's own writing is not taken for somebody else's.
    """

    planned: Planned[V]
    before: Row
    after: Mapping[str, object]
    lacks_key: bool
    updated_at: datetime

    @property
    def differs(self) -> bool:
        """Whether anything is to be written."""
        return any(self.before[name] != value for name, value in self.after.items())

    @property
    def left(self) -> Planned[V]:
        """The same plan for the row as it is after this change."""
        row = replace(
            self.planned.row,
            contact_id=_filled(self.after["ghl_contact_id"]),
            email=normal_address(_filled(self.after["email"])),
            status=str(self.after["status"]),
            updated_at=self.updated_at,
        )
        return replace(self.planned, row=row)


class RowStore(Generic[V]):
    """Writes one side of one client. Blocking; a preview decides everything and writes and locks nothing."""

    def __init__(self, engine: Engine, client_id: int, rules: SideRules[V], *, dry_run: bool = False) -> None:
        self.counts = SideCounts()
        self._engine = engine
        self._client_id = client_id
        self._rules = rules
        self._dry_run = dry_run
        # A preview's own decisions are nowhere but here.
        self._preview = self._new_owners() if dry_run else None
        self._updated: set[int] = set()
        self._left_rows: set[int] = set()
        self._left_contacts: set[str] = set()

    def write(self, planned: Sequence[Planned[V]]) -> None:
        """Writes what differs. Rows that wait for another one's address are tried again as long as that helps."""
        waiting, helped = self._round(sorted(planned, key=lambda each: each.row.id))
        for _ in range(MOST_ROUNDS):
            if not waiting or not helped or self._dry_run:
                break
            waiting, helped = self._round(waiting)
        self.counts.conflicts += len(waiting)

    def create(self, new: Sequence[V]) -> None:
        """Makes rows of contacts that nobody has; one that somebody made a row of meanwhile is left to the next run."""
        for at in range(0, len(new), PAGE):
            page = new[at : at + PAGE]
            wanted, created = self._in_transaction(partial(self._create, new=page))
            self.counts.created += len(created)
            self.counts.conflicts += len(page) - len(wanted)
            self.counts.changed_meanwhile += len(wanted - created)
            self._left_contacts |= {values.contact_id for values in page} - created

    def left_to_the_next_run(self, connection: Connection) -> list[tuple[Side, int]]:
        """Rows that somebody else wrote meanwhile, also those that somebody made of contacts that wanted a row."""
        query = text(f"""
            SELECT id FROM {table_of(self._rules.side)}
            WHERE client_id = :client_id AND ghl_contact_id <> ''
              AND ghl_contact_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:contacts AS json))))
        """)  # noqa: S608 - the name is the package's own
        values = {"client_id": self._client_id, "contacts": as_json_list(sorted(self._left_contacts))}
        made = connection.execute(query, values).scalars() if self._left_contacts else ()
        return [(self._rules.side, id_) for id_ in sorted({*self._left_rows, *made})]

    def _round(self, planned: Sequence[Planned[V]]) -> tuple[list[Planned[V]], bool]:
        """Writes all pages; returns what could not be written whole, as it is now, and whether anything was written."""
        changes = [change for at in range(0, len(planned), PAGE) for change in self._page(planned[at : at + PAGE])]
        return [change.left for change in changes if change.lacks_key], any(change.differs for change in changes)

    def _page(self, planned: Sequence[Planned[V]]) -> list[_Change[V]]:
        try:
            changes = self._in_transaction(partial(self._write, planned=planned))
        except DBAPIError as error:
            if not is_race(error):
                raise
            if len(planned) > 1:
                return [change for each in planned for change in self._page([each])]
            # Two texts that only the database takes for the same address: it is another row's.
            self.counts.conflicts += 1
            return []
        self.counts.changed_meanwhile += len(planned) - len(changes)
        self._left_rows |= {each.row.id for each in planned} - {change.planned.row.id for change in changes}
        for change in changes:
            if change.differs:
                self._count(change)
        return changes

    def _count(self, change: _Change[V]) -> None:
        if change.planned.values is None:
            self.counts.missing += change.before["status"] != MISSING_STATUS
            return
        self._updated.add(change.planned.row.id)
        self.counts.updated = len(self._updated)
        self.counts.back += change.before["status"] == MISSING_STATUS != change.after["status"]

    def _in_transaction(self, work: Callable[[Connection], P]) -> P:
        """Does the work in a transaction of its own, again when another writer was quicker."""
        if self._dry_run:
            with self._engine.connect() as connection:
                return work(connection)
        for _ in range(RACE_ATTEMPTS - 1):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not is_race(error):
                    raise
        with self._engine.begin() as connection:
            return work(connection)

    def _write(self, connection: Connection, planned: Sequence[Planned[V]]) -> list[_Change[V]]:
        """Changes of the rows that are as they were known, in id order; the others are left out."""
        rows = self._locked_rows(connection, [each.row.id for each in planned])
        wanted: list[tuple[Planned[V], Row, Columns]] = []
        for each in planned:
            row = rows.get(each.row.id)
            if row is not None and _is_as_known(row, each.row):
                change = self._rules.lost(row) if each.values is None else self._rules.merged(row, each.values)
                wanted.append((each, row, {name: row[name] for name in self._rules.columns} | _storable(change)))
        owners = self._preview or self._new_owners()
        owners.read(connection, [(row, columns) for _, row, columns in wanted])
        changes = [
            _Change(each, row, *owners.settle(each.row.id, row, columns), updated_at=row["updated_at"])
            for each, row, columns in wanted
        ]
        new_rows = [{"id": change.planned.row.id, **change.after} for change in changes if change.differs]
        if not new_rows or self._dry_run:
            return changes
        values = {"client_id": self._client_id, "rows": as_json_rows(new_rows)}
        updated = {row.id: row.updated_at for row in connection.execute(update_statement(self._rules), values)}
        return [replace(each, updated_at=updated.get(each.planned.row.id, each.updated_at)) for each in changes]

    def _locked_rows(self, connection: Connection, ids: Sequence[int]) -> dict[int, Row]:
        columns = ", ".join(self._rules.columns)
        query = text(f"""
            SELECT id, now() AS now, updated_at, {columns} FROM {table_of(self._rules.side)}
            WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[]))
            ORDER BY id {"" if self._dry_run else "FOR NO KEY UPDATE"}
        """)  # noqa: S608 - constants of ours
        found = connection.execute(query, {"client_id": self._client_id, "ids": as_array(ids)})
        return {row["id"]: dict(row) for row in found.mappings()}

    def _create(self, connection: Connection, new: Sequence[V]) -> tuple[set[str], set[str]]:
        """Contacts whose id and address no row has, and those of them of which a row was made."""
        if not self._dry_run:
            # Whoever else stores leads waits, or is waited for: else both would make the same person's row.
            lock_clients(connection, [self._client_id])
        made = [_storable(self._rules.made(values)) for values in new]
        owners = self._preview or self._new_owners()
        owners.read(connection, [(None, columns) for columns in made])
        # No row has a number below zero, so that each newcomer is somebody of its own.
        settled = [owners.settle(-1 - n, None, columns) for n, columns in enumerate(made)]
        rows = [columns for columns, lacks_key in settled if not lacks_key]
        wanted = {str(columns["ghl_contact_id"]) for columns in rows}
        if self._dry_run or not rows:
            return wanted, wanted
        values = {"client_id": self._client_id, "rows": as_json_rows(rows)}
        return wanted, set(connection.execute(insert_statement(self._rules), values).scalars())

    def _new_owners(self) -> KeyOwners:
        return KeyOwners(table_of(self._rules.side), self._client_id)


def _is_as_known(row: Row, known: KnownRow) -> bool:
    """Whether nobody changed the row since it was read. By its time, which a transaction that began before has, too."""
    return bool(row["updated_at"] == known.updated_at)


def _filled(value: object) -> str | None:
    return (value.strip() or None) if isinstance(value, str) else None


def _storable(columns: Mapping[str, object]) -> Columns:
    return {name: _storable_value(value) for name, value in columns.items()}


def _storable_value(value: object) -> object:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, list | tuple):
        return [_storable_value(item) for item in value]
    return value
