"""The work list of a location: its eligible leads in the order of work, and how far the work has come.

A list is built once and worked off; a killed run finds it again. Leads that became eligible meanwhile are appended, so
that a list taken up again is never older than the moment it is taken up. Tables: `work_lists`, `work_items`,
`resolved_contacts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import blank_sql
from ghl_pipeline.hydration.merge import ContactFields
from ghl_pipeline.hydration.outcomes import FOUND, Counts, LeadField, Outcome, Reason
from ghl_pipeline.hydration.resolve import LeadKey, Resolution

# An interrupted list is taken up again for this long; the work of an older one is cheaper to do anew than to trust.
RESUME_WITHIN = timedelta(days=7)
# A list of which only failed lookups are left is retried for this long (reruns), then replaced by a new one.
RETRY_FAILURES_WITHIN = timedelta(hours=12)


class Scope(StrEnum):
    """Which eligible leads go on a list."""

    ALL = "all"
    NEVER_LOOKED_UP = "never_looked_up"


@dataclass(frozen=True, slots=True)
class WorkList:
    """A list in work. Counts are leads: on the list, looked up, written back."""

    id: int
    client_id: int
    scope: Scope
    listed: int
    looked_up: int
    written: int
    was_resumed: bool


def _blank(column: str) -> str:
    return blank_sql(f"lead.{column}")


# The one definition of "eligible": misses a field, or has an address but no link to its contact.
ELIGIBLE_REASONS = f"""(
      CASE WHEN NOT {_blank("email")} AND {_blank("ghl_contact_id")} THEN {Reason.NO_CONTACT_LINK} ELSE 0 END
    + CASE WHEN {_blank("email")} THEN {Reason.NO_EMAIL} ELSE 0 END
    + CASE WHEN {_blank("phone")} THEN {Reason.NO_PHONE} ELSE 0 END
    + CASE WHEN {_blank("first_name")} THEN {Reason.NO_FIRST_NAME} ELSE 0 END
    + CASE WHEN {_blank("last_name")} THEN {Reason.NO_LAST_NAME} ELSE 0 END
    + CASE WHEN {_blank("company_name")} THEN {Reason.NO_COMPANY_NAME} ELSE 0 END
)"""

# Leads never looked up come first, then those whose last lookup is longest ago: a run cut short has done what is new.
_APPEND = text(f"""
    INSERT INTO work_items (work_list_id, position, lead_id, reasons)
    SELECT :work_list_id,
           :after + row_number() OVER (ORDER BY eligible.looked_up_at NULLS FIRST, eligible.id),
           eligible.id,
           eligible.reasons
    FROM (
        SELECT lead.id, lookup.looked_up_at, {ELIGIBLE_REASONS} AS reasons
        FROM leads AS lead
        LEFT JOIN lead_lookups AS lookup ON lookup.lead_id = lead.id
        WHERE lead.client_id = :client_id
          AND (:scope = 'all' OR lookup.lead_id IS NULL)
          AND NOT EXISTS (SELECT FROM work_items AS item
                          WHERE item.work_list_id = :work_list_id AND item.lead_id = lead.id)
    ) AS eligible
    WHERE eligible.reasons <> 0
    ORDER BY eligible.looked_up_at NULLS FIRST, eligible.id
    LIMIT :room
""")  # noqa: S608 - the only thing interpolated is the expression above


_ELIGIBLE_PAGE = text(f"""
    SELECT * FROM (
        SELECT lead.id, lead.ghl_contact_id, lead.email, {ELIGIBLE_REASONS} AS reasons
        FROM leads AS lead
        WHERE lead.client_id = :client_id AND lead.id > :after_id
    ) AS eligible
    WHERE reasons <> 0 ORDER BY id LIMIT :size
""")  # noqa: S608 - as above

_NAMES = Reason.NO_FIRST_NAME | Reason.NO_LAST_NAME


def open_list(
    connection: Connection, client_id: int, scope: Scope, *, fresh: bool = False, max_leads: int | None = None
) -> WorkList:
    """The list to work on: the interrupted one, topped up, or a new one.

    Args:
        connection: in a transaction of the caller.
        client_id: the location's client.
        scope: which leads go on it. An interrupted list is kept and widened to the larger of the two scopes, so that
            whoever asked for all leads is not told "done" after only the new ones.
        fresh: start anew even if a list was interrupted.
        max_leads: at most so many leads; None for all.
    """
    resumed = None if fresh else _interrupted(connection, client_id)
    if resumed is None:
        # Done lists are dropped here: their outcome stands in lead_lookups and in the materialization.
        connection.execute(text("DELETE FROM work_lists WHERE client_id = :client_id"), {"client_id": client_id})
        insert = text("INSERT INTO work_lists (client_id, scope) VALUES (:client_id, :scope) RETURNING id")
        list_id = connection.execute(insert, {"client_id": client_id, "scope": scope.value}).scalar_one()
        resumed = WorkList(list_id, client_id, scope, listed=0, looked_up=0, written=0, was_resumed=False)
    elif scope is Scope.ALL and resumed.scope is not Scope.ALL:
        widen = text("UPDATE work_lists SET scope = :scope WHERE id = :id")
        connection.execute(widen, {"scope": scope.value, "id": resumed.id})
        resumed = replace(resumed, scope=scope)
    room = None if max_leads is None else max(0, max_leads - resumed.listed)
    append = {
        "work_list_id": resumed.id,
        "client_id": client_id,
        "scope": resumed.scope.value,
        "after": resumed.listed,
        "room": room,
    }
    added = connection.execute(_APPEND, append).rowcount
    update = text("UPDATE work_lists SET listed = listed + :added WHERE id = :id RETURNING listed")
    listed = connection.execute(update, {"added": added, "id": resumed.id}).scalar_one()
    return replace(resumed, listed=listed)


def eligible_page(connection: Connection, client_id: int, after_id: int, size: int) -> list[LeadKey]:
    """The client's next eligible leads by id, at most `size`, without any list."""
    rows = connection.execute(_ELIGIBLE_PAGE, {"client_id": client_id, "after_id": after_id, "size": size})
    return [LeadKey(r.id, r.id, r.ghl_contact_id, r.email, bool(r.reasons & _NAMES)) for r in rows]


