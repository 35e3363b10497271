"""What is noted of each contact that was to be created: before GHL is told, so that a kill leaves a trace, and after.

One row per client and address. The row is what keeps a second create away when the first one's answer was lost; times
are the database's, so that processes on different machines agree on how old a note is.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, Row, text

from ghl_pipeline.webhooks.ensuring.own_fields import HAS_OPTED_OUT, OwnLead

# How long after a create was noted nobody can say that there is no contact: it may be under way for
# `ensure.CREATE_SECONDS`, and GHL's search was seen to lag behind writes by up to a minute.
UNSETTLED_SECONDS = 120.0

# GHL's clock is not the database's, and the first of two creates was noted a minute or two before the second.
CLOCKS_DIFFER_BY = timedelta(minutes=5)


class CreationState(StrEnum):
    """How far a creation came."""

    STARTED = "started"  # GHL may have been told; what came of it is not known
    CREATED = "created"
    FOUND = "found"  # GHL had the contact already
    REFUSED = "refused"  # nothing was created, and that is certain


@dataclass(frozen=True, slots=True)
class Creation:
    """A row of `contact_creations`. `settled_at`: from then on a contact that cannot be found was not created.

    `lead_id` is the lead that it was begun for, None when that one is no more.
    """

    id: int
    lead_id: int | None
    address: str = field(repr=False)
    state: CreationState
    contact_id: str | None
    phone_refused: bool
    started_at: datetime
    settled_at: datetime
    is_unsettled: bool

    def made(self, contact_id: str) -> bool:
        """Whether the contact is what was created."""
        return self.state is CreationState.CREATED and self.contact_id == contact_id

    def may_have_made(self, added_at: datetime | None) -> bool:
        """Whether a contact that came into being at that time, if it is known, can be what was created."""
        if added_at is None:
            return True
        return self.started_at - CLOCKS_DIFFER_BY <= added_at <= self.settled_at + CLOCKS_DIFFER_BY


_COLUMNS = """
    noted.id, noted.lead_id, noted.address, noted.state, noted.contact_id, noted.phone_refused, noted.started_at,
    noted.started_at + make_interval(secs => :unsettled) AS settled_at,
    noted.state = 'started' AND noted.started_at > now() - make_interval(secs => :unsettled) AS is_unsettled
"""
# The lead as it was when it was looked up, and still willing. Locked, so that an opt-out that is being written is
# waited for, and one that comes later comes after the note.
_STILL_TO_CREATE = f"""
    SELECT lead.id, lead.client_id FROM leads AS lead
    WHERE lead.id = :lead_id AND lead.client_id = :client_id AND lead.email IS NOT DISTINCT FROM CAST(:email AS text)
      AND NOT {HAS_OPTED_OUT}
    FOR SHARE
"""  # noqa: S608 - constants of ours


def find_creations(connection: Connection, client_id: int, lead: OwnLead) -> list[Creation]:
    """What is noted of the lead's address, first, and of the lead under addresses that it had before, latest first."""
    query = text(f"""
        SELECT {_COLUMNS} FROM contact_creations AS noted
        WHERE client_id = :client_id AND (address = CAST(:address AS text) OR lead_id = :lead_id)
        ORDER BY address IS NOT DISTINCT FROM CAST(:address AS text) DESC, started_at DESC
    """)  # noqa: S608 - a constant of ours
    values = {
        "client_id": client_id, "address": lead.address, "lead_id": lead.id, "unsettled": UNSETTLED_SECONDS
    }  # fmt: skip
    return [_creation(row) for row in connection.execute(query, values)]


def begin_creation(connection: Connection, client_id: int, lead: OwnLead) -> Creation | None:
    """Notes that a contact is about to be created. GHL may be told once this is committed.

    Returns:
        The note; None when another one is unsettled, or the lead has opted out, has another e-mail or is no more, so
        that nobody may create now.
    """
    statement = text(f"""
        INSERT INTO contact_creations AS noted (client_id, address, lead_id)
        SELECT willing.client_id, CAST(:address AS text), willing.id FROM ({_STILL_TO_CREATE}) AS willing
        ON CONFLICT (client_id, address) DO UPDATE
        SET lead_id = excluded.lead_id, state = 'started', contact_id = NULL, error_class = NULL, started_at = now(),
            ended_at = NULL, phone_refused = noted.phone_refused AND noted.state = 'started'
        WHERE noted.state <> 'started' OR noted.started_at <= now() - make_interval(secs => :unsettled)
        RETURNING {_COLUMNS}
    """)  # noqa: S608 - constants of ours
    row = connection.execute(statement, _values(client_id, lead) | {"address": lead.address}).one_or_none()
    return _creation(row) if row is not None else None


def begin_again(connection: Connection, client_id: int, lead: OwnLead, creation_id: int) -> Creation | None:
    """Notes that GHL is told once more, after it refused: the time in which nobody can say begins anew.

    Returns:
        The note; None when the lead has opted out, has another e-mail or is no more.
    """
    statement = text(f"""
        UPDATE contact_creations AS noted SET started_at = now()
        FROM ({_STILL_TO_CREATE}) AS willing
        WHERE noted.id = :id AND noted.client_id = willing.client_id
        RETURNING {_COLUMNS}
    """)  # noqa: S608 - constants of ours
    row = connection.execute(statement, _values(client_id, lead) | {"id": creation_id}).one_or_none()
    return _creation(row) if row is not None else None


def _values(client_id: int, lead: OwnLead) -> dict[str, object]:
    return {"client_id": client_id, "lead_id": lead.id, "email": lead.email, "unsettled": UNSETTLED_SECONDS}


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


def _creation(row: Row[tuple[object, ...]]) -> Creation:
    return Creation(
        row.id,
        row.lead_id,
        row.address,
        CreationState(row.state),
        row.contact_id,
        row.phone_refused,
        row.started_at,
        row.settled_at,
        row.is_unsettled,
    )
