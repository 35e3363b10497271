"""The row of one person: found by the keys that are known, filled where it is empty, or made.

Whoever stores leads does so through `leads.py`, which takes the lock that this relies on.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import psycopg.errors
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.blank import WHITE_SPACE, is_blank
from ghl_pipeline.database.new_leads import KEYS, LeadValues
from ghl_pipeline.database.tables import leads
from ghl_pipeline.errors import DatabaseUnavailable, UnknownClient

_FILLED_WHEN_EMPTY = (*KEYS, "phone", "first_name", "last_name", "company_name")
# Each attempt that fails means that a writer who does not come through here committed a matching row meanwhile.
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class LeadUpsert:
    """The row that holds the person, and whether this call made it."""

    lead_id: int
    created: bool


def fill_or_create(connection: Connection, client_id: int, values: LeadValues, status: str | None) -> LeadUpsert:
    """Fills the person's row, or makes it. The caller holds the client's lock.

    Writers who do not take that lock (the dashboard, the write-back) are met by ON CONFLICT, the savepoint and another
    look.

    Raises:
        UnknownClient: there is no such client.
        DatabaseUnavailable: other writers kept changing the same rows; nothing of this lead was stored.
    """
    for _ in range(_ATTEMPTS):
        try:
            with connection.begin_nested():
                stored = _fill(connection, client_id, values) or _create(connection, client_id, values, status)
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
                raise UnknownClient(f"There is no client with id {client_id}. See: ghl-pipeline clients list") from None
            if not is_race(error):
                raise
        else:
            if stored is not None:
                return stored
    raise DatabaseUnavailable(
        f"A lead of client {client_id} could not be stored: other writers changed the rows it belongs to {_ATTEMPTS} "
        "times in a row. Nothing was written; send it again."
    )


def is_race(error: DBAPIError) -> bool:
    """Whether another writer was quicker, so that another look will help."""
    return isinstance(error.orig, psycopg.errors.UniqueViolation | psycopg.errors.DeadlockDetected)


def missing_values(
    values: Mapping[str, str | int], row: RowMapping, belongs_to_another: AbstractSet[str]
) -> LeadValues:
    """What is known of the person and empty in the row, without the keys that another row has."""
    return {
        name: values[name]
        for name in _FILLED_WHEN_EMPTY
        if name in values and name not in belongs_to_another and _is_empty(row[name])
    }


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and is_blank(value))


def _fill(connection: Connection, client_id: int, values: LeadValues) -> LeadUpsert | None:
    """Fill the empty fields of the row that is found; None if there is none, or it changed before it was locked."""
    matches = _matches(values)
    is_this_person = and_(leads.c.client_id == client_id, or_(*matches.values()))
    rank = case(*((test, position) for position, test in enumerate(matches.values())))
    found = connection.execute(
        select(leads, *(test.label(f"by_{name}") for name, test in matches.items()))
        .where(is_this_person)
        .order_by(rank)
    ).all()
    if not found:
        return None
    row, *others = (each._mapping for each in found)
    belongs_to_another = {name for name in matches if any(other[f"by_{name}"] for other in others)}
    missing = missing_values(values, row, belongs_to_another)
    if missing:
        # Whether a field is empty is asked again of the row as it is once locked: a person may have filled it.
        filled = update(leads).values({name: _own_or(name, value) for name, value in missing.items()})
        if connection.execute(filled.where(leads.c.id == row["id"], is_this_person)).rowcount == 0:
            return None
    return LeadUpsert(row["id"], created=False)


def _matches(values: Mapping[str, str | int]) -> dict[str, ColumnElement[bool]]:
    """For each key that the lead has, in the order in which they count, the test that a row has it too."""
    tests: dict[str, ColumnElement[bool]] = {}
    for name in ("ghl_contact_id", "emailbison_lead_id"):
        if name in values:
            tests[name] = leads.c[name] == values[name]
    if "ghl_contact_id" in tests:
        tests["ghl_contact_id"] &= leads.c.ghl_contact_id != ""  # the condition of its index
    if "email" in values:
        # The expression of the unique index, and the database's idea of lower case on both sides.
        address = func.btrim(leads.c.email)
        tests["email"] = (func.lower(address) == func.lower(values["email"])) & (address != "")
    return tests


def _own_or(name: str, value: str | int) -> ColumnElement[object]:
    own = leads.c[name]
    return func.coalesce(
        own if isinstance(value, int) else func.nullif(func.btrim(own, WHITE_SPACE), ""), literal(value)
    )


def _create(connection: Connection, client_id: int, values: LeadValues, status: str | None) -> LeadUpsert | None:
    """Insert the row; None if another writer's row has one of its keys, which the next look then finds."""
    row = {**values, "client_id": client_id, **({"status": status} if status else {})}
    # No conflict target, so that all three unique indexes count. Waits for a writer in flight and never fails on one.
    lead_id = connection.execute(insert(leads).values(row).on_conflict_do_nothing().returning(leads.c.id)).scalar()
    return None if lead_id is None else LeadUpsert(lead_id, created=True)
