"""The work list of a location: its eligible leads in the order of work, and how far the work has come.

A list is built once and worked off; a killed run finds it again. Leads that became eligible meanwhile are appended, so
that a list taken up again is never older than the moment it is taken up. Tables: `work_lists`, `work_items`,
`resolved_contacts`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import cast

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import blank_sql
from ghl_pipeline.hydration.outcomes import Outcome, Reason

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
    """A list in work. Counts are leads: on the list, looked up, written back.

    Every lead up to `position` has its answer stored; where that is, is not how many: a delta settles many at once.
    """

    id: int
    client_id: int
    scope: Scope
    listed: int
    looked_up: int
    written: int
    position: int
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

# What a lookup's answer stands for: another link, or another address, is another question.
ASKED = "CAST(md5(coalesce(lead.ghl_contact_id, '') || chr(31) || lower(btrim(coalesce(lead.email, '')))) AS uuid)"

# A lead looked up before is current while nothing was asked of it that its record does not answer, and for a time.
_IS_CURRENT = f"""coalesce(
    :may_be_current AND lookup.asked = {ASKED} AND {ELIGIBLE_REASONS} & ~lookup.missing = 0
    AND lookup.looked_up_at > now() - CAST(:look_up_every AS interval), false)"""

# Leads never looked up come first, then those whose last lookup is longest ago: a run cut short has done what is new.
_APPEND = text(f"""
    INSERT INTO work_items (work_list_id, position, lead_id, reasons, is_current, asked)
    SELECT :work_list_id,
           :after + row_number() OVER (ORDER BY eligible.is_current, eligible.looked_up_at NULLS FIRST, eligible.id),
           eligible.id,
           eligible.reasons,
           eligible.is_current,
           eligible.asked
    FROM (
        SELECT lead.id, lookup.looked_up_at, {ASKED} AS asked, {ELIGIBLE_REASONS} AS reasons,
               {_IS_CURRENT} AS is_current
        FROM leads AS lead
        LEFT JOIN lead_lookups AS lookup ON lookup.lead_id = lead.id AND lookup.client_id = lead.client_id
        WHERE lead.client_id = :client_id
          AND (:scope = 'all' OR lookup.lead_id IS NULL)
          AND NOT EXISTS (SELECT FROM work_items AS item
                          WHERE item.work_list_id = :work_list_id AND item.lead_id = lead.id)
    ) AS eligible
    WHERE eligible.reasons <> 0
    ORDER BY eligible.is_current, eligible.looked_up_at NULLS FIRST, eligible.id
    LIMIT :room
""")  # noqa: S608 - the only thing interpolated is the expression above


def open_list(
    connection: Connection,
    client_id: int,
    scope: Scope,
    *,
    fresh: bool = False,
    max_leads: int | None = None,
    look_up_every: timedelta | None = None,
) -> WorkList:
    """The list to work on: the interrupted one, topped up, or a new one.

    Args:
        connection: in a transaction of the caller.
        client_id: the location's client.
        scope: which leads go on it. An interrupted list is kept and widened to the larger of the two scopes, so that
            whoever asked for all leads is not told "done" after only the new ones.
        fresh: start anew even if a list was interrupted.
        max_leads: at most so many leads; None for all.
        look_up_every: a lead that was looked up less long ago, as it is now, is current: a changed contact is all that
            can matter to it. None: none is, since changes were never seen or are not to be relied on.
    """
    resumed = None if fresh else _interrupted(connection, client_id)
    if resumed is None:
        # Done lists are dropped here: their outcome stands in lead_lookups and in the materialization.
        connection.execute(text("DELETE FROM work_lists WHERE client_id = :client_id"), {"client_id": client_id})
        insert = text("INSERT INTO work_lists (client_id, scope) VALUES (:client_id, :scope) RETURNING id")
        list_id = connection.execute(insert, {"client_id": client_id, "scope": scope.value}).scalar_one()
        resumed = WorkList(list_id, client_id, scope, listed=0, looked_up=0, written=0, position=0, was_resumed=False)
    elif scope is Scope.ALL and resumed.scope is not Scope.ALL:
        # All of the new leads were not all leads; whether all are on it now is for what follows to say.
        widen = text("UPDATE work_lists SET scope = :scope, unlimited = false WHERE id = :id")
        connection.execute(widen, {"scope": scope.value, "id": resumed.id})
        resumed = replace(resumed, scope=scope)
    room = None if max_leads is None else max(0, max_leads - resumed.listed)
    append = {
        "work_list_id": resumed.id,
        "client_id": client_id,
        "scope": resumed.scope.value,
        "after": resumed.listed,
        "room": room,
        "may_be_current": look_up_every is not None,
        "look_up_every": look_up_every or timedelta(0),
    }
    added = connection.execute(_APPEND, append).rowcount
    update = text("""
        UPDATE work_lists SET listed = listed + :added, unlimited = unlimited OR :unlimited WHERE id = :id
        RETURNING listed
    """)
    grown = {"added": added, "unlimited": max_leads is None, "id": resumed.id}
    listed = connection.execute(update, grown).scalar_one()
    return replace(resumed, listed=listed)


def current_list(connection: Connection, client_id: int) -> WorkList | None:
    """The list in work as it is, without topping it up; None when there is none."""
    query = text("""
        SELECT id, scope, listed, looked_up, written, position FROM work_lists
        WHERE client_id = :client_id AND finished_at IS NULL
    """)
    row = connection.execute(query, {"client_id": client_id}).one_or_none()
    if row is None:
        return None
    return WorkList(
        row.id, client_id, Scope(row.scope), row.listed, row.looked_up, row.written, row.position, was_resumed=True
    )


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


def complete_pass(connection: Connection, work_list: WorkList) -> datetime | None:
    """The moment up to which leads with a lookup on record know of changed contacts, now that the list is through.

    Only a list of all eligible leads tells; None for any other. The records of leads that are not on it, or whose
    lookup failed, are dropped: they missed what changed since their last lookup, and count as never looked up.

    Call when every lead of the list has an outcome, failed ones included.
    """
    query = text("SELECT built_at FROM work_lists WHERE id = :id AND unlimited AND scope = 'all'")
    built_at = connection.execute(query, {"id": work_list.id}).scalar_one_or_none()
    if built_at is None:
        return None
    drop = text(f"""
        DELETE FROM lead_lookups AS lookup
        WHERE lookup.client_id = :client_id AND NOT EXISTS (
            SELECT FROM work_items AS item
            WHERE item.work_list_id = :id AND item.lead_id = lookup.lead_id AND item.outcome <> '{Outcome.FAILED}')
    """)  # noqa: S608 - a name of our enum
    connection.execute(drop, {"id": work_list.id, "client_id": work_list.client_id})
    return cast("datetime", built_at)
