"""The leads that events are about: finding them by what a person is known by.

Every statement is bound to one client, so that an id or an address that another client has too cannot reach its rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Row, text

from ghl_pipeline.database.leads import NewLead
from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.webhooks.handling.lead_status import has_opted_out
from ghl_pipeline.webhooks.person_keys import person_keys


@dataclass(frozen=True, slots=True)
class KnownLead:
    """A lead of the client, as far as handling an event needs it. Its `repr` shows ids only."""

    id: int
    contact_id: str | None
    opted_out: bool
    contact_deleted_at: datetime | None
    emailbison_lead_id: int | None = None
    email: str | None = field(default=None, repr=False)

    @property
    def keys(self) -> tuple[UUID, ...]:
        """What it is known by, as `person_keys`."""
        known_by = NewLead(contact_id=self.contact_id, emailbison_lead_id=self.emailbison_lead_id, email=self.email)
        return person_keys(known_by)


@dataclass(frozen=True, slots=True)
class Matches:
    """Which leads have which of a person's keys. `lead` is the one that the person is."""

    by_contact: KnownLead | None = None
    by_emailbison: KnownLead | None = None
    by_email: KnownLead | None = None

    @property
    def lead(self) -> KnownLead | None:
        """By contact id, else by EmailBison id, else by e-mail: the order in which a lead is stored."""
        return self.by_contact or self.by_emailbison or self.by_email

    @property
    def ids(self) -> set[int]:
        """Every lead that has one of the keys."""
        return {lead.id for lead in (self.by_contact, self.by_emailbison, self.by_email) if lead is not None}


_COLUMNS = """
    lead.id, lead.ghl_contact_id, lead.emailbison_lead_id, lead.email, lead.status, lead.opted_out_at,
    lead.contact_deleted_at
"""

# Each branch brings its columns along: a join back to `leads` by id was planned as a hash join over the whole table.
_FIND = text(f"""
    SELECT asked.n, found.*
    FROM json_to_recordset(CAST(:rows AS json)) AS asked (
        n integer, contact_id text, emailbison_lead_id bigint, email text)
    CROSS JOIN LATERAL (
        SELECT 'contact' AS key, {_COLUMNS} FROM leads AS lead
        WHERE client_id = :client_id AND ghl_contact_id <> '' AND ghl_contact_id = asked.contact_id
        UNION ALL
        SELECT 'emailbison', {_COLUMNS} FROM leads AS lead
        WHERE client_id = :client_id AND emailbison_lead_id IS NOT NULL
          AND emailbison_lead_id = asked.emailbison_lead_id
        UNION ALL
        SELECT 'email', {_COLUMNS} FROM leads AS lead
        WHERE client_id = :client_id AND btrim(email) <> '' AND lower(btrim(email)) = lower(btrim(asked.email))
    ) AS found
""")  # noqa: S608 - constants of ours


def find_leads(connection: Connection, client_id: int, persons: Sequence[NewLead]) -> list[Matches]:
    """The client's leads that have the keys of these persons, in one statement; an entry for each person, in order."""
    rows = [
        {
            "n": n,
            "contact_id": _storable(person.contact_id),
            "emailbison_lead_id": person.emailbison_lead_id,
            "email": _storable(person.email),
        }
        for n, person in enumerate(persons)
    ]
    found: list[dict[str, KnownLead]] = [{} for _ in persons]
    if rows:
        for row in connection.execute(_FIND, {"client_id": client_id, "rows": as_json_rows(rows)}):
            found[row.n][row.key] = _lead(row)
    return [Matches(each.get("contact"), each.get("emailbison"), each.get("email")) for each in found]


def leads_by_id(connection: Connection, client_id: int, lead_ids: Collection[int]) -> dict[int, KnownLead]:
    """Those of the leads that are the client's."""
    query = text(f"""
        SELECT {_COLUMNS} FROM leads AS lead WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[]))
    """)  # noqa: S608 - a constant of ours
    rows = connection.execute(query, {"client_id": client_id, "ids": as_array(lead_ids)})
    return {row.id: _lead(row) for row in rows}


def _storable(key: str | None) -> str | None:
    return storable_text(key) if key else None


def _lead(row: Row[tuple[object, ...]]) -> KnownLead:
    return KnownLead(
        row.id, row.ghl_contact_id, has_opted_out(row.status, row.opted_out_at), row.contact_deleted_at,
        row.emailbison_lead_id, row.email,
    )  # fmt: skip
