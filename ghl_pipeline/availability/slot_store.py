"""What a look at a client's calendar changes in the database: one transaction a client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from ghl_pipeline.availability.client_calendars import ClientCalendar, digest_of, remembered_as
from ghl_pipeline.availability.outcomes import State
from ghl_pipeline.availability.refresh import Looked
from ghl_pipeline.database.rows import as_json_list


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written. `is_current` is False when the link was changed meanwhile, so that nothing was."""

    slots: int
    added: int = 0
    removed: int = 0
    is_current: bool = True


def store_look(engine: Engine, calendar: ClientCalendar, looked: Looked) -> Stored:
    """Writes a look: the state, and the free times as far as they are others than before.

    A fresh look replaces them; a stale one keeps those that are still to come; without free times, or without a
    calendar that can be asked, none are left.

    Args:
        engine: the dashboard database.
        calendar: as it was read before the look.
        looked: what came of it.
    """
    with engine.begin() as connection:
        if not _is_as_read(connection, calendar):
            return Stored(calendar.future_slots, is_current=False)
        if looked.state is State.STALE:
            added, removed = 0, _remove_past(connection, calendar.client_id)
        else:
            added, removed = _replace(connection, calendar.client_id, looked.slots)
        connection.execute(_WRITE, _values(calendar, looked))
        slots = connection.execute(_COUNT, {"client_id": calendar.client_id}).scalar_one()
        return Stored(int(slots), added, removed)


def _is_as_read(connection: Connection, calendar: ClientCalendar) -> bool:
    """Whether what was resolved from is still the client's; keeps it so to the end of the transaction."""
    query = text("""
        SELECT booking_link, auto_booking_calendar_id, calendly_token_encrypted
        FROM booking_calendars WHERE client_id = :client_id FOR UPDATE
    """)
    row = connection.execute(query, {"client_id": calendar.client_id}).one_or_none()
    return row is not None and digest_of(*row) == calendar.digest


def _replace(connection: Connection, client_id: int, slots: Sequence[datetime]) -> tuple[int, int]:
    """Makes the stored times these; returns how many were added and removed."""
    new = """
        WITH new AS (
            SELECT CAST(value AS timestamptz) AS starts_at FROM json_array_elements_text(CAST(:slots AS json)) AS value
        )
    """
    remove = text(f"""
        {new}
        DELETE FROM availability_slots AS slot
        WHERE slot.client_id = :client_id AND NOT EXISTS (SELECT FROM new WHERE new.starts_at = slot.starts_at)
    """)  # noqa: S608 - our own words
    add = text(f"""
        {new}
        INSERT INTO availability_slots (client_id, starts_at)
        SELECT :client_id, starts_at FROM new ON CONFLICT DO NOTHING
    """)  # noqa: S608 - our own words
    values = {"client_id": client_id, "slots": as_json_list([slot.isoformat() for slot in slots])}
    removed = connection.execute(remove, values).rowcount
    added = connection.execute(add, values).rowcount if slots else 0
    return added, removed


def _remove_past(connection: Connection, client_id: int) -> int:
    query = text("DELETE FROM availability_slots WHERE client_id = :client_id AND starts_at <= now()")
    return connection.execute(query, {"client_id": client_id}).rowcount


# A calendar that could not be found leaves what was found before, for people; `resolved_from` says whether it counts.
_WRITE = text("""
    UPDATE booking_calendars SET
        state = :state, reason = :reason, tried_at = now(),
        refreshed_at = CASE WHEN :is_good THEN now() ELSE refreshed_at END,
        stale_since = CASE WHEN :state = 'stale' THEN coalesce(stale_since, now()) END,
        provider = coalesce(:provider, provider),
        provider_calendar_id = coalesce(:calendar_id, provider_calendar_id),
        time_zone = CASE WHEN :is_found THEN :time_zone ELSE time_zone END,
        resolved_from = CASE WHEN :is_found THEN :resolved_from ELSE resolved_from END
    WHERE client_id = :client_id
""")
_COUNT = text("SELECT count(*) FROM availability_slots WHERE client_id = :client_id")


def _values(calendar: ClientCalendar, looked: Looked) -> Mapping[str, object]:
    found = looked.resolved
    zone = None if found is None else found.zone
    # What was found without its zone is looked for again, and the zone with it.
    zone_read_on = zone.read_on if found is not None and found.is_certain and zone is not None else None
    return {
        "client_id": calendar.client_id,
        "state": looked.state.value,
        "reason": None if looked.reason is None else looked.reason.value,
        "is_good": looked.state in (State.FRESH, State.NO_SLOTS),
        "is_found": found is not None,
        "provider": None if found is None else found.provider.value,
        "calendar_id": None if found is None else found.calendar_id,
        "time_zone": None if zone is None else zone.name,
        "resolved_from": None if zone_read_on is None else remembered_as(calendar, zone_read_on),
    }
