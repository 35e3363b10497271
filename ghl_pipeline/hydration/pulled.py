"""Contacts that a scan or a delta brought, kept for the listed leads they may belong to. Table: `pulled_contacts`.

A page of contacts meets the list in one statement: by the lead's link, and by its address. Only contacts that match a
listed lead are kept, until that lead is resolved, so that memory and table stay small however large the location is.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.matching import addresses_of
from ghl_pipeline.hydration.outcomes import FOUND
from ghl_pipeline.hydration.plan import Plan, Way
from ghl_pipeline.hydration.work_list import ASKED, WorkList

_FOUND = ", ".join(f"'{outcome}'" for outcome in sorted(FOUND))

# From some hundred contacts to the leads that have them, and to their places in the list, each step through an index:
# LIMIT 1, which the unique indexes make harmless, keeps the planner from reading a whole table instead (it takes every
# JSON parameter for 100 rows). A lead whose contact was found is linked to it, so a delta looks for no other contact
# with its address.
_KEEP = text(f"""
    WITH contact AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:contacts AS json)) AS c (
            id text, email text, additional_emails text[], phone text, first_name text, last_name text,
            company_name text, date_updated timestamptz, names_are_whole boolean)
    ), lead_of AS MATERIALIZED (
        SELECT lead.id AS lead_id, contact.id AS contact_id, true AS by_link
        FROM contact CROSS JOIN LATERAL (
            SELECT id FROM leads WHERE client_id = :client_id AND ghl_contact_id <> '' AND ghl_contact_id = contact.id
            LIMIT 1) AS lead
        UNION ALL
        SELECT lead.id, address.contact_id, false
        FROM json_to_recordset(CAST(:addresses AS json)) AS address (contact_id text, address text)
        CROSS JOIN LATERAL (
            SELECT id FROM leads
            WHERE client_id = :client_id AND btrim(email) <> '' AND lower(btrim(email)) = address.address
            LIMIT 1) AS lead
    ), place AS MATERIALIZED (
        SELECT DISTINCT item.position, lead_of.contact_id
        FROM lead_of
        CROSS JOIN LATERAL (
            SELECT position, is_current, outcome FROM work_items
            WHERE work_list_id = :work_list_id AND lead_id = lead_of.lead_id LIMIT 1) AS item
        LEFT JOIN LATERAL (
            SELECT outcome FROM lead_lookups WHERE :is_delta AND lead_id = lead_of.lead_id LIMIT 1) AS lookup ON true
        WHERE item.position <= :upto AND item.outcome IS NULL
          AND (NOT :is_delta OR (item.is_current AND (lead_of.by_link OR lookup.outcome NOT IN ({_FOUND}))))
    )
    INSERT INTO pulled_contacts AS kept
        (work_list_id, position, contact_id, email, additional_emails, phone, first_name, last_name, company_name,
         date_updated, names_are_whole)
    SELECT :work_list_id, place.position, contact.id, contact.email, contact.additional_emails, contact.phone,
           contact.first_name, contact.last_name, contact.company_name, contact.date_updated, contact.names_are_whole
    FROM place JOIN contact ON contact.id = place.contact_id
    ON CONFLICT (work_list_id, position, contact_id) DO UPDATE SET
        email = excluded.email, additional_emails = excluded.additional_emails, phone = excluded.phone,
        first_name = excluded.first_name, last_name = excluded.last_name, company_name = excluded.company_name,
        date_updated = excluded.date_updated, names_are_whole = excluded.names_are_whole
