"""Who handles which events: claims on the inbox, and how each event leaves one.

A claim is a name and an end time in the event's row. A worker that is killed leaves claims that run out, and its events
are taken over. An event counts an attempt when it is claimed, so that one that kills its process ends as a dead letter
too; a failure that is the location's, not the event's, gives the attempt back.

What is done with an event is not here, nor what a person does with a dead one (`dead_letters.py`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, text

from ghl_pipeline.database.rows import as_array, as_json_rows
from ghl_pipeline.errors import LocationBusy, PipelineError
from ghl_pipeline.locations.clients import TokenMissing
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.outcomes import EventOutcome

HANDLING = "webhooks"

FIRST_PAUSE_SECONDS = 10
LONGEST_PAUSE_SECONDS = 3600
# A location that refused (its token, its daily quota) refuses until somebody acts or midnight comes.
REST_AFTER_REFUSAL_SECONDS = 600
REST_AFTER_FAILURE_SECONDS = 10


class HandlerDied(PipelineError):
    """Whatever process handled the event ended in the middle of it, every time."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An event that is ours for a while. Its `repr` does not show the body."""

    id: int
    provider: Provider
    event_type: str
    body: bytes | None = field(repr=False)
    lead_id: int | None
    received_at: datetime
    occurred_at: datetime | None
    attempts: int
    found_by: str = "webhook"


@dataclass(frozen=True, slots=True)
class Done:
    """An event that was handled: what became of it, and whom it was about."""

    event_id: int
    outcome: EventOutcome
    lead_id: int | None = None


@dataclass(frozen=True, slots=True)
class Postponed:
    """An event that failed: its error as it may be shown.

    With `retry_at` it is tried again then, and the attempt does not count; else after a pause that doubles.
    """

    event_id: int
    error_class: str
    error_text: str
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Setback:
    """What became of events that failed."""

    postponed: int = 0
    dead: int = 0


# Of a body that is kept out of line the length is known without reading it.
MOST_BYTES_AT_ONCE = 16 * 1024 * 1024

_IS_DUE = "state = 'pending' AND due_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())"
# `claimed_until IS NULL` left out: the two are set together, and this way the index of claims is enough.
_IS_ABANDONED = "state = 'pending' AND due_at <= now() AND claimed_by IS NOT NULL AND claimed_until <= now()"
_LACKS_TOKEN = TokenMissing.__name__

_DUE_LOCATIONS = text(f"""
    SELECT client.location_id FROM clients AS client
    WHERE client.active
      AND EXISTS (SELECT FROM webhook_events AS event
                  WHERE event.location_id = client.location_id AND event.client_id = client.id AND {_IS_DUE}
                    AND (client.ghl_token_encrypted IS NOT NULL OR event.error_class IS DISTINCT FROM '{_LACKS_TOKEN}'))
      AND NOT (:rested AND EXISTS (
          SELECT FROM (SELECT state, permanent, error_class, ended_at FROM location_attempts
                       WHERE capability = '{HANDLING}' AND location_id = client.location_id
                       ORDER BY id DESC LIMIT 1) AS latest
          WHERE latest.state = 'failed' AND latest.error_class <> '{LocationBusy.__name__}'
            AND latest.ended_at > now() - make_interval(secs =>
                CASE WHEN latest.permanent OR latest.error_class IN ('DailyQuotaReached', '{_LACKS_TOKEN}')
                     THEN {REST_AFTER_REFUSAL_SECONDS} ELSE {REST_AFTER_FAILURE_SECONDS} END)))
    ORDER BY client.id
""")  # noqa: S608 - constants of ours


def due_locations(connection: Connection, *, rested: bool = False) -> list[str]:
    """Locations of active clients that have an event to handle now, in the order of the clients.

    Without a token some events can be handled all the same (an opt-out, a bounce). One that was given back because it
    needs GHL makes its location due again only when the client has a token.

    Args:
        connection: reads only.
        rested: leave out locations whose last handling failed a moment ago. New events are due at once, so a revoked
            token would otherwise start, and fail, a run for each.
    """
    return list(connection.execute(_DUE_LOCATIONS, {"rested": rested}).scalars())


