"""How the clients' leads stand, and how the last work on each location ended. Counts only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Engine, text

from ghl_pipeline.database.blank import blank_sql
from ghl_pipeline.errors import LocationBusy

# What else than hydration is on record in `location_attempts`.
OTHER_WORK = ("conversations", "webhooks", "reconcile", "crm", "availability", "drafts", "senders")


@dataclass(frozen=True, slots=True)
class LocationStatus:
    """One client's location.

    Counts are leads: all, linked to a contact, without a phone, without a name (first or last). `last_state` is how the
    latest attempt ended (None: never tried); `last_success` when one last succeeded; `error` what the latest one said.
    An attempt that found the location busy, and a dry run that succeeded, say nothing of the leads and are left out.

    `failing` holds what the latest attempts of other work at the location said, by the work (`conversations`: messages;
    `webhooks`: events; `reconcile`: EmailBison's log; `crm`: vendors and leads in step; `availability`: free times;
    `drafts`: replies; `senders`: EmailBison's accounts), as far as they failed.

    Of the inbox: `events_pending` wait to be handled, the oldest for `oldest_pending_seconds`; `events_dead` failed for
    the last time and wait for a person; `events_last_day` came in the last 24 hours.

    `calendar` says how the client's free times stand: never, fresh, no_slots, stale or unsupported (None: the client
    has no calendar); `calendar_reason` why, `calendar_stale_since` since when, `free_slots` how many are to come,
    `calendar_refreshed_at` as of when they are (None: never).
    """

    location: str
    client: str
    active: bool
    leads: int
    linked: int
    without_phone: int
    without_name: int
    last_state: str | None
    last_success: datetime | None
    error: str | None
    events_pending: int = 0
    events_dead: int = 0
    oldest_pending_seconds: float | None = None
    events_last_day: int = 0
    failing: Mapping[str, str] = field(default_factory=dict)
    calendar: str | None = None
    calendar_reason: str | None = None
    calendar_stale_since: datetime | None = None
    free_slots: int = 0
    calendar_refreshed_at: datetime | None = None


def read_status(engine: Engine) -> list[LocationStatus]:
    """The status of every client's location, in the order in which the clients were added."""
    told = f"""
        FROM location_attempts
        WHERE capability = 'hydration' AND location_id = client.location_id
          AND error_class IS DISTINCT FROM '{LocationBusy.__name__}'
          AND NOT (state = 'succeeded' AND report @> '{{"dry_run": true}}')
    """
    query = text(f"""
        SELECT client.location_id, client.name, client.active, coalesce(counts.leads, 0) AS leads,
               coalesce(counts.linked, 0) AS linked, coalesce(counts.without_phone, 0) AS without_phone,
               coalesce(counts.without_name, 0) AS without_name, latest.state, latest.error_text, success.ended_at,
               coalesce(inbox.pending, 0) AS pending, coalesce(inbox.dead, 0) AS dead, inbox.oldest_seconds,
               coalesce(today.events, 0) AS events, failing.texts AS failing,
               calendar.state AS calendar, calendar.reason AS calendar_reason, calendar.stale_since,
               calendar.refreshed_at, coalesce(free.slots, 0) AS free_slots
        FROM clients AS client
        LEFT JOIN (
            SELECT client_id, count(*) AS leads,
                   count(*) FILTER (WHERE NOT {blank_sql("ghl_contact_id")}) AS linked,
                   count(*) FILTER (WHERE {blank_sql("phone")}) AS without_phone,
                   count(*) FILTER (WHERE {blank_sql("first_name")} OR {blank_sql("last_name")}) AS without_name
            FROM leads GROUP BY client_id
        ) AS counts ON counts.client_id = client.id
        LEFT JOIN LATERAL (
            SELECT state, error_text {told} ORDER BY id DESC LIMIT 1
        ) AS latest ON true
        LEFT JOIN LATERAL (
            SELECT ended_at {told} AND state = 'succeeded' ORDER BY id DESC LIMIT 1
        ) AS success ON true
        LEFT JOIN (
            SELECT client_id, count(*) FILTER (WHERE state = 'pending') AS pending,
                   count(*) FILTER (WHERE state = 'dead') AS dead,
                   extract(epoch FROM now() - min(received_at) FILTER (WHERE state = 'pending')) AS oldest_seconds
            FROM (SELECT client_id, state, received_at FROM webhook_events WHERE state = 'pending'
                  UNION ALL
                  SELECT client_id, state, received_at FROM webhook_events WHERE state = 'dead') AS waiting
            GROUP BY client_id
        ) AS inbox ON inbox.client_id = client.id
        LEFT JOIN (
            SELECT client_id, count(*) AS events FROM webhook_events
            WHERE received_at > now() - interval '1 day' GROUP BY client_id
        ) AS today ON today.client_id = client.id
        LEFT JOIN LATERAL (
            SELECT jsonb_object_agg(work.capability, last.error_text) AS texts
            FROM unnest(CAST(:others AS text[])) AS work (capability)
            CROSS JOIN LATERAL (
                SELECT state, error_text FROM location_attempts AS attempt
                WHERE attempt.capability = work.capability AND attempt.location_id = client.location_id
                  AND attempt.error_class IS DISTINCT FROM '{LocationBusy.__name__}'
                  AND NOT (state = 'succeeded' AND report @> '{{"dry_run": true}}')
                ORDER BY id DESC LIMIT 1
            ) AS last WHERE last.state = 'failed'
        ) AS failing ON true
        LEFT JOIN booking_calendars AS calendar ON calendar.client_id = client.id
          AND (btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)
        LEFT JOIN LATERAL (
            SELECT count(*) AS slots FROM availability_slots AS slot
            WHERE slot.client_id = client.id AND slot.starts_at > now()
        ) AS free ON true
        ORDER BY client.id
    """)  # noqa: S608 - the conditions are the ones above and the rule for blank
    with engine.connect() as connection:
        rows = connection.execute(query, {"others": list(OTHER_WORK)}).all()
    return [
        LocationStatus(
            row.location_id, row.name, row.active, int(row.leads), int(row.linked), int(row.without_phone),
            int(row.without_name), row.state, row.ended_at, row.error_text, int(row.pending), int(row.dead),
            None if row.oldest_seconds is None else float(row.oldest_seconds), int(row.events),
            row.failing or {}, row.calendar, row.calendar_reason, row.stale_since, int(row.free_slots),
            row.refreshed_at,
        )
        for row in rows
    ]  # fmt: skip