""")  # noqa: S608 - the only thing interpolated are names of our enum


def keep_page(connection: Connection, work_list: WorkList, plan: Plan, contacts: Sequence[Contact]) -> None:
    """Keeps those of the contacts that may be a listed lead's, and stores how far the pull has come.

    A page that is pulled again (a run killed before it was stored) changes nothing but the newer values.
    """
    by_id = {contact.id: contact for contact in contacts}
    addresses = [
        {"contact_id": contact.id, "address": address}
        for contact in by_id.values()
        for address, _ in addresses_of(contact)
    ]
    values = {
        "work_list_id": work_list.id,
        "client_id": work_list.client_id,
        "upto": plan.upto,
        "is_delta": plan.way is Way.DELTA,
        "contacts": as_json_rows([_row_of(contact) for contact in by_id.values()]),
        "addresses": as_json_rows(addresses),
    }
    if by_id:
        connection.execute(_KEEP, values)
    store_plan(connection, work_list, plan)


def _row_of(contact: Contact) -> dict[str, object]:
    return {
        "id": contact.id,
        "email": contact.email,
        "additional_emails": contact.additional_emails,
        "phone": contact.phone,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "company_name": contact.company_name,
        "date_updated": contact.date_updated,
        "names_are_whole": contact.names_are_whole,
    }


def store_plan(connection: Connection, work_list: WorkList, plan: Plan) -> None:
    """Stores the plan with its list."""
    update = text("UPDATE work_lists SET plan = CAST(:plan AS jsonb) WHERE id = :id")
    connection.execute(update, {"id": work_list.id, "plan": msgspec.json.encode(plan).decode()})


def drop_plan(connection: Connection, work_list: WorkList) -> None:
    """Forgets the list's plan and what was pulled for it."""
    connection.execute(text("DELETE FROM pulled_contacts WHERE work_list_id = :id"), {"id": work_list.id})
    connection.execute(text("UPDATE work_lists SET plan = NULL WHERE id = :id"), {"id": work_list.id})


def load_plan(connection: Connection, work_list: WorkList) -> Plan | None:
    """The list's plan; None while it has none."""
    query = text("SELECT CAST(plan AS text) FROM work_lists WHERE id = :id")
    stored = connection.execute(query, {"id": work_list.id}).scalar_one()
    return None if stored is None else msgspec.json.decode(stored, type=Plan)


def contacts_of_page(connection: Connection, work_list: WorkList, positions: Sequence[int]) -> list[Contact]:
    """The contacts that were kept for the leads at these positions, each once."""
    query = text("""
        SELECT DISTINCT ON (contact_id)
            contact_id, email, additional_emails, phone, first_name, last_name, company_name, date_updated,
            names_are_whole
        FROM pulled_contacts
        WHERE work_list_id = :id AND position = ANY(CAST(:positions AS integer[]))
        ORDER BY contact_id
    """)
    rows = connection.execute(query, {"id": work_list.id, "positions": as_array(positions)})
    return [
        Contact(
            row.contact_id, row.email, tuple(row.additional_emails), row.phone, row.first_name, row.last_name,
            row.company_name, row.date_updated, row.names_are_whole,
        )
        for row in rows
    ]  # fmt: skip


# What the last lookup said still holds where no contact of the lead has changed. Of an address that is not plain ASCII
# the database's lower case may not be Python's, so that its contact may have been pulled and not recognised.
_SETTLE = text(f"""
    WITH settled AS (
        UPDATE work_items AS item
        SET outcome = CASE WHEN lookup.outcome IN ({_FOUND}) THEN 'unchanged' ELSE lookup.outcome END
        FROM lead_lookups AS lookup, leads AS lead
        WHERE item.work_list_id = :id AND item.is_current AND item.position <= :upto AND item.outcome IS NULL
          AND lookup.lead_id = item.lead_id AND lead.id = item.lead_id AND lead.client_id = :client_id
          AND lookup.client_id = :client_id AND lookup.asked = {ASKED} AND coalesce(lead.email, '') ~ '^[ -~]*$'
          AND NOT EXISTS (SELECT FROM pulled_contacts AS pulled
                          WHERE pulled.work_list_id = item.work_list_id AND pulled.position = item.position)
          AND NOT EXISTS (SELECT FROM resolved_contacts AS resolved
                          WHERE resolved.work_list_id = item.work_list_id AND resolved.position = item.position)
        RETURNING 1
    )
    UPDATE work_lists SET looked_up = looked_up + (SELECT count(*) FROM settled),
                          written = written + (SELECT count(*) FROM settled)
    WHERE id = :id
""")  # noqa: S608 - as above


def settle_unchanged(connection: Connection, work_list: WorkList, plan: Plan) -> None:
    """Gives the plan's current leads of which no contact has changed the outcome they had. Call after the pull."""
    values = {"id": work_list.id, "client_id": work_list.client_id, "upto": plan.upto}
    connection.execute(_SETTLE, values)
