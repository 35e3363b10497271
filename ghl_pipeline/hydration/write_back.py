"""Resolutions -> `leads`, a page at a time, in sets, without ever losing what somebody else wrote.

The rows of a page are locked, merged by the merge rule against what they hold *now*, and written by one statement. So a
value that a person typed since the lookup wins, and a lead whose link or address changed since is left for the next
run. The reasons for each guard are in the tests of this module.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.hydration.claims import Claims
from ghl_pipeline.hydration.matching import normal_address
from ghl_pipeline.hydration.merge import ContactFields, LeadRow, Merged, merge
from ghl_pipeline.hydration.outcomes import LeadField, Outcome
from ghl_pipeline.hydration.resolve import LeadKey, Resolution
from ghl_pipeline.hydration.work_list import ASKED, ELIGIBLE_REASONS, WorkList

T = TypeVar("T")

# Another writer may take a contact or an address between our look and our write; the page is then written once more.
RACE_ATTEMPTS = 5
RACE_STATES = frozenset({"23505", "40P01"})  # unique_violation, deadlock_detected

NOTHING = LeadField(0)


@dataclass(frozen=True, slots=True)
class Written:
    """How one lead ended, and what was filled in it.

    Not `settled`: the lead changed, or was deleted, since it was looked up, so the lookup says nothing about it. Not
    `holds`: another lead of the client stands in the way, so that the answer may be another one without any change at
    GHL.
    """

    lead_id: int
    outcome: Outcome
    filled: LeadField = NOTHING
    settled: bool = True
    holds: bool = True


def write_back_page(engine: Engine, work_list: WorkList, default_region: str, size: int) -> int:
    """Writes the next resolved leads of the list, at most `size`, and takes them off `resolved_contacts`.

    Failed lookups are put on record in the list but stay, so that they can be looked up again.

    Returns:
        How many leads were taken off; 0 when nothing is left to write.
    """
    return _retry_races(lambda connection: _write_list_page(connection, work_list, default_region, size), engine)


def write_back(
    engine: Engine,
    client_id: int,
    default_region: str,
    resolutions: Sequence[Resolution],
    *,
    claims: Claims | None = None,
    looked_up: bool = True,
) -> list[Written]:
    """Writes resolutions that are on no work list; one entry each, in their order.

    With `claims`, which remembers over the pages of a preview what they would have taken, everything is decided, and
    nothing is written or locked.

    Not `looked_up`: the contacts were told, by an event that may be late or say only part. That is no lookup to
    remember, or a lead could count as current although its contact has changed since.
    """

    def write(connection: Connection) -> list[Written]:
        if claims is not None:
            return _decide(connection, client_id, default_region, resolutions, claims)[0]
        written, changed = _decide(connection, client_id, default_region, resolutions, None)
        _update_leads(connection, client_id, changed)
        if looked_up:
            _record_lookups(connection, client_id, written)
        return written

    return _retry_races(write, engine)


def _retry_races(write: Callable[[Connection], T], engine: Engine) -> T:
    for _ in range(RACE_ATTEMPTS - 1):
        try:
            with engine.begin() as connection:
                return write(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in RACE_STATES:
                raise
    with engine.begin() as connection:
        return write(connection)


def _write_list_page(connection: Connection, work_list: WorkList, default_region: str, size: int) -> int:
    page = _resolved_page(connection, work_list, size)
    if not page:
        return 0
    written, changed = _decide(connection, work_list.client_id, default_region, page, None)
    _update_leads(connection, work_list.client_id, changed)
    _record_lookups(connection, work_list.client_id, written)
    items = [
        {"position": resolution.key.position, "outcome": lead.outcome, "filled": int(lead.filled)}
        for resolution, lead in zip(page, written, strict=True)
    ]
    connection.execute(_MARK_ITEMS, {"id": work_list.id, "rows": as_json_rows(items)})
    positions = as_array(resolution.key.position for resolution in page)
    taken_off = connection.execute(_TAKE_OFF, {"id": work_list.id, "positions": positions}).rowcount
    connection.execute(_COUNT_WRITTEN, {"id": work_list.id, "leads": taken_off})
    return len(page)


def record_failures(connection: Connection, work_list: WorkList) -> list[int]:
    """Puts the lookups that failed on record in the list; returns the ids of their leads."""
    query = text("""
        UPDATE work_items AS item SET outcome = resolved.outcome, filled = 0
        FROM resolved_contacts AS resolved
        WHERE item.work_list_id = :id AND resolved.work_list_id = item.work_list_id
          AND resolved.position = item.position AND resolved.outcome = 'failed'
        RETURNING item.lead_id
    """)
    return sorted(connection.execute(query, {"id": work_list.id}).scalars())


def _resolved_page(connection: Connection, work_list: WorkList, size: int) -> list[Resolution]:
    query = text("""
        SELECT * FROM resolved_contacts
        WHERE work_list_id = :id AND outcome <> 'failed'
        ORDER BY position LIMIT :size FOR UPDATE
    """)
    rows = connection.execute(query, {"id": work_list.id, "size": size})
    return [
        Resolution(
            LeadKey(row.position, row.lead_id, row.asked_contact_id, row.asked_email),
            Outcome(row.outcome),
            _stored_contact(row),
            row.asked_email,
            row.link_is_dead,
        )
        for row in rows
    ]


def _stored_contact(row: Row[tuple[object, ...]]) -> ContactFields | None:
    if row.contact_id is None:
        return None
    return ContactFields(row.contact_id, row.email, row.phone, row.first_name, row.last_name, row.company_name)


def _decide(
    connection: Connection,
    client_id: int,
    default_region: str,
    page: Sequence[Resolution],
    preview: Claims | None,
) -> tuple[list[Written], list[Merged]]:
    """Merges the page into its leads as they are now, locked unless it is a preview.

    Returns:
        How each lead ends, in the page's order, and the leads that change.
    """
    leads = _read_leads(connection, client_id, [r.key.lead_id for r in page], lock=preview is None)
    claims = preview if preview is not None else Claims()
    claims.read(connection, client_id, page)
    written: list[Written] = []
    changed: list[Merged] = []
    for resolution in page:
        lead = leads.get(resolution.key.lead_id)
        contact = resolution.contact
        if lead is None or _changed_meanwhile(lead, resolution):
            written.append(Written(resolution.key.lead_id, Outcome.UNCHANGED, settled=False))
        elif contact is None:
            written.append(Written(lead.id, resolution.outcome))
        elif not claims.may_link(lead, contact.contact_id):
            written.append(Written(lead.id, Outcome.AMBIGUOUS, holds=False))
        else:
            offered = claims.without_taken_email(lead, contact)
            merged = merge(lead, offered, default_region, relink=resolution.link_is_dead)
            claims.take(merged)
            written.append(Written(lead.id, _outcome_of(merged), merged.filled, holds=offered is contact))
            if merged.filled:
                changed.append(merged)
    return written, changed


def _outcome_of(merged: Merged) -> Outcome:
    if LeadField.CONTACT_LINK in merged.filled:
        return Outcome.LINKED_AND_HYDRATED
    return Outcome.HYDRATED if merged.filled else Outcome.UNCHANGED


def _changed_meanwhile(lead: LeadRow, asked: Resolution) -> bool:
    """Whether somebody linked the lead, unlinked it or corrected its address since it was looked up.

    An address that was blank then and is filled now is no reason when a contact was found: by the lead's link.
    """
    address_then = normal_address(asked.asked_email)
    was_asked_for = address_then is not None or asked.contact is None
    other_address = was_asked_for and normal_address(lead.email) != address_then
    return lead.contact_id != asked.key.contact_id or other_address


def _read_leads(connection: Connection, client_id: int, lead_ids: Sequence[int], *, lock: bool) -> dict[int, LeadRow]:
    """The client's leads with these ids; locked until the transaction ends, in id order, so that two writers queue."""
    query = text(f"""
        SELECT id, ghl_contact_id, email, phone, first_name, last_name, company_name, enrichment_status
        FROM leads WHERE client_id = :client_id AND id = ANY(CAST(:ids AS bigint[]))
        ORDER BY id {"FOR NO KEY UPDATE" if lock else ""}
    """)  # noqa: S608 - one of two constants
    rows = connection.execute(query, {"client_id": client_id, "ids": as_array(lead_ids)})
    return {
        row.id: LeadRow(
            row.id, row.ghl_contact_id, row.email, row.phone, row.first_name, row.last_name, row.company_name,
            row.enrichment_status,
        )
        for row in rows
    }  # fmt: skip


