"""Locations that nobody asks again until somebody has acted, and what counts as having acted."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.orchestration.rerun_rules import REFUSALS

# A token may be repaired at GHL itself (a scope added, an integration switched on again), of which nothing here tells:
# one careful look a day finds it.
HELD_BACK_HOURS: Final = 24
# The daily looks at locations that were refused in the same minute are spread over this long.
LOOK_SPREAD_SECONDS: Final = 3600

_JOINS = """
    JOIN clients AS client ON client.location_id = standing.location_id
    LEFT JOIN emailbison_workspaces AS workspace ON workspace.client_id = client.id
    LEFT JOIN crm_clients AS crm ON crm.client_id = client.id
    LEFT JOIN booking_calendars AS calendar ON calendar.client_id = client.id
"""
_REFUSALS = ", ".join(f"'{name}'" for name in REFUSALS)
# A changed client (a new token, made active) is always such a look; rows beside it where they are about the refusal.
_SOMEBODY_ACTED = f"""(
    -- A run that began before a new token was stored asked with the old one, whenever it was refused.
    client.updated_at >= coalesce(standing.began_at, standing.ended_at)
    -- This row changes each hour that EmailBison's events are read, which says nothing of GHL's refusals.
    OR (workspace.updated_at >= standing.ended_at AND starts_with(standing.error_class, 'EmailBison'))
    OR (standing.capability = 'crm' AND crm.updated_at >= standing.ended_at
        AND standing.error_class NOT IN ({_REFUSALS}))
    -- A look at the calendar writes its row before it ends.
    OR (standing.capability = 'availability' AND calendar.updated_at > standing.ended_at)
)"""


def held_back(connection: Connection, capability: str, *, also: Sequence[str] = ()) -> set[str]:
    """Locations that refused us as a whole at the last try, less than a day ago, of clients that did not change since.

    Args:
        connection: the dashboard database.
        capability: at which work.
        also: classes of errors, by name, that stop this work until a person has looked. A change of how vendors and
            leads are kept in step (`clients set-crm`) is such a look.

    Trying again changes nothing until somebody acts, and a run that fails every few minutes hides the new failures of
    others. A new token, or any other change of the client, lets the location go on at once; where EmailBison refused,
    a change of its workspace does; a pass of the doctor, where it tried what had failed.
    """
    query = text(f"""
        SELECT standing.location_id FROM location_standings AS standing {_JOINS}
        WHERE standing.capability = :capability AND standing.state = 'failed' AND standing.rerun_at IS NULL
          AND (standing.cause = 'refused' OR standing.error_class = ANY(CAST(:also AS text[])))
          AND standing.ended_at > now() - make_interval(hours => {HELD_BACK_HOURS})
          AND NOT coalesce({_SOMEBODY_ACTED}, false)
    """)  # noqa: S608 - conditions of ours
    return set(connection.execute(query, {"capability": capability, "also": list(also)}).scalars())


# While many wait for GHL to come back, a round of a few is asked every minute, and after ten minutes even if nobody
# heard of the one before. Without a round for longer, the sensor that asks them is switched off.
ROUNDS_ARE_ALIVE_MINUTES: Final = 15


def left_to_reruns(connection: Connection, capability: str) -> set[str]:
    """Locations that schedules need not ask, because the reruns do when there is a point in it.

    The day's quota is used up there; or so many failed together that GHL seems to be down, and a few find out when it
    is back. Asking these by the clock would only add to the outage. Where one fails by itself, its turns go on.
    """
    query = text(f"""
        SELECT location_id FROM location_standings
        WHERE capability = :capability AND cause IS NOT NULL AND (
            (cause = 'quota' AND rerun_at > now())
            OR (cause = 'transient' AND EXISTS (
                SELECT FROM rerun_rounds AS round WHERE round.capability = :capability
                  AND round.asked_at > now() - make_interval(mins => {ROUNDS_ARE_ALIVE_MINUTES}))))
    """)  # noqa: S608 - a constant of ours
    return set(connection.execute(query, {"capability": capability}).scalars())


def release_where_somebody_acted(connection: Connection, capabilities: Collection[str]) -> int:
    """Makes held locations due where somebody acted since they failed, or a day has passed; returns how many.

    A location without a token has nothing to look with, so that it waits for one.
    """
    release = text(f"""
        UPDATE location_standings AS held SET rerun_at = now(), reruns = CASE WHEN due.acted THEN 0 ELSE held.reruns END
        FROM (
            SELECT standing.location_id, standing.capability, coalesce({_SOMEBODY_ACTED}, false) AS acted,
                   standing.ended_at AS failed_at, standing.error_class AS error
            FROM location_standings AS standing {_JOINS}
            WHERE standing.capability = ANY(ARRAY(SELECT json_array_elements_text(CAST(:capabilities AS json))))
              AND standing.cause IS NOT NULL AND standing.rerun_at IS NULL AND standing.state = 'failed'
              AND client.active
        ) AS due
        WHERE held.location_id = due.location_id AND held.capability = due.capability AND held.rerun_at IS NULL
          AND (due.acted OR (
              due.error IS DISTINCT FROM 'TokenMissing'
              AND due.failed_at + make_interval(
                  hours => {HELD_BACK_HOURS},
                  secs => abs(CAST(hashtext(held.location_id) AS bigint)) % {LOOK_SPREAD_SECONDS}) <= now()))
    """)  # noqa: S608 - conditions of ours
    return connection.execute(release, {"capabilities": as_json_list(sorted(capabilities))}).rowcount


def release(
    connection: Connection, location_id: str, error_classes: Collection[str], capabilities: Collection[str]
) -> int:
    """Makes a location's holds due whose cause was tried just now and is gone; returns how many.

    Args:
        connection: in a transaction.
        location_id: where.
        error_classes: the errors whose cause was tried, by name.
        capabilities: of which work.
    """
    statement = text("""
        UPDATE location_standings SET rerun_at = now(), reruns = 0
        WHERE location_id = :location_id AND cause IS NOT NULL AND rerun_at IS NULL AND state = 'failed'
          AND error_class = ANY(ARRAY(SELECT json_array_elements_text(CAST(:errors AS json))))
          AND capability = ANY(ARRAY(SELECT json_array_elements_text(CAST(:capabilities AS json))))
    """)
    values = {
        "location_id": location_id,
        "errors": as_json_list(sorted(error_classes)),
        "capabilities": as_json_list(sorted(capabilities)),
    }
    return connection.execute(statement, values).rowcount