def current_list(connection: Connection, client_id: int) -> WorkList | None:
    """The list in work as it is, without topping it up; None when there is none."""
    query = text("""
        SELECT id, scope, listed, looked_up, written FROM work_lists
        WHERE client_id = :client_id AND finished_at IS NULL
    """)
    row = connection.execute(query, {"client_id": client_id}).one_or_none()
    if row is None:
        return None
    return WorkList(row.id, client_id, Scope(row.scope), row.listed, row.looked_up, row.written, was_resumed=True)


def _interrupted(connection: Connection, client_id: int) -> WorkList | None:
    """The open list, unless it is too old to be worth going on with."""
    query = text("""
        SELECT list.id FROM work_lists AS list
        WHERE list.client_id = :client_id AND list.finished_at IS NULL
          AND list.built_at > now() - CASE
                WHEN list.looked_up < list.listed
                  OR EXISTS (SELECT FROM resolved_contacts AS waiting
                             WHERE waiting.work_list_id = list.id AND waiting.outcome <> 'failed')
                THEN CAST(:resume AS interval)
                ELSE CAST(:retry AS interval) END
        FOR UPDATE
    """)
    values = {"client_id": client_id, "resume": RESUME_WITHIN, "retry": RETRY_FAILURES_WITHIN}
    found = connection.execute(query, values).one_or_none()
    return None if found is None else current_list(connection, client_id)


def reason_counts(connection: Connection, work_list: WorkList) -> dict[Reason, int]:
    """Leads on the list by reason; a lead with several reasons counts in each."""
    columns = ", ".join(f"count(*) FILTER (WHERE reasons & {reason.value} <> 0)" for reason in Reason)
    query = text(f"SELECT {columns} FROM work_items WHERE work_list_id = :id")  # noqa: S608 - numbers of our enum
    row = connection.execute(query, {"id": work_list.id}).one()
    return dict(zip(Reason, map(int, row), strict=True))


def next_page(connection: Connection, work_list: WorkList, after: int, size: int) -> list[LeadKey]:
    """The next leads of the list, at most `size`, from position `after` on. A lead deleted meanwhile has no keys."""
    return _keys(connection, work_list, "item.position > :after AND item.position <= :after + :size", after, size)


def failed_page(connection: Connection, work_list: WorkList, after: int, size: int) -> list[LeadKey]:
    """Leads of the list whose lookup failed, at most `size`, from position `after` on."""
    failed = f"""item.position > :after AND EXISTS (
        SELECT FROM resolved_contacts AS resolved
        WHERE resolved.work_list_id = item.work_list_id AND resolved.position = item.position
          AND resolved.outcome = '{Outcome.FAILED}')"""
    return _keys(connection, work_list, failed, after, size)


def _keys(connection: Connection, work_list: WorkList, condition: str, after: int, size: int) -> list[LeadKey]:
    query = text(f"""
        SELECT item.position, item.lead_id, lead.ghl_contact_id, lead.email,
               item.reasons & {_NAMES.value} <> 0 AS needs_names
        FROM work_items AS item
        LEFT JOIN leads AS lead ON lead.id = item.lead_id AND lead.client_id = :client_id
        WHERE item.work_list_id = :id AND {condition}
        ORDER BY item.position
        LIMIT :size
    """)  # noqa: S608 - the conditions are the two above
    values = {"id": work_list.id, "client_id": work_list.client_id, "after": after, "size": size}
    rows = connection.execute(query, values)
    return [LeadKey(r.position, r.lead_id, r.ghl_contact_id, r.email, r.needs_names) for r in rows]