_BURY = text(f"""
    UPDATE webhook_events AS event
    SET state = 'dead', claimed_by = NULL, claimed_until = NULL, error_class = :error_class, error_text = :error_text
    WHERE id = ANY(ARRAY(
        SELECT id FROM webhook_events
        WHERE location_id = :location_id AND {_IS_ABANDONED} AND attempts >= :max_attempts
        FOR NO KEY UPDATE SKIP LOCKED))
""")  # noqa: S608 - constants of ours

# Abandoned once: the process was stopped or killed, and its batch goes on as a batch. Abandoned more often: perhaps an
# event that kills whoever touches it.
_MAY_KILL = "(claimed_by IS NOT NULL AND attempts >= least(2, :max_attempts - 1))"

# The first event is taken however large it is. `SKIP LOCKED` locks what is looked at, which is all given back at the
# commit but what was claimed. By `ANY(ARRAY())`: a join would be planned for the rows that the CTE is guessed to have.
_CLAIM = """
    WITH due AS (
        SELECT id, coalesce(octet_length(body), 0) AS size FROM webhook_events
        WHERE location_id = :location_id AND client_id IS NOT NULL AND {which}
        ORDER BY id LIMIT :size FOR NO KEY UPDATE SKIP LOCKED
    ), counted AS (
        SELECT id, sum(size) OVER (ORDER BY id) AS bytes, row_number() OVER (ORDER BY id) AS place FROM due
    )
    UPDATE webhook_events AS event
    SET attempts = event.attempts + 1, claimed_by = :holder, claimed_until = now() + make_interval(secs => :seconds)
    WHERE event.id = ANY(ARRAY(SELECT id FROM counted WHERE bytes <= :most_bytes OR place = 1))
    RETURNING event.id, event.provider, event.event_type, event.body, event.lead_id, event.received_at,
              event.occurred_at, event.attempts, event.found_by
"""
_CLAIM_BATCH = text(_CLAIM.format(which=f"{_IS_DUE} AND NOT {_MAY_KILL}"))
_CLAIM_ABANDONED = text(_CLAIM.format(which=f"{_IS_ABANDONED} AND attempts = :attempts"))
_FEWEST_ATTEMPTS = text(f"""
    SELECT min(attempts) FROM webhook_events
    WHERE location_id = :location_id AND client_id IS NOT NULL AND {_IS_ABANDONED} AND {_MAY_KILL}
""")  # noqa: S608 - constants of ours


def claim(
    connection: Connection,
    location_id: str,
    holder: str,
    *,
    size: int,
    lease_seconds: float,
    max_attempts: int,
    most_bytes: int = MOST_BYTES_AT_ONCE,
) -> list[Claimed]:
    """Takes due events of a location, in the order in which they came; what others are taking is passed over.

    Args:
        connection: in a transaction of its own, which the caller commits at once.
        location_id: whose events.
        holder: names this claim and no other; `finish`, `postpone`, `release` and `renew` want it again.
        size: at most so many events.
        lease_seconds: until others may take them over.
        max_attempts: an event whose claims ran out so often is buried as a dead letter.
        most_bytes: of bodies together; a larger one comes alone.

    Returns:
        Nothing when nothing is due.
    """
    died = HandlerDied("HandlerDied: the process that handled this event ended every time. See its log, then replay it")
    values = {"location_id": location_id, "max_attempts": max_attempts}
    connection.execute(_BURY, {**values, "error_class": HandlerDied.__name__, "error_text": str(died)})
    values |= {"holder": holder, "seconds": lease_seconds, "most_bytes": most_bytes}
    rows = connection.execute(_CLAIM_BATCH, {**values, "size": size}).all()
    if not rows and (attempts := connection.execute(_FEWEST_ATTEMPTS, values).scalar()) is not None:
        smaller = abandoned_batch_size(size, attempts, max_attempts)
        rows = connection.execute(_CLAIM_ABANDONED, {**values, "attempts": attempts, "size": smaller}).all()
    return [
        Claimed(
            row.id, Provider(row.provider), row.event_type, row.body, row.lead_id, row.received_at, row.occurred_at,
            row.attempts, row.found_by,
        )
        for row in sorted(rows, key=lambda row: int(row.id))
    ]  # fmt: skip


def abandoned_batch_size(size: int, attempts: int, max_attempts: int) -> int:
    """How many events are tried together that were abandoned so often: fewer each time, and in the end one.

    One of them may kill whoever touches it. The last attempt is alone, so that it takes none with it; but a deployment
    that stopped the handler twice must not turn 200 events into 200 batches.
    """
    if attempts <= 1 < max_attempts - 1:
        return size
    left, steps = max_attempts - 1 - attempts, max_attempts - 2
    return max(1, min(size >> attempts - 1, int(size ** (left / steps)))) if left > 0 else 1


