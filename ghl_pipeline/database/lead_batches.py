"""Many leads in a few statements, with the result that storing them one by one would have.

Whoever stores leads does so through `leads.py`, which takes the locks that this relies on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg.errors
from sqlalchemy import Connection, RowMapping, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.blank import WHITE_SPACE
from ghl_pipeline.database.lead_rows import LeadUpsert, fill_or_create, is_race, missing_values
from ghl_pipeline.database.new_leads import KEYS, LeadValues
from ghl_pipeline.database.rows import as_array, as_json_rows


@dataclass(slots=True)
class Entry:
    """A lead of the batch, and the rows that its keys find, the one that counts first."""

    place: int
    client_id: int
    values: LeadValues
    status: str | None
    address: str | None = None  # the e-mail in the database's idea of lower case
    found: dict[int, RowMapping] = field(default_factory=dict)
    found_by: dict[int, set[str]] = field(default_factory=dict)

    def tokens(self) -> Iterator[tuple[object, ...]]:
        """What it has in common with every other entry of the same person."""
        for key in KEYS:
            if key in self.values:
                yield self.client_id, key, self.address if key == "email" else self.values[key]
        for lead_id in self.found:
            yield "row", lead_id

    def known_row(self) -> int | None:
        """The row that is found, if nothing is to be filled in it."""
        if not self.found:
            return None
        (lead_id, row), *others = self.found.items()
        belongs_to_another = {key for other, _ in others for key in self.found_by[other]}
        return None if missing_values(self.values, row, belongs_to_another) else lead_id


@dataclass(slots=True)
class _Batch:
    """What is to be done about the persons of a batch, by how it can be done."""

    stored: dict[int, LeadUpsert] = field(default_factory=dict)
    new: list[tuple[list[Entry], LeadValues]] = field(default_factory=list)
    to_fill: list[tuple[list[Entry], RowMapping, LeadValues]] = field(default_factory=list)
    singly: list[Entry] = field(default_factory=list)

    def sort(self, person: list[Entry]) -> None:
        """Notes what is to be done about one person."""
        known = [lead_id for entry in person if (lead_id := entry.known_row()) is not None]
        found = {lead_id: row for entry in person for lead_id, row in entry.found.items()}
        if len(known) == len(person):
            for entry, lead_id in zip(person, known, strict=True):
                self.stored[entry.place] = LeadUpsert(lead_id, created=False)
        elif len(found) == 1 and all(entry.found for entry in person):
            (row,) = found.values()
            said_first: LeadValues = {}
            for entry in person:
                said_first = {**entry.values, **said_first}
            self.to_fill.append((person, row, missing_values(said_first, row, frozenset())))
        elif not found and (new_row := _as_one_row(person)) is not None:
            self.new.append((person, new_row))
        else:
            self.singly += person

    def note(self, person: list[Entry], lead_id: int | None, *, created: bool) -> None:
        """Notes the row that a person has now; None: another writer was quicker, so that only another look helps."""
        if lead_id is None:
            self.singly += person
        else:
            for entry in person:
                self.stored[entry.place] = LeadUpsert(lead_id, created=created and entry is person[0])


def store_batch(connection: Connection, entries: Sequence[Entry]) -> dict[int, LeadUpsert]:
    """Stores the entries as one after the other would; by place. The caller holds the locks of their clients.

    Raises:
        UnknownClient: there is no such client.
        DatabaseUnavailable: other writers kept changing the same rows.
    """
    _find(connection, entries)
    batch = _Batch()
    for person in _by_person(entries):
        batch.sort(person)
    # In the order of the write-back, which takes no lock of ours, or the two would deadlock again and again.
    _lock_rows(
        connection,
        sorted({row["id"] for _, row, _ in batch.to_fill} | {found for entry in batch.singly for found in entry.found}),
    )
    for (person, *_), lead_id in zip(batch.new, _create(connection, batch.new), strict=True):
        batch.note(person, lead_id, created=True)
    for (person, *_), lead_id in zip(batch.to_fill, _fill(connection, batch.to_fill), strict=True):
        batch.note(person, lead_id, created=False)
    for entry in sorted(batch.singly, key=lambda entry: entry.place):
        batch.stored[entry.place] = fill_or_create(connection, entry.client_id, entry.values, entry.status)
    return batch.stored


def _find(connection: Connection, entries: Sequence[Entry]) -> None:
    by_place = {entry.place: entry for entry in entries}
    wanted = [{"place": entry.place, "client_id": entry.client_id, **entry.values} for entry in entries]
    for row in connection.execute(_FIND, {"rows": as_json_rows(wanted)}).mappings():
        entry = by_place[row["place"]]
        entry.address = row["address"]
        if row["id"] is not None:
            entry.found.setdefault(row["id"], row)
            entry.found_by.setdefault(row["id"], set()).add(KEYS[row["rank"]])


# Three lookups instead of one with OR, so that each uses its index whatever the planner knows of the table.
_FIND = text("""
    WITH wanted AS (
        SELECT place, client_id, ghl_contact_id, emailbison_lead_id, lower(email) AS address
        FROM json_to_recordset(CAST(:rows AS json)) AS given (
            place integer, client_id bigint, ghl_contact_id text, emailbison_lead_id bigint, email text)
    )
    SELECT wanted.place, wanted.address, found.*
    FROM wanted LEFT JOIN LATERAL (
        SELECT 0 AS rank, by_contact.* FROM leads AS by_contact
        WHERE by_contact.client_id = wanted.client_id AND by_contact.ghl_contact_id = wanted.ghl_contact_id
            AND by_contact.ghl_contact_id <> ''
        UNION ALL
        SELECT 1, by_number.* FROM leads AS by_number
        WHERE by_number.client_id = wanted.client_id AND by_number.emailbison_lead_id = wanted.emailbison_lead_id
        UNION ALL
        SELECT 2, by_address.* FROM leads AS by_address
        WHERE by_address.client_id = wanted.client_id AND lower(btrim(by_address.email)) = wanted.address
            AND btrim(by_address.email) <> ''
    ) AS found ON true
    ORDER BY wanted.place, found.rank
