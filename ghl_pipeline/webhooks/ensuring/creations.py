"""What is noted of each contact that was to be created: before GHL is told, so that a kill leaves a trace, and after.

One row per client and address. The row is what keeps a second create away when the first one's answer was lost; times
are the database's, so that processes on different machines agree on how old a note is.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Row, text

# How long after a create was noted nobody can say that there is no contact: it may be under way for
# `ensure.CREATE_SECONDS`, and GHL's search was seen to lag behind writes by up to a minute.
UNSETTLED_SECONDS = 120.0


class CreationState(StrEnum):
    """How far a creation came."""

    STARTED = "started"  # GHL may have been told; what came of it is not known
    CREATED = "created"
    FOUND = "found"  # GHL had the contact already
    REFUSED = "refused"  # nothing was created, and that is certain


@dataclass(frozen=True, slots=True)
class Creation:
    """A row of `contact_creations`. `settled_at`: from then on a contact that cannot be found was not created."""

    id: int
    state: CreationState
    contact_id: str | None
    phone_refused: bool
    settled_at: datetime
    is_unsettled: bool

    def made(self, contact_id: str) -> bool:
        """Whether the contact is what was created."""
        return self.state is CreationState.CREATED and self.contact_id == contact_id


_COLUMNS = """
    id, state, contact_id, phone_refused, started_at + make_interval(secs => :unsettled) AS settled_at,
    state = 'started' AND started_at > now() - make_interval(secs => :unsettled) AS is_unsettled
"""


def find_creation(connection: Connection, client_id: int, address: str) -> Creation | None:
    """What is noted of the client's address, as `hydration.matching.normal_address` gives it."""
    query = text(f"SELECT {_COLUMNS} FROM contact_creations WHERE client_id = :client_id AND address = :address")  # noqa: S608 - a constant of ours
    values = {"client_id": client_id, "address": address, "unsettled": UNSETTLED_SECONDS}
    return _creation(connection.execute(query, values).one_or_none())


def begin_creation(connection: Connection, client_id: int, address: str, lead_id: int) -> Creation | None:
    """Notes that a contact is about to be created. GHL may be told once this is committed.

    Returns:
        The note; None when another one is unsettled, so that nobody may create now.
    """
    statement = text(f"""
        INSERT INTO contact_creations AS noted (client_id, address, lead_id)
        VALUES (:client_id, :address, :lead_id)
        ON CONFLICT (client_id, address) DO UPDATE
        SET lead_id = excluded.lead_id, state = 'started', contact_id = NULL, error_class = NULL, started_at = now(),
            ended_at = NULL, phone_refused = noted.phone_refused AND noted.state = 'started'
        WHERE noted.state <> 'started' OR noted.started_at <= now() - make_interval(secs => :unsettled)
        RETURNING {_COLUMNS}
    """)  # noqa: S608 - a constant of ours
    values = {"client_id": client_id, "address": address, "lead_id": lead_id, "unsettled": UNSETTLED_SECONDS}
    return _creation(connection.execute(statement, values).one_or_none())


def note_phone_refused(connection: Connection, creation_id: int) -> None:
    """Notes that GHL did not take the phone, so that nobody sends it again for this creation."""
    connection.execute(text("UPDATE contact_creations SET phone_refused = true WHERE id = :id"), {"id": creation_id})


def end_creation(
    connection: Connection,
    creation_id: int,
    state: CreationState,
    *,
    contact_id: str | None = None,
    error_class: str | None = None,
) -> None:
    """Notes what came of it."""
    statement = text("""
        UPDATE contact_creations
        SET state = :state, contact_id = :contact_id, error_class = :error_class, ended_at = now()
        WHERE id = :id
    """)
    values = {"id": creation_id, "state": state, "contact_id": contact_id, "error_class": error_class}
    connection.execute(statement, values)


def _creation(row: Row[tuple[object, ...]] | None) -> Creation | None:
    if row is None:
        return None
    return Creation(
        row.id, CreationState(row.state), row.contact_id, row.phone_refused, row.settled_at, row.is_unsettled
    )
