"""Pages of a work list: the keys of the next leads, and their resolutions stored.

Tables: `work_items`, `resolved_contacts`, `pulled_contacts`.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import is_blank
from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.hydration.matching import normal_address
from ghl_pipeline.hydration.outcomes import Outcome, Reason
from ghl_pipeline.hydration.plan import Plan, Way
from ghl_pipeline.hydration.resolve import LeadKey, Resolution
from ghl_pipeline.hydration.work_list import ASKED, ELIGIBLE_REASONS, WorkList

_ELIGIBLE_PAGE = text(f"""
    SELECT * FROM (
        SELECT lead.id, lead.ghl_contact_id, lead.email, {ELIGIBLE_REASONS} AS reasons
        FROM leads AS lead
        WHERE lead.client_id = :client_id AND lead.id > :after_id
    ) AS eligible
    WHERE reasons <> 0 ORDER BY id LIMIT :size
""")  # noqa: S608 - as above

_NAMES = Reason.NO_FIRST_NAME | Reason.NO_LAST_NAME


def eligible_page(connection: Connection, client_id: int, after_id: int, size: int) -> list[LeadKey]:
    """The client's next eligible leads by id, at most `size`, without any list."""
    rows = connection.execute(_ELIGIBLE_PAGE, {"client_id": client_id, "after_id": after_id, "size": size})
    return [LeadKey(r.id, r.id, r.ghl_contact_id, r.email, bool(r.reasons & _NAMES)) for r in rows]


def next_page(connection: Connection, work_list: WorkList, plan: Plan, after: int, size: int) -> list[LeadKey]:
    """The next leads of the list without an answer, at most `size`, after position `after`.

    What is stored already is not asked again, even if the history does not know of it yet. A lead deleted meanwhile has
    no keys. One that was edited since it was listed is not covered by the plan's pull, nor is one of several contacts'
    address in a delta: which of them is its own takes all of them to tell.
    """
    unanswered = """item.position > :after AND item.outcome IS NULL AND NOT EXISTS (
        SELECT FROM resolved_contacts AS resolved
        WHERE resolved.work_list_id = item.work_list_id AND resolved.position = item.position)"""
    return _keys(connection, work_list, plan, unanswered, after=after, size=size)


def failed_page(connection: Connection, work_list: WorkList, after: int, size: int) -> list[LeadKey]:
    """Leads of the list whose lookup failed, at most `size`, from position `after` on."""
    failed = f"""item.position > :after AND EXISTS (
        SELECT FROM resolved_contacts AS resolved
        WHERE resolved.work_list_id = item.work_list_id AND resolved.position = item.position
          AND resolved.outcome = '{Outcome.FAILED}')"""
    return _keys(connection, work_list, None, failed, after=after, size=size)


def _keys(
    connection: Connection, work_list: WorkList, plan: Plan | None, condition: str, *, after: int, size: int
) -> list[LeadKey]:
    query = text(f"""
        SELECT item.position, item.lead_id, lead.ghl_contact_id, lead.email, item.is_current,
               item.reasons & {_NAMES.value} <> 0 AS needs_names,
               lower(btrim(lead.email)) AS indexed_address,
               item.asked = {ASKED} AND (NOT :is_delta OR lookup.outcome <> '{Outcome.AMBIGUOUS}') AS is_as_pulled,
               :is_delta AND item.is_current AND lookup.outcome = '{Outcome.CONTACT_DELETED}' AS link_was_dead
        FROM work_items AS item
        LEFT JOIN leads AS lead ON lead.id = item.lead_id AND lead.client_id = :client_id
        LEFT JOIN lead_lookups AS lookup ON lookup.lead_id = item.lead_id AND lookup.client_id = :client_id
        WHERE item.work_list_id = :id AND {condition}
        ORDER BY item.position
        LIMIT :size
    """)  # noqa: S608 - the conditions are the two above
    values = {
        "id": work_list.id,
        "client_id": work_list.client_id,
        "after": after,
        "size": size,
        "is_delta": plan is not None and plan.way is Way.DELTA,
    }
    rows = connection.execute(query, values)
    return [
        LeadKey(
            row.position,
            row.lead_id,
            row.ghl_contact_id,
            row.email,
            row.needs_names,
            # The database found the pulled contacts by its own idea of lower case, which is not always Python's.
            is_covered=plan is not None
            and plan.covers(row.position, is_current=row.is_current)
            and bool(row.is_as_pulled)
            and (is_blank(row.email) or row.indexed_address == normal_address(row.email)),
            link_was_dead=bool(row.link_was_dead),
        )
        for row in rows
    ]


def store_resolutions(connection: Connection, work_list: WorkList, page: Sequence[Resolution], upto: int) -> None:
    """Keeps a page's resolutions for the write-back and moves the list's progress to position `upto`.

    Storing a page again (a run killed before it could say that the page was done) changes nothing but the answers.
    """
    insert = text("""
        WITH stored AS (
        INSERT INTO resolved_contacts AS mine
            (work_list_id, position, lead_id, outcome, asked_contact_id, asked_email, link_is_dead,
             contact_id, email, phone, first_name, last_name, company_name)
        SELECT :work_list_id, * FROM json_to_recordset(CAST(:rows AS json)) AS new (
            position integer, lead_id bigint, outcome text, asked_contact_id text, asked_email text,
            link_is_dead boolean, contact_id text, email text, phone text, first_name text, last_name text,
            company_name text)
        ON CONFLICT (work_list_id, position) DO UPDATE SET
            outcome = excluded.outcome, asked_contact_id = excluded.asked_contact_id,
            asked_email = excluded.asked_email, link_is_dead = excluded.link_is_dead,
            contact_id = excluded.contact_id, email = excluded.email,
            phone = excluded.phone, first_name = excluded.first_name, last_name = excluded.last_name,
            company_name = excluded.company_name
        RETURNING xmax = 0 AS is_new)
        SELECT count(*) FILTER (WHERE is_new) FROM stored
    """)
    rows = as_json_rows([_row_of(resolution) for resolution in page])
    new = connection.execute(insert, {"work_list_id": work_list.id, "rows": rows}).scalar_one()
    drop_pulled = text("""
        DELETE FROM pulled_contacts WHERE work_list_id = :id AND position = ANY(CAST(:positions AS integer[]))
    """)
    connection.execute(drop_pulled, {"id": work_list.id, "positions": as_array(r.key.position for r in page)})
    progress = text("""
        UPDATE work_lists SET position = GREATEST(position, :upto), looked_up = looked_up + :new WHERE id = :id
    """)
    connection.execute(progress, {"upto": upto, "new": new, "id": work_list.id})


def _row_of(resolution: Resolution) -> dict[str, object]:
    contact = resolution.contact
    row: dict[str, object] = {
        "position": resolution.key.position,
        "lead_id": resolution.key.lead_id,
        "outcome": resolution.outcome,
        "asked_contact_id": resolution.key.contact_id,
        "asked_email": resolution.asked_email,
        "link_is_dead": resolution.link_is_dead,
    }
    if contact is not None:
        row |= {
            "contact_id": contact.contact_id,
            "email": contact.email,
            "phone": contact.phone,
            "first_name": contact.first_name,
            "last_name": contact.last_name,
            "company_name": contact.company_name,
        }
    return row