""")


def _by_person(entries: Sequence[Entry]) -> Iterable[list[Entry]]:
    """The entries that have a key or a row in common, directly or through others, in their order.

    No key of one person can find a row that an entry of another one makes or fills.
    """
    leader: dict[int, int] = {entry.place: entry.place for entry in entries}

    def first_of(place: int) -> int:
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    seen: dict[tuple[object, ...], int] = {}
    for entry in entries:
        for token in entry.tokens():
            one, other = sorted((first_of(entry.place), first_of(seen.setdefault(token, entry.place))))
            leader[other] = one
    persons: dict[int, list[Entry]] = {}
    for entry in entries:
        persons.setdefault(first_of(entry.place), []).append(entry)
    return persons.values()


def _as_one_row(person: Sequence[Entry]) -> LeadValues | None:
    """The row that storing a new person's entries in turn would make; None if it would make several."""
    first, *later = person
    row, address = dict(first.values), first.address
    for entry in later:
        is_found = any(key in row and row[key] == entry.values.get(key) for key in KEYS[:2])
        if not is_found and (address is None or address != entry.address):
            return None
        for name, value in entry.values.items():
            row.setdefault(name, value)
        address = address or entry.address
    return row


def _create(connection: Connection, new: Sequence[tuple[list[Entry], LeadValues]]) -> list[int | None]:
    """Inserts the rows of new persons; None for each that another writer, who takes no lock of ours, made meanwhile."""
    rows: list[dict[str, object]] = [
        {"place": place, "client_id": person[0].client_id, "status": person[0].status or None, **row}
        for place, (person, row) in enumerate(new)
    ]
    made: dict[tuple[object, ...], int] = {}
    if rows:
        try:
            with connection.begin_nested():
                for found in connection.execute(_CREATE, {"rows": as_json_rows(rows)}):
                    made[tuple(found[1:])] = found.id
        except DBAPIError as error:
            # One by one they wait for others, or say which client there is not.
            if not is_race(error) and not isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
                raise
            made.clear()
    return [made.get((row["client_id"], *map(row.get, KEYS))) for row in rows]


# No conflict target, so that all three unique indexes count. 'new' is the column's default.
_CREATE = text("""
    INSERT INTO leads (client_id, ghl_contact_id, emailbison_lead_id, email, phone, first_name, last_name,
        company_name, status)
    SELECT client_id, ghl_contact_id, emailbison_lead_id, email, phone, first_name, last_name, company_name,
        coalesce(status, 'new')
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        place integer, client_id bigint, ghl_contact_id text, emailbison_lead_id bigint, email text, phone text,
        first_name text, last_name text, company_name text, status text)
    ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING id, client_id, ghl_contact_id, emailbison_lead_id, email
""")


def _fill(connection: Connection, to_fill: Sequence[tuple[list[Entry], RowMapping, LeadValues]]) -> list[int | None]:
    """Fills rows where they are empty; None for each that another writer changed, or took a key of, meanwhile."""
    rows: list[dict[str, object]] = [
        {"id": row["id"], **{f"seen_{key}": row[key] for key in KEYS}, **missing} for _, row, missing in to_fill
    ]
    filled: set[int] = set()
    if rows:
        try:
            with connection.begin_nested():
                parameters = {"rows": as_json_rows(rows), "white_space": WHITE_SPACE}
                filled.update(connection.execute(_FILL, parameters).scalars())
        except DBAPIError as error:
            if not is_race(error):
                raise
    return [row["id"] if row["id"] in filled else None for _, row, _ in to_fill]


_TEXTS = ("ghl_contact_id", "email", "phone", "first_name", "last_name", "company_name")

# Whether a field is empty is asked again of the row as it is once locked: a person may have filled it. One whose keys
# changed may be another person's.
_FILL = text(
    f"""
    UPDATE leads AS lead SET
        emailbison_lead_id = coalesce(lead.emailbison_lead_id, new.emailbison_lead_id),
        {
        ", ".join(
            f"{name} = CASE WHEN new.{name} IS NULL THEN lead.{name} "
            f"ELSE coalesce(nullif(btrim(lead.{name}, :white_space), ''), new.{name}) END"
            for name in _TEXTS
        )
    }
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        id bigint, seen_ghl_contact_id text, seen_emailbison_lead_id bigint, seen_email text, ghl_contact_id text,
        emailbison_lead_id bigint, email text, phone text, first_name text, last_name text, company_name text)
    WHERE lead.id = new.id AND lead.ghl_contact_id IS NOT DISTINCT FROM new.seen_ghl_contact_id
        AND lead.emailbison_lead_id IS NOT DISTINCT FROM new.seen_emailbison_lead_id
        AND lead.email IS NOT DISTINCT FROM new.seen_email
    RETURNING lead.id
    """  # noqa: S608 - constants of ours
)


def _lock_rows(connection: Connection, lead_ids: Sequence[int]) -> None:
    """Locks rows in the order of their ids."""
    if len(lead_ids) < 2:
        return
    try:
        with connection.begin_nested():
            connection.execute(_LOCK_ROWS, {"ids": as_array(lead_ids)})
    except DBAPIError as error:
        if not is_race(error):
            raise


_LOCK_ROWS = text("""
    SELECT FROM leads WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE
""")
