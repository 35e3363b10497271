"""Storing a lead that comes in from outside, so that one person is one row per client.

Here is only the one way a new lead is written. Which leads lack something, and filling them from GHL, is `hydration/`;
a phone arrives here in the form it is stored in, because that rule needs the client's region.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg.errors
from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.blank import WHITE_SPACE, is_blank
from ghl_pipeline.database.tables import leads
from ghl_pipeline.errors import DatabaseUnavailable, InvalidInput, UnknownClient

_FILLED_WHEN_EMPTY = (
    "ghl_contact_id",
    "emailbison_lead_id",
    "email",
    "phone",
    "first_name",
    "last_name",
    "company_name",
)
# PostgreSQL takes neither NUL nor half of a surrogate pair; JSON can bring both.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LONGEST_KEY_BYTES = 2000  # a B-tree entry holds about 2,700
_LARGEST_BIGINT = 2**63 - 1
# Each attempt that fails means that a writer who does not come through here committed a matching row meanwhile.
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLead:
    """What is known of a person who is to be a lead. Its `repr` shows ids only."""

    contact_id: str | None = None
    emailbison_lead_id: int | None = None
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    first_name: str | None = field(default=None, repr=False)
    last_name: str | None = field(default=None, repr=False)
    company_name: str | None = field(default=None, repr=False)
    status: str | None = None  # of a row that is created; a lead that exists keeps its own


@dataclass(frozen=True, slots=True)
class LeadUpsert:
    """The row that holds the person, and whether this call made it."""

    lead_id: int
    created: bool


def upsert_lead(connection: Connection, client_id: int, lead: NewLead) -> LeadUpsert:
    """Store the lead in the client's row for this person, or in a new one.

    The row is found by contact id, else by EmailBison lead id, else by e-mail (without regard to case). Only its empty
    fields are filled. If the person's keys point at several rows, the first found wins and a key that another row has
    stays there. Text is stored without NULs and surrounding space; blank text is nothing.

    Callers who write the same person at the same time end with one row, whatever keys they have in common: those of
    one client wait for each other until the transaction ends, so keep it short. Needs READ COMMITTED, the default.

    Args:
        connection: in the caller's transaction, which the caller commits.
        client_id: `clients.id`.
        lead: has a contact id, an EmailBison lead id or an e-mail, since nothing else could find it again.

    Raises:
        InvalidInput: the lead has no key, or one that cannot be stored.
        UnknownClient: there is no such client.
        DatabaseUnavailable: other writers kept changing the same rows; nothing of this lead was stored.
    """
    values = _storable(lead)
    # One lock per client, not per key: a transaction with several leads cannot then deadlock with another one. Writers
    # who do not take it (the dashboard, the write-back) are met by ON CONFLICT, the savepoint and another look.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"leads of client {client_id}", 0))))
    for _ in range(_ATTEMPTS):
        try:
            with connection.begin_nested():
                stored = _fill(connection, client_id, values) or _create(connection, client_id, values, lead.status)
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
                raise UnknownClient(f"There is no client with id {client_id}. See: ghl-pipeline clients list") from None
            if not isinstance(error.orig, psycopg.errors.UniqueViolation | psycopg.errors.DeadlockDetected):
                raise
        else:
            if stored is not None:
                return stored
    raise DatabaseUnavailable(
        f"A lead of client {client_id} could not be stored: other writers changed the rows it belongs to {_ATTEMPTS} "
        "times in a row. Nothing was written; send it again."
    )


def _storable(lead: NewLead) -> dict[str, str | int]:
    """The lead's values by column, cleaned, without the empty ones."""
    texts = {
        "ghl_contact_id": lead.contact_id,
        "email": lead.email,
        "phone": lead.phone,
        "first_name": lead.first_name,
        "last_name": lead.last_name,
        "company_name": lead.company_name,
    }
    values: dict[str, str | int] = {}
    for name, text in texts.items():
        cleaned = _UNSTORABLE.sub("", text or "").strip()
        if cleaned:
            values[name] = cleaned
    for name in ("ghl_contact_id", "email"):
        if len(str(values.get(name, "")).encode()) > _LONGEST_KEY_BYTES:
            raise InvalidInput(f"A lead's {name} is longer than {_LONGEST_KEY_BYTES} bytes. Correct it at its source.")
    if lead.emailbison_lead_id is not None:
        if not 0 < lead.emailbison_lead_id <= _LARGEST_BIGINT:
            raise InvalidInput("A lead's EmailBison lead id is not a positive 64-bit number. Correct it at its source.")
        values["emailbison_lead_id"] = lead.emailbison_lead_id
    if not values.keys() & {"ghl_contact_id", "emailbison_lead_id", "email"}:
        raise InvalidInput("A lead has no contact id, EmailBison lead id or e-mail, one of which it needs. Add one.")
    return values


def _fill(connection: Connection, client_id: int, values: Mapping[str, str | int]) -> LeadUpsert | None:
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
    missing = {
        name: values[name]
        for name in _FILLED_WHEN_EMPTY
        if name in values and name not in belongs_to_another and _is_empty(row[name])
    }
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


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and is_blank(value))


def _own_or(name: str, value: str | int) -> ColumnElement[object]:
    own = leads.c[name]
    return func.coalesce(
        own if isinstance(value, int) else func.nullif(func.btrim(own, WHITE_SPACE), ""), literal(value)
    )


def _create(
    connection: Connection, client_id: int, values: Mapping[str, str | int], status: str | None
) -> LeadUpsert | None:
    """Insert the row; None if another writer's row has one of its keys, which the next look then finds."""
    row = {**values, "client_id": client_id, **({"status": status} if status else {})}
    # No conflict target, so that all three unique indexes count. Waits for a writer in flight and never fails on one.
    lead_id = connection.execute(insert(leads).values(row).on_conflict_do_nothing().returning(leads.c.id)).scalar()
    return None if lead_id is None else LeadUpsert(lead_id, created=True)
