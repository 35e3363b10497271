"""Alerts wait here until each channel has taken them: an outage of Slack loses none and holds up nothing.

A delivery is claimed, sent, and only then marked, so that one whose process dies in between is sent again: at least
once. It is tried again with growing pauses and given up after a day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection, Engine, text

from ghl_pipeline.operations.alerting.alerts import NAMED_LOCATIONS, Alert, AlertKind

# How long a claim holds: more than an attempt takes.
CLAIMED_FOR: Final = timedelta(minutes=1)
FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(hours=1)
GIVEN_UP_AFTER: Final = timedelta(days=1)

# Locked, so that nobody claims it while something is added. One that anybody has tried to send is closed.
_GATHERING = text("""
    SELECT alert.id, alert.made_at,
           NOT EXISTS (SELECT FROM alert_deliveries AS delivery
                       WHERE delivery.alert_id = alert.id AND (delivery.state <> 'waiting' OR delivery.attempts > 0))
           AS is_open, now() AS now
    FROM alerts AS alert
    WHERE capability = :capability AND error_class = :error_class AND kind = :kind
    ORDER BY id DESC LIMIT 1
    FOR UPDATE
""")
_LOCK = text("SELECT attempts FROM alert_deliveries WHERE alert_id = :id FOR UPDATE")
_ADD = text("""
    UPDATE alerts
    SET location_count = location_count + :location_count, suppressed = suppressed + :suppressed,
        locations = (SELECT coalesce(jsonb_agg(named.location_id ORDER BY named.nth), '[]')
                     FROM jsonb_array_elements_text(locations || CAST(:locations AS jsonb))
                         WITH ORDINALITY AS named (location_id, nth)
                     WHERE named.nth <= :named)
    WHERE id = :id
""")
_INSERT = text("""
    WITH alert AS (
        INSERT INTO alerts (kind, capability, error_class, locations, location_count, suppressed, error_text, run_id)
        VALUES (:kind, :capability, :error_class, CAST(:locations AS jsonb), :location_count, :suppressed, :error_text,
                :run_id)
        RETURNING id
    )
    INSERT INTO alert_deliveries (alert_id, channel, due_at)
    SELECT id, channel, coalesce(CAST(:due_at AS timestamptz), now())
    FROM alert CROSS JOIN unnest(CAST(:channels AS text[])) AS channel
""")
_COLUMNS = """alert.id, alert.kind, alert.capability, alert.error_class, alert.locations, alert.location_count,
    alert.suppressed, alert.error_text, alert.run_id, alert.made_at"""
_CLAIM = text(f"""
    WITH due AS (
        SELECT alert_id, channel FROM alert_deliveries
        WHERE state = 'waiting' AND due_at <= now() AND channel <> ALL(CAST(:without AS text[]))
        ORDER BY due_at, alert_id LIMIT 1
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE alert_deliveries AS delivery
        SET attempts = attempts + 1, due_at = now() + :claimed_for
        FROM due WHERE delivery.alert_id = due.alert_id AND delivery.channel = due.channel
        RETURNING delivery.alert_id, delivery.channel, delivery.attempts
    )
    SELECT claimed.channel, claimed.attempts, {_COLUMNS}
    FROM claimed JOIN alerts AS alert ON alert.id = claimed.alert_id
""")  # noqa: S608 - columns of ours
_SENT = text("""
    UPDATE alert_deliveries SET state = 'sent', ended_at = now(), reason = NULL
    WHERE alert_id = :alert_id AND channel = :channel
""")
_NOT_TAKEN = text("""
    UPDATE alert_deliveries AS delivery
    SET reason = :reason, due_at = now() + :pause,
        state = CASE WHEN :is_final OR alert.made_at < now() - :given_up_after THEN 'given_up' ELSE 'waiting' END,
        ended_at = CASE WHEN :is_final OR alert.made_at < now() - :given_up_after THEN now() END
    FROM alerts AS alert
    WHERE alert.id = delivery.alert_id AND delivery.alert_id = :alert_id AND delivery.channel = :channel
    RETURNING delivery.state
""")
_LIST = text(f"""
    SELECT {_COLUMNS},
           (SELECT coalesce(jsonb_object_agg(
                channel, jsonb_build_object('state', state, 'attempts', attempts, 'reason', reason)), '{{}}')
            FROM alert_deliveries WHERE alert_id = alert.id) AS deliveries
    FROM alerts AS alert ORDER BY id DESC LIMIT :most
