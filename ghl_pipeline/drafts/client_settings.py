"""For which clients drafts are written, and how: the table `draft_clients`.

Functions on a connection, in the caller's transaction.
"""

from dataclasses import dataclass, field

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from ghl_pipeline.database.storable import storable_text
from ghl_pipeline.database.tables import clients, draft_clients
from ghl_pipeline.drafts.prompting import LONGEST_TONE
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import find_client

MOST_SLOTS = 10


@dataclass(frozen=True, slots=True)
class DraftClient:
    """How drafts are written for a client. `tone`: in its own words; `slots_offered`: free times a draft may name."""

    client_id: int
    location_id: str
    enabled: bool
    tone: str | None = field(repr=False)
    slots_offered: int


def set_drafts(
    connection: Connection,
    which: str,
    *,
    enabled: bool | None = None,
    tone: str | None = None,
    slots_offered: int | None = None,
) -> DraftClient:
    """Stores how drafts are written for a client; what is not given stays as it is, or is the default at first.

    Args:
        connection: in the caller's transaction.
        which: the client, as for `find_client`.
        enabled: on unless it is switched off here.
        tone: an empty one takes back what was said before.
        slots_offered: 0 to 10.

    Raises:
        UnknownClient: as `find_client`.
        InvalidInput: a tone that is too long, or a number out of bounds.
    """
    client = find_client(connection, which)
    values: dict[str, object] = {}
    if enabled is not None:
        values["enabled"] = enabled
    if tone is not None:
        words = storable_text(tone).strip()
        if len(words) > LONGEST_TONE:
            raise InvalidInput(f"The tone has {len(words)} letters; at most {LONGEST_TONE} are used. Say it in fewer.")
        values["tone"] = words or None
    if slots_offered is not None:
        if not 0 <= slots_offered <= MOST_SLOTS:
            raise InvalidInput(f"A draft may offer 0 to {MOST_SLOTS} free times, not {slots_offered}.")
        values["slots_offered"] = slots_offered
    connection.execute(insert(draft_clients).values(client_id=client.id, **values).on_conflict_do_nothing())
    if values:
        connection.execute(update(draft_clients).where(draft_clients.c.client_id == client.id).values(values))
    found = find_draft_client(connection, client.location_id)
    assert found is not None  # noqa: S101 - it was written above
    return found


def find_draft_client(connection: Connection, location_id: str) -> DraftClient | None:
    """How drafts are written for the location's client; None when it never was switched on."""
    table = draft_clients
    row = connection.execute(
        select(table.c.client_id, clients.c.location_id, table.c.enabled, table.c.tone, table.c.slots_offered)
        .join(clients, clients.c.id == table.c.client_id)
        .where(clients.c.location_id == location_id)
    ).one_or_none()
    return None if row is None else DraftClient(**row._mapping)


def switched_on(connection: Connection) -> frozenset[str]:
    """The locations of active clients for which drafts are written."""
    query = (
        select(clients.c.location_id)
        .join(draft_clients, draft_clients.c.client_id == clients.c.id)
        .where(draft_clients.c.enabled, clients.c.active)
    )
    return frozenset(connection.execute(query).scalars())