_RENEW = text("""
    UPDATE webhook_events SET claimed_until = now() + make_interval(secs => :seconds)
    WHERE location_id = :location_id AND state = 'pending' AND claimed_by = :holder
""")


def renew(connection: Connection, location_id: str, holder: str, lease_seconds: float) -> int:
    """Keeps what the holder has claimed for that much longer from now; returns how many events it still has."""
    values = {"location_id": location_id, "holder": holder, "seconds": lease_seconds}
    return connection.execute(_RENEW, values).rowcount


def finish(connection: Connection, holder: str, events: Sequence[Done]) -> int:
    """Marks events as done. One whose claim was lost meanwhile is left to whom it belongs now.

    Returns:
        How many were still the holder's.
    """
    query = text("""
        UPDATE webhook_events AS event
        SET state = 'done', outcome = new.outcome, handled_at = now(), claimed_by = NULL, claimed_until = NULL,
            error_class = NULL, error_text = NULL,
            lead_id = coalesce((SELECT id FROM leads AS lead WHERE lead.id = new.lead_id FOR KEY SHARE), event.lead_id)
        FROM json_to_recordset(CAST(:rows AS json)) AS new (id bigint, outcome text, lead_id bigint)
        WHERE event.id = new.id AND event.state = 'pending' AND event.claimed_by = :holder
    """)
    rows = [{"id": done.event_id, "outcome": done.outcome, "lead_id": done.lead_id} for done in events]
    return connection.execute(query, {"rows": as_json_rows(rows), "holder": holder}).rowcount if rows else 0


def postpone(connection: Connection, holder: str, events: Sequence[Postponed], *, max_attempts: int) -> Setback:
    """Puts events that failed back: tried again after 10 s, doubling up to an hour; dead after `max_attempts`."""
    query = text(f"""
        UPDATE webhook_events AS event
        SET state = CASE WHEN new.retry_at IS NULL AND event.attempts >= :max_attempts THEN 'dead' ELSE 'pending' END,
            attempts = event.attempts - CASE WHEN new.retry_at IS NULL THEN 0 ELSE 1 END,
            due_at = coalesce(new.retry_at, now() + make_interval(secs =>
                (0.75 + 0.5 * random()) * least({LONGEST_PAUSE_SECONDS},
                    {FIRST_PAUSE_SECONDS} * power(2, least(event.attempts, 20) - 1)))),
            claimed_by = NULL, claimed_until = NULL, error_class = new.error_class, error_text = new.error_text
        FROM json_to_recordset(CAST(:rows AS json)) AS new (
            id bigint, error_class text, error_text text, retry_at timestamptz)
        WHERE event.id = new.id AND event.state = 'pending' AND event.claimed_by = :holder
        RETURNING event.state
    """)  # noqa: S608 - constants of ours
    if not events:
        return Setback()
    rows = [
        {"id": e.event_id, "error_class": e.error_class, "error_text": e.error_text, "retry_at": e.retry_at}
        for e in events
    ]
    values = {"rows": as_json_rows(rows), "holder": holder, "max_attempts": max_attempts}
    states = connection.execute(query, values).scalars().all()
    return Setback(postponed=states.count("pending"), dead=states.count("dead"))


def release(
    connection: Connection, holder: str, event_ids: Collection[int], *, error: tuple[str, str] | None, due_at: datetime
) -> int:
    """Gives events back untried, because their location as a whole failed: the attempt does not count.

    Args:
        connection: in the caller's transaction.
        holder: who claimed them.
        event_ids: which.
        error: class and text of the location's error, for whoever looks at a waiting event; None: it was stopped.
        due_at: when they are tried again.
    """
    query = text("""
        UPDATE webhook_events
        SET attempts = greatest(attempts - 1, 0), due_at = :due_at, claimed_by = NULL, claimed_until = NULL,
            error_class = :error_class, error_text = :error_text
        WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'pending' AND claimed_by = :holder
    """)
    error_class, error_text = error or (None, None)
    values = {
        "ids": as_array(event_ids),
        "holder": holder,
        "due_at": due_at,
        "error_class": error_class,
        "error_text": error_text,
    }
    return connection.execute(query, values).rowcount if event_ids else 0