def store_resolutions(connection: Connection, work_list: WorkList, page: Sequence[Resolution], upto: int) -> None:
    """Keeps a page's resolutions for the write-back and moves the list's progress to position `upto`.

    Storing a page again (a run killed before it could say that the page was done) changes nothing but the answers.
    """
    insert = text("""
        INSERT INTO resolved_contacts AS mine
            (work_list_id, position, lead_id, outcome, asked_contact_id, asked_email, link_is_dead,
             contact_id, email, phone, first_name, last_name, company_name)
        SELECT :work_list_id, * FROM unnest(
            CAST(:positions AS integer[]), CAST(:lead_ids AS bigint[]), CAST(:outcomes AS text[]),
            CAST(:asked_contact_ids AS text[]), CAST(:asked_emails AS text[]), CAST(:links_are_dead AS boolean[]),
            CAST(:contact_ids AS text[]),
            CAST(:emails AS text[]), CAST(:phones AS text[]), CAST(:first_names AS text[]),
            CAST(:last_names AS text[]), CAST(:company_names AS text[]))
        ON CONFLICT (work_list_id, position) DO UPDATE SET
            outcome = excluded.outcome, asked_contact_id = excluded.asked_contact_id,
            asked_email = excluded.asked_email, link_is_dead = excluded.link_is_dead,
            contact_id = excluded.contact_id, email = excluded.email,
            phone = excluded.phone, first_name = excluded.first_name, last_name = excluded.last_name,
            company_name = excluded.company_name
    """)
    contacts = [r.contact or _NO_CONTACT for r in page]
    connection.execute(
        insert,
        {
            "work_list_id": work_list.id,
            "positions": [r.key.position for r in page],
            "lead_ids": [r.key.lead_id for r in page],
            "outcomes": [r.outcome.value for r in page],
            "asked_contact_ids": [r.key.contact_id for r in page],
            "asked_emails": [r.asked_email for r in page],
            "links_are_dead": [r.link_is_dead for r in page],
            "contact_ids": [c.contact_id or None for c in contacts],
            "emails": [c.email for c in contacts],
            "phones": [c.phone for c in contacts],
            "first_names": [c.first_name for c in contacts],
            "last_names": [c.last_name for c in contacts],
            "company_names": [c.company_name for c in contacts],
        },
    )
    progress = text("UPDATE work_lists SET looked_up = GREATEST(looked_up, :upto) WHERE id = :id")
    connection.execute(progress, {"upto": upto, "id": work_list.id})


_NO_CONTACT = ContactFields(contact_id="")


def lookup_counts(connection: Connection, work_list: WorkList) -> dict[str, int]:
    """Leads looked up so far: `found`, or the outcome of a lookup that found nothing."""
    query = text("""
        SELECT coalesce(resolved.outcome, item.outcome) AS outcome, count(*)
        FROM work_items AS item
        LEFT JOIN resolved_contacts AS resolved
            ON resolved.work_list_id = item.work_list_id AND resolved.position = item.position
        WHERE item.work_list_id = :id AND coalesce(resolved.outcome, item.outcome) IS NOT NULL
        GROUP BY 1
    """)
    by_outcome = {Outcome(name): int(count) for name, count in connection.execute(query, {"id": work_list.id})}
    counts = {"found": sum(count for outcome, count in by_outcome.items() if outcome in FOUND)}
    counts |= {outcome.value: by_outcome.get(outcome, 0) for outcome in Outcome if outcome not in FOUND}
    return counts


def final_counts(connection: Connection, work_list: WorkList) -> Counts:
    """The list's leads by final outcome, and the fields that were filled."""
    outcomes = text("""
        SELECT outcome, count(*) FROM work_items WHERE work_list_id = :id AND outcome IS NOT NULL GROUP BY outcome
    """)
    columns = ", ".join(f"count(*) FILTER (WHERE filled & {field.value} <> 0)" for field in LeadField)
    fields = text(f"SELECT {columns} FROM work_items WHERE work_list_id = :id")  # noqa: S608 - numbers of our enum
    values = {"id": work_list.id}
    return Counts(
        {Outcome(name): int(count) for name, count in connection.execute(outcomes, values)},
        dict(zip(LeadField, map(int, connection.execute(fields, values).one()), strict=True)),
    )


def drop_abandoned_lists(connection: Connection) -> None:
    """Deletes lists that nobody takes up again, with what was found for them: too old, or of deactivated clients.

    People's data waits in `resolved_contacts` for the write-back, not for ever.
    """
    query = text("""
        DELETE FROM work_lists AS list USING clients AS client
        WHERE client.id = list.client_id AND list.finished_at IS NULL
          AND (NOT client.active OR list.built_at < now() - CAST(:resume AS interval))
          -- Not while somebody works on it, however long that takes.
          AND NOT EXISTS (SELECT FROM location_leases AS lease WHERE lease.location_id = client.location_id)
    """)
    connection.execute(query, {"resume": RESUME_WITHIN})


def finish(connection: Connection, work_list: WorkList) -> None:
    """Closes the list: every lead on it has its outcome."""
    connection.execute(text("UPDATE work_lists SET finished_at = now() WHERE id = :id"), {"id": work_list.id})
