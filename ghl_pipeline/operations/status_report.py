"""How every location stands, read in sets: one statement a subject, whatever the number of locations. Counts only.

Leads are not counted here: `lead_counts.py` keeps their counts, each as of its own time. What is judged and shown
(`judging.py`, `report.py`, `ghl-pipeline status`) is all read here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, Engine, Row, text

from ghl_pipeline.operations.work_standing import WorkStanding, in_order, read_standings


@dataclass(frozen=True, slots=True)
class LocationStatus:
    """One client's location.

    Counts are leads: all, linked to a contact, without a phone, without a name (first or last), looked up in GHL, and
    of those not found there; all as of `counted_at` (None: never counted).

    `work` is how the latest attempt at each kind of work ended; one that found the location busy, and a dry run that
    succeeded, say nothing of it. `expected`: what should go on there, since when. `last_state`, `last_success` and
    `error` are those of hydration (None: never tried); `failing` what the other work said, as far as it failed;
    `waiting` what becomes of it: held and why, or again when.

    Of the inbox: `events_pending` wait to be handled, the oldest for `oldest_pending_seconds`; one that could have been
    handled waits for `overdue_seconds`; `events_dead` failed for the last time and wait for a person; `events_last_day`
    came in the last 24 hours.

    `requests_today` were made to GHL since midnight UTC by all work, of `requests_per_day` (None: never asked).

    `calendar` says how the client's free times stand: never, fresh, no_slots, stale or unsupported (None: the client
    has no calendar); `calendar_reason` why, `calendar_stale_since` since when, `free_slots` how many are to come,
    `calendar_refreshed_at` as of when they are (None: never), `calendar_since` since when there is a calendar.
    """

    location: str
    client: str
    active: bool
    leads: int = 0
    linked: int = 0
    without_phone: int = 0
    without_name: int = 0
    last_state: str | None = None
    last_success: datetime | None = None
    error: str | None = None
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
    calendar_since: datetime | None = None
    looked_up: int = 0
    not_found: int = 0
    counted_at: datetime | None = None
    overdue_seconds: float | None = None
    requests_today: int = 0
    requests_per_day: int | None = None
    has_token: bool = True
    waiting: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, datetime] = field(default_factory=dict)
    work: Mapping[str, WorkStanding] = field(default_factory=dict)

    @property
    def unlinked(self) -> int:
        """Leads without a contact."""
        return self.leads - self.linked

    @property
    def quota_share(self) -> float:
        """Of the day's requests, how many are used: 0 to 1."""
        return self.requests_today / self.requests_per_day if self.requests_per_day else 0.0

    @property
    def held(self) -> dict[str, WorkStanding]:
        """The work that waits for a person."""
        return {name: standing for name, standing in self.work.items() if standing.is_held}

    @property
    def failed(self) -> dict[str, WorkStanding]:
        """The work whose latest attempt failed or was cut short."""
        return {name: standing for name, standing in self.work.items() if standing.has_failed}


@dataclass(frozen=True, slots=True)
class Inbox:
    """The events of a location, or of those that no client has, as `LocationStatus` names them."""

    pending: int = 0
    dead: int = 0
    oldest_seconds: float | None = None
    overdue_seconds: float | None = None


def read_status(engine: Engine, location_id: str | None = None) -> list[LocationStatus]:
    """The status of every client's location, in the order in which the clients were added; or of one location."""
    with engine.connect() as connection:
        query = _ALL_CLIENTS if location_id is None else _ONE_CLIENT
        clients = connection.execute(query, {"location_id": location_id}).all()
        standings = read_standings(connection, location_id)
        inboxes = _inboxes(connection, location_id)
        today: dict[int, int] = {
            row.client_id: row.events for row in connection.execute(_EVENTS_TODAY, {"location_id": location_id})
        }
    return [
        _status(row, in_order(standings.get(row.location_id, {})), inboxes.get(row.id, Inbox()), today.get(row.id, 0))
        for row in clients
    ]


def _status(row: Row[tuple[object, ...]], work: Mapping[str, WorkStanding], inbox: Inbox, today: int) -> LocationStatus:
    hydration = work.get("hydration")
    others = {name: standing for name, standing in work.items() if name != "hydration"}
    failing = {name: it.error or it.state for name, it in others.items() if it.state == "failed"}
    return LocationStatus(
        location=row.location_id,
        client=row.name,
        active=row.active,
        leads=row.leads,
        linked=row.linked,
        without_phone=row.without_phone,
        without_name=row.without_name,
        looked_up=row.looked_up,
        not_found=row.not_found,
        counted_at=row.counted_at,
        last_state=hydration.state if hydration else None,
        last_success=hydration.succeeded_at if hydration else None,
        error=hydration.error if hydration and hydration.state in {"failed", "interrupted"} else None,
        failing=failing,
        waiting={name: waiting for name, standing in work.items() if (waiting := standing.waiting)},
        work=work,
        expected={name: since for name in _EXPECTED if (since := getattr(row, f"expects_{name}")) is not None},
        events_pending=inbox.pending,
        events_dead=inbox.dead,
        oldest_pending_seconds=inbox.oldest_seconds,
        overdue_seconds=inbox.overdue_seconds,
        events_last_day=today,
        requests_today=row.requests_today,
        requests_per_day=row.max_per_day,
        has_token=row.has_token,
        calendar=row.calendar,
        calendar_reason=row.calendar_reason,
        calendar_stale_since=row.stale_since,
        calendar_refreshed_at=row.refreshed_at,
        calendar_since=row.calendar_since,
        free_slots=row.free_slots,
    )