def _update_leads(connection: Connection, client_id: int, changed: Sequence[Merged]) -> None:
    if not changed:
        return
    rows = [
        {
            "id": merged.lead.id,
            "ghl_contact_id": merged.lead.contact_id,
            "email": merged.lead.email,
            "phone": merged.lead.phone,
            "first_name": merged.lead.first_name,
            "last_name": merged.lead.last_name,
            "company_name": merged.lead.company_name,
            "enriched": merged.enriched,
        }
        for merged in changed
    ]
    connection.execute(_UPDATE_LEADS, {"client_id": client_id, "rows": as_json_rows(rows)})


_UPDATE_LEADS = text("""
    UPDATE leads AS lead SET
        ghl_contact_id = new.ghl_contact_id, email = new.email, phone = new.phone, first_name = new.first_name,
        last_name = new.last_name, company_name = new.company_name,
        enrichment_status = CASE WHEN new.enriched THEN 'enriched' ELSE lead.enrichment_status END,
        enrichment_source = CASE WHEN new.enriched THEN 'ghl' ELSE lead.enrichment_source END,
        enriched_at = CASE WHEN new.enriched THEN now() ELSE lead.enriched_at END,
        -- It was said of the contact that the lead was linked to.
        contact_deleted_at = CASE WHEN lead.ghl_contact_id IS NOT DISTINCT FROM new.ghl_contact_id
            THEN lead.contact_deleted_at END
    FROM json_to_recordset(CAST(:rows AS json)) AS new (
        id bigint, ghl_contact_id text, email text, phone text, first_name text, last_name text, company_name text,
        enriched boolean)
    WHERE lead.id = new.id AND lead.client_id = :client_id
""")

