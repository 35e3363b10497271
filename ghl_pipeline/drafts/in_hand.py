"""What the sensor leaves alone: locations that failed just now, and all of them while every provider refuses."""

from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.drafts.wanting import ALL_REFUSED, CAPABILITY
from ghl_pipeline.errors import LocationBusy

# A location that fails by itself (its rows cannot be read, say) would otherwise start a run every 20 seconds.
REST_MINUTES: Final = 10
# A key that was refused may have been put right at the provider, of which nothing here would tell.
REFUSED_MINUTES: Final = 60


def refused_everywhere(connection: Connection, setup: str) -> bool:
    """Whether all providers refused this set-up when drafts were tried last, within the hour, wherever that was.

    Then each new message would start a run, and a call to each provider, to be told the same.
    """
    query = text("""
        SELECT coalesce(latest.report ->> :all_refused = :setup, false)
        FROM clients AS client CROSS JOIN LATERAL (
            SELECT id, report, ended_at FROM location_attempts
            WHERE capability = :capability AND location_id = client.location_id AND state = 'succeeded'
            ORDER BY id DESC LIMIT 1
        ) AS latest
        WHERE latest.ended_at > now() - make_interval(mins => :minutes)
          AND (latest.report -> 'drafted' <> '{}' OR latest.report -> 'failed' <> '{}')
        ORDER BY latest.id DESC LIMIT 1
    """)
    values = {"capability": CAPABILITY, "all_refused": ALL_REFUSED, "setup": setup, "minutes": REFUSED_MINUTES}
    return bool(connection.execute(query, values).scalar_one_or_none())


def failing_locations(connection: Connection) -> set[str]:
    """Active locations whose last attempt failed within the last ten minutes."""
    query = text("""
        SELECT client.location_id
        FROM clients AS client JOIN draft_clients ON draft_clients.client_id = client.id AND draft_clients.enabled
        CROSS JOIN LATERAL (
            SELECT state, ended_at FROM location_attempts
            WHERE capability = :capability AND location_id = client.location_id AND error_class IS DISTINCT FROM :busy
            ORDER BY id DESC LIMIT 1
        ) AS latest
        WHERE latest.state = 'failed' AND latest.ended_at > now() - make_interval(mins => :minutes)
    """)
    values = {"capability": CAPABILITY, "busy": LocationBusy.__name__, "minutes": REST_MINUTES}
    return set(connection.execute(query, values).scalars())
