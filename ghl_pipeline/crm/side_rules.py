"""What makes vendors and leads different where they are written the same way: columns, and what a row becomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from sqlalchemy import TextClause, text

from ghl_pipeline.crm.identifiers import KnownRow, Side, table_of
from ghl_pipeline.crm.key_owners import Row

Columns: TypeAlias = dict[str, Any]


class Values(Protocol):
    """What a contact says of a row."""

    @property
    def contact_id(self) -> str:
        """Whose."""


V = TypeVar("V", bound=Values)


@dataclass(frozen=True, slots=True)
class SideRules(Generic[V]):
    """What makes a side what it is.

    Attributes:
        side: which.
        columns: those that are read, compared and written, with their types.
        merged: what a row becomes that has this contact; of columns that are left out, what they are.
        made: the columns of a new row.
        lost: what a row becomes whose contact is gone.
    """

    side: Side
    columns: Mapping[str, str]
    merged: Callable[[Row, V], Columns]
    made: Callable[[V], Columns]
    lost: Callable[[Row], Columns]


@dataclass(frozen=True, slots=True)
class Planned(Generic[V]):
    """A row as it was when the contacts were asked for, and what its contact says; None: the contact is gone."""

    row: KnownRow
    values: V | None


def _types(rules: SideRules[V]) -> str:
    return ", ".join(f"{name} {type_}" for name, type_ in rules.columns.items())


def update_statement(rules: SideRules[V]) -> TextClause:
    """Writes `rows`, JSON with ids and all columns, into `client_id`'s rows; returns when each was changed."""
    return text(f"""
        UPDATE {table_of(rules.side)} AS row SET {", ".join(f"{name} = new.{name}" for name in rules.columns)}
        FROM json_to_recordset(CAST(:rows AS json)) AS new (id bigint, {_types(rules)})
        WHERE row.id = new.id AND row.client_id = :client_id
        RETURNING row.id, row.updated_at
    """)  # noqa: S608 - constants of ours


def insert_statement(rules: SideRules[V]) -> TextClause:
    """Makes rows of `client_id` of `rows`, but for those that clash with others; returns the contact ids."""
    # No conflict target, so that every unique index counts. Waits for a writer in flight and never fails on one.
    return text(f"""
        INSERT INTO {table_of(rules.side)} (client_id, {", ".join(rules.columns)})
        SELECT :client_id, {", ".join(f"new.{name}" for name in rules.columns)}
        FROM json_to_recordset(CAST(:rows AS json)) AS new ({_types(rules)})
        ORDER BY new.ghl_contact_id
        ON CONFLICT DO NOTHING RETURNING ghl_contact_id
    """)  # noqa: S608 - constants of ours
