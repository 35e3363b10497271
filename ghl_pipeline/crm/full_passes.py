"""When each location was last passed over in full, or was tried to be: from when the week to the next is counted."""

from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.crm.crm import CAPABILITY
from ghl_pipeline.errors import LocationBusy


def last_full_passes(connection: Connection) -> dict[str, datetime]:
    """By location, when its last full pass began; those without one are left out.

    What hours of changes did in between does not count. A latest attempt that is under way, or did not succeed, counts:
    until one succeeds it is for the hourly runs and reruns to try. So does one that found nobody to look for.
    """
    query = text("""
        SELECT client.location_id,
               greatest(crm.full_pass_at,
                        CASE WHEN latest.state <> 'succeeded' OR latest.report @> '{"mode": "nothing"}'
                             THEN latest.started_at END) AS began_at
        FROM clients AS client
        JOIN crm_clients AS crm ON crm.client_id = client.id
        LEFT JOIN LATERAL (
            SELECT state, report, started_at FROM location_attempts
            WHERE capability = :capability AND location_id = client.location_id
              AND error_class IS DISTINCT FROM :busy
              AND NOT (state = 'succeeded' AND report @> '{"dry_run": true}')
            ORDER BY id DESC LIMIT 1
        ) AS latest ON true
        WHERE client.active AND crm.enabled
    """)
    values = {"capability": CAPABILITY, "busy": LocationBusy.__name__}
    rows = connection.execute(query, values)
    return {row.location_id: row.began_at for row in rows if row.began_at is not None}
