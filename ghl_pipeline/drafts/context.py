"""What a draft is written from, read from the database: what was said, who it is, what the client offers."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.drafts.prompting import Offer, Said, chosen_slots
from ghl_pipeline.drafts.superseding import answered_sql, superseded_sql
from ghl_pipeline.drafts.time_zones import zone_or_utc

MOST_MESSAGES: Final = 20
# Read a little more than is shown: a message of twenty quoted e-mails need not come over the wire whole.
LONGEST_READ: Final = 8_000
# The refresh comes every half hour; times that were not looked at since morning may be taken by now.
SLOTS_KEEP: Final = timedelta(hours=4)
# Agencies also store links as people say them, without the scheme.
_IS_LINK = re.compile(r"(?:(https?:)?//)?[^\s<>\"/:@]{1,200}\.[^\s<>\"/:@.]{2,}[^\s<>\"]{0,300}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Context:
    """Of one message. `repr` shows nothing that anybody said."""

    first_name: str | None = field(repr=False)
    conversation: tuple[Said, ...] = field(repr=False)


def read_offer(connection: Connection, client_id: int, now: datetime) -> Offer | None:
    """What the client offers at this moment: its tone, and free times only while they are fresh.

    Args:
        connection: reads only.
        client_id: of the client.
        now: aware.

    Returns:
        None when no drafts are written for the client any more, or it is not active.
    """
    row = connection.execute(_OFFER, {"client_id": client_id}).one_or_none()
    if row is None:
        return None
    zone = row.calendar_zone or row.client_zone
    slots: tuple[datetime, ...] = ()
    if row.state == "fresh" and row.refreshed_at is not None and row.refreshed_at > now - SLOTS_KEEP:
        found = connection.execute(_SLOTS, {"client_id": client_id, "now": now}).scalars().all()
        slots = chosen_slots(found, row.slots_offered, zone_or_utc(zone), now)
    # Also of a kind whose free times nobody can read: leads book there all the same.
    return Offer(
        client_name=row.name,
        tone=row.tone,
        slots=slots,
        time_zone=zone_or_utc(zone).key,
        booking_link=_link(row.booking_link),
        region=row.default_region,
    )


def read_context(connection: Connection, lead_id: int, message_id: int) -> Context | None:
    """The lead's first name and what was said until the message, oldest first.

    Returns:
        None when the message is gone or another lead's, when somebody answered it, or the lead wrote on.
    """
    values = {"lead_id": lead_id, "message_id": message_id, "most": MOST_MESSAGES, "longest": LONGEST_READ}
    rows = connection.execute(_CONVERSATION, values).all()
    if not rows:
        return None
    said = tuple(Said(row.direction, row.channel, row.sent_at, row.body) for row in reversed(rows))
    return Context(rows[0].first_name, said)


def _link(stored: str | None) -> str | None:
    """The link as it is offered, with its scheme; None where there is none that leads anywhere."""
    link = (stored or "").strip()
    found = _IS_LINK.fullmatch(link)
    if found is None:
        return None
    return link if found[1] else f"https://{link.removeprefix('//')}"


_OFFER = text("""
    SELECT client.name, client.default_region, client.time_zone AS client_zone, draft_clients.tone,
        draft_clients.slots_offered, calendar.booking_link, calendar.time_zone AS calendar_zone, calendar.state,
        calendar.refreshed_at
    FROM clients AS client
    JOIN draft_clients ON draft_clients.client_id = client.id AND draft_clients.enabled
    LEFT JOIN booking_calendars AS calendar ON calendar.client_id = client.id
    WHERE client.id = :client_id AND client.active
""")

_SLOTS = text("""
    SELECT starts_at FROM availability_slots WHERE client_id = :client_id AND starts_at > :now
    ORDER BY starts_at LIMIT 2000
""")

_CONVERSATION = text(f"""
    SELECT said.direction, said.channel, said.sent_at, left(said.body, :longest) AS body, lead.first_name
    FROM messages AS trigger
    JOIN leads AS lead ON lead.id = trigger.lead_id
    JOIN messages AS said ON said.lead_id = trigger.lead_id AND (said.sent_at, said.id) <= (trigger.sent_at, trigger.id)
    WHERE trigger.id = :message_id AND trigger.lead_id = :lead_id
      AND NOT {answered_sql("trigger")} AND NOT {superseded_sql("trigger")}
    ORDER BY said.sent_at DESC, said.id DESC LIMIT :most
""")  # noqa: S608 - the conditions are our own words