def _inboxes(connection: Connection, location_id: str | None) -> dict[int, Inbox]:
    return {
        row.client_id: Inbox(row.pending, row.dead, _seconds(row.oldest), _seconds(row.overdue))
        for row in connection.execute(_INBOXES, {"location_id": location_id})
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)


# Work with a rhythm, and since when it is to be expected there; null where it is not.
_EXPECTED = ("hydration", "conversations", "reconcile", "crm", "availability", "senders")
_HAS_CALENDAR = "(btrim(calendar.booking_link) <> '' OR calendar.auto_booking_calendar_id IS NOT NULL)"
_CLIENTS = f"""
    SELECT client.id, client.location_id, client.name, client.active, client.has_token,
           coalesce(figures.leads, 0) AS leads, coalesce(figures.linked, 0) AS linked,
           coalesce(figures.without_phone, 0) AS without_phone, coalesce(figures.without_name, 0) AS without_name,
           coalesce(figures.looked_up, 0) AS looked_up, coalesce(figures.not_found, 0) AS not_found,
           figures.counted_at,
           CASE WHEN throttle.day = (now() AT TIME ZONE 'UTC')::date THEN throttle.used_today ELSE 0
               END AS requests_today, throttle.max_per_day,
           calendar.state AS calendar, calendar.reason AS calendar_reason, calendar.stale_since,
           calendar.refreshed_at, calendar.created_at AS calendar_since, coalesce(free.slots, 0) AS free_slots,
           CASE WHEN client.works THEN client.created_at END AS expects_hydration,
           CASE WHEN client.works THEN client.created_at END AS expects_conversations,
           CASE WHEN client.active THEN workspace.created_at END AS expects_reconcile,
           CASE WHEN client.active THEN workspace.created_at END AS expects_senders,
           CASE WHEN client.works THEN crm.created_at END AS expects_crm,
           CASE WHEN client.active THEN calendar.created_at END AS expects_availability
    FROM (
        SELECT *, ghl_token_encrypted IS NOT NULL AS has_token, active AND ghl_token_encrypted IS NOT NULL AS works
        FROM clients WHERE CAST(:location_id AS text) IS NULL OR location_id = :location_id
    ) AS client
    LEFT JOIN location_figures AS figures ON figures.location_id = client.location_id
    LEFT JOIN location_throttle AS throttle ON throttle.location_id = client.location_id
    LEFT JOIN emailbison_workspaces AS workspace ON workspace.client_id = client.id
      AND workspace.token_encrypted IS NOT NULL
    LEFT JOIN crm_clients AS crm ON crm.client_id = client.id AND crm.enabled
    LEFT JOIN booking_calendars AS calendar ON calendar.client_id = client.id AND {_HAS_CALENDAR}
    LEFT JOIN %s AS free ON free.client_id = calendar.client_id
    ORDER BY client.id
"""  # noqa: S608 - the condition above
# Of all calendars in one go: a look at each by itself takes three times as long.
_ALL_CLIENTS = text(
    _CLIENTS % "(SELECT client_id, count(*) AS slots FROM availability_slots WHERE starts_at > now() GROUP BY 1)"
)
_ONE_CLIENT = text(
    _CLIENTS
    % """LATERAL (
        SELECT slot.client_id, count(*) AS slots FROM availability_slots AS slot
        WHERE slot.client_id = calendar.client_id AND slot.starts_at > now() GROUP BY 1
    )"""
)

_INBOXES = text("""
    SELECT client_id, count(*) FILTER (WHERE state = 'pending') AS pending,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           extract(epoch FROM now() - min(received_at) FILTER (WHERE state = 'pending')) AS oldest,
           extract(epoch FROM now() - min(due_at) FILTER (
               WHERE state = 'pending' AND due_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
           )) AS overdue
    FROM (SELECT client_id, state, received_at, due_at, claimed_until, location_id
          FROM webhook_events WHERE state = 'pending'
          UNION ALL
          SELECT client_id, state, received_at, due_at, claimed_until, location_id
          FROM webhook_events WHERE state = 'dead') AS waiting
    WHERE client_id IS NOT NULL AND (CAST(:location_id AS text) IS NULL OR location_id = :location_id)
    GROUP BY client_id
""")

# By the index of bodies: those of the last day have theirs.
_EVENTS_TODAY = text("""
    SELECT client_id, count(*) AS events FROM webhook_events
    WHERE body IS NOT NULL AND received_at > now() - interval '1 day' AND client_id IS NOT NULL
      AND (CAST(:location_id AS text) IS NULL OR location_id = :location_id)
    GROUP BY client_id
""")