_MARK_ITEMS = text("""
    UPDATE work_items AS item SET outcome = new.outcome, filled = new.filled
    FROM json_to_recordset(CAST(:rows AS json)) AS new (position integer, outcome text, filled smallint)
    WHERE item.work_list_id = :id AND item.position = new.position
""")

_TAKE_OFF = text("""
    DELETE FROM resolved_contacts WHERE work_list_id = :id AND position = ANY(CAST(:positions AS integer[]))
""")

_COUNT_WRITTEN = text("UPDATE work_lists SET written = written + :leads WHERE id = :id")


def _record_lookups(connection: Connection, client_id: int, written: Sequence[Written]) -> None:
    """Remembers per lead that and how it was looked up, and for which question, as the lead is after the write.

    Leads deleted meanwhile have nothing to remember it for.

    A lookup that failed, or of what the lead no longer is, was none: the lead keeps its place among those that wait
    longest.
    """
    query = text(f"""
        INSERT INTO lead_lookups (lead_id, client_id, outcome, asked, missing)
        SELECT new.lead_id, :client_id, new.outcome, CASE WHEN new.holds THEN {ASKED} END, {ELIGIBLE_REASONS}
        FROM json_to_recordset(CAST(:rows AS json)) AS new (lead_id bigint, outcome text, holds boolean)
        JOIN leads AS lead ON lead.id = new.lead_id AND lead.client_id = :client_id
        ORDER BY new.lead_id
        ON CONFLICT (lead_id) DO UPDATE
        SET client_id = excluded.client_id, outcome = excluded.outcome, asked = excluded.asked,
            missing = excluded.missing, looked_up_at = now()
    """)  # noqa: S608 - constants of ours
    answered = [
        {"lead_id": lead.lead_id, "outcome": lead.outcome, "holds": lead.holds}
        for lead in written
        if lead.settled and lead.outcome is not Outcome.FAILED
    ]
    connection.execute(query, {"client_id": client_id, "rows": as_json_rows(answered)})
    # What an older record says of a lead that changed meanwhile may come true again, but not what changed at GHL since.
    forget = text("DELETE FROM lead_lookups WHERE lead_id = ANY(CAST(:ids AS bigint[]))")
    unsettled = [lead.lead_id for lead in written if not lead.settled]
    if unsettled:
        connection.execute(forget, {"ids": as_array(unsettled)})