""")  # noqa: S608 - columns of ours


@dataclass(frozen=True, slots=True)
class Group:
    """News that is told together: one kind of work, one error. Fields as those of `Alert`."""

    kind: AlertKind
    capability: str
    error_class: str
    locations: Sequence[str]
    location_count: int
    suppressed: int
    error_text: str | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An alert that is to be sent to a channel now; `attempts` counts this one."""

    alert: Alert
    channel: str
    attempts: int


class DeliveryState(msgspec.Struct, frozen=True):
    """How an alert's way to a channel stands: waiting, sent or given_up; `reason`: why it was not taken."""

    state: str
    attempts: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert, and its way to each channel by the channel's name."""

    alert: Alert
    deliveries: dict[str, DeliveryState]


def store(connection: Connection, group: Group, channels: Sequence[str], *, gather: timedelta) -> None:
    """Stores an alert for each channel, or adds to the one of the same kind that waits.

    Args:
        connection: in a transaction.
        group: what is told.
        channels: names of those that are to tell it.
        gather: one of the same kind that was made less than this ago is followed by one more when it has passed; what
            comes until then is added to that.
    """
    values: dict[str, object] = {
        "kind": group.kind.value,
        "capability": group.capability,
        "error_class": group.error_class,
        "locations": msgspec.json.encode(group.locations).decode(),
        "location_count": group.location_count,
        "suppressed": group.suppressed,
        "error_text": group.error_text,
        "run_id": group.run_id,
    }
    last = connection.execute(_GATHERING, values).one_or_none()
    if last is not None:
        # Claimed just now by somebody who has not sent it yet: then it is closed too.
        attempts = connection.execute(_LOCK, {"id": last.id}).scalars().all()
        if last.is_open and not any(attempts):
            connection.execute(_ADD, {**values, "id": last.id, "named": NAMED_LOCATIONS})
            return
    due_at = last.made_at + gather if last is not None and last.made_at + gather > last.now else None
    connection.execute(_INSERT, {**values, "channels": list(channels), "due_at": due_at})


def claim_next(engine: Engine, *, without: Sequence[str]) -> Delivery | None:
    """Takes the delivery that is due for longest; None when there is none, or only of the channels in `without`."""
    values = {"without": list(without), "claimed_for": CLAIMED_FOR}
    with engine.begin() as connection:
        row = connection.execute(_CLAIM, values).one_or_none()
    return None if row is None else Delivery(_alert(row), row.channel, row.attempts)


def sent(engine: Engine, delivery: Delivery) -> None:
    """The channel has taken it."""
    with engine.begin() as connection:
        connection.execute(_SENT, {"alert_id": delivery.alert.id, "channel": delivery.channel})


def not_taken(
    engine: Engine, delivery: Delivery, reason: str, *, pause: timedelta | None = None, is_final: bool = False
) -> bool:
    """The channel has not taken it. It is tried again after `pause`, if longer than its own; or never (`is_final`).

    Returns:
        Whether it was given up.
    """
    # Beyond 2**10 the doubling would only overflow; the longest pause is reached long before.
    own = min(FIRST_PAUSE * 2 ** min(delivery.attempts - 1, 10), LONGEST_PAUSE)
    values = {
        "alert_id": delivery.alert.id,
        "channel": delivery.channel,
        "reason": reason,
        "pause": max(own, min(pause or own, LONGEST_PAUSE)),
        "is_final": is_final,
        "given_up_after": GIVEN_UP_AFTER,
    }
    with engine.begin() as connection:
        return bool(connection.execute(_NOT_TAKEN, values).scalar_one() == "given_up")


def list_alerts(connection: Connection, most: int) -> list[StoredAlert]:
    """The latest alerts, newest first."""
    return [
        StoredAlert(_alert(row), msgspec.convert(row.deliveries, dict[str, DeliveryState]))
        for row in connection.execute(_LIST, {"most": most})
    ]


class _Row(msgspec.Struct):
    id: int
    kind: AlertKind
    capability: str
    error_class: str
    locations: list[str]
    location_count: int
    suppressed: int
    error_text: str | None
    run_id: str | None
    made_at: datetime


def _alert(row: object) -> Alert:
    read = msgspec.convert(row, _Row, from_attributes=True)
    return Alert(**{name: getattr(read, name) for name in _Row.__struct_fields__})
