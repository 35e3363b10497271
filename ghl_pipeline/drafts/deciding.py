"""What people do with drafts: look at them, approve or reject them. For the command line and the dashboard.

Functions on a connection, in the caller's transaction. Approving sends nothing; it says that the dashboard may.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from ghl_pipeline.drafts.outcomes import DraftState
from ghl_pipeline.drafts.superseding import answered_sql, superseded_sql
from ghl_pipeline.drafts.wanting import OPT_OUT_STATUSES
from ghl_pipeline.errors import InvalidInput

_LIST = "ghl-pipeline drafts list"


class UnknownDraft(InvalidInput):
    """There is no draft of this number."""


class DraftNotOpen(InvalidInput):
    """The draft cannot be decided: it failed, it is outdated, or its lead must not be written to any more."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row of `reply_drafts`. `repr` does not show the text.

    Attributes:
        answered: whether somebody wrote to the lead on this channel since the message came.
        outdated: whether the lead wrote on, on this channel, or the message is too old to be answered. Never of what
            failed or is approved already.
        opted_out: whether the lead must not be written to.
    """

    id: int
    client_id: int
    location_id: str
    lead_id: int
    message_id: int
    channel: str
    state: DraftState
    failure: str | None
    failure_text: str | None
    attempts: int
    retry_at: datetime | None
    provider: str | None
    model: str | None
    prompt_version: str | None
    tokens_in: int | None
    tokens_out: int | None
    cost_usd: float | None
    seconds: float | None
    created_at: datetime
    decided_at: datetime | None
    answered: bool
    outdated: bool
    opted_out: bool
    body: str | None = field(repr=False)

    def as_dict(self, *, with_text: bool = False) -> dict[str, object]:
        """As JSON-ready values; the text only when it is asked for."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "body"}
        return values | ({"body": self.body} if with_text else {})


def list_drafts(
    connection: Connection,
    max_age: timedelta,
    *,
    location_ids: Sequence[str] = (),
    state: DraftState | None = None,
    limit: int = 50,
) -> list[Draft]:
    """The newest drafts, newest first.

    Args:
        connection: reads only.
        max_age: drafts for older messages are outdated.
        location_ids: only of these; all when there are none.
        state: only those in it.
        limit: the most.
    """
    values = {
        "id": None,
        "locations": list(location_ids) or None,
        "state": None if state is None else state.value,
        "limit": limit,
        "max_age": max_age,
    }
    return _read(connection, values)


def find_draft(connection: Connection, draft_id: int, max_age: timedelta) -> Draft:
    """The draft of this number.

    Raises:
        UnknownDraft: there is none.
    """
    found = _read(connection, {"id": draft_id, "locations": None, "state": None, "limit": 1, "max_age": max_age})
    if not found:
        raise UnknownDraft(f"There is no draft {draft_id}. See: {_LIST}")
    return found[0]


def approve(connection: Connection, draft_id: int, max_age: timedelta) -> Draft:
    """Marks a draft as good to send. Again, or after a rejection: a person may change their mind.

    Raises:
        UnknownDraft: there is none.
        DraftNotOpen: it failed, its lead opted out or wrote on since it was written, or its message is older than
            `max_age`.
    """
    draft = _open(connection, draft_id, max_age)
    if draft.opted_out:
        raise DraftNotOpen(
            f"Draft {draft_id} cannot be approved: lead {draft.lead_id} must not be written to any more. Reject it."
        )
    if draft.outdated:
        raise DraftNotOpen(
            f"Draft {draft_id} cannot be approved: lead {draft.lead_id} wrote on since, or its message is older than "
            f"DRAFT_MAX_AGE_DAYS. Reject it; a newer message has a draft of its own: {_LIST}"
        )
    return _decide(connection, draft_id, DraftState.APPROVED, max_age)


def reject(connection: Connection, draft_id: int, max_age: timedelta) -> Draft:
    """Marks a draft as not to be sent; its message gets no other one.

    Raises:
        UnknownDraft: there is none.
        DraftNotOpen: it failed.
    """
    _open(connection, draft_id, max_age)
    return _decide(connection, draft_id, DraftState.REJECTED, max_age)


def _open(connection: Connection, draft_id: int, max_age: timedelta) -> Draft:
    # The lead, too: who opts out at this moment is waited for, or waits.
    connection.execute(
        text("""
            SELECT FROM reply_drafts AS draft JOIN leads AS lead ON lead.id = draft.lead_id
            WHERE draft.id = :id FOR UPDATE OF draft FOR SHARE OF lead
        """),
        {"id": draft_id},
    )
    draft = find_draft(connection, draft_id, max_age)
    if draft.state is DraftState.FAILED:
        raise DraftNotOpen(f"Draft {draft_id} failed ({draft.failure}), so there is no text to decide about.")
    return draft


def _decide(connection: Connection, draft_id: int, state: DraftState, max_age: timedelta) -> Draft:
    connection.execute(
        text("""
            UPDATE reply_drafts SET state = :state, decided_at = now(), updated_at = now()
            WHERE id = :id AND state <> :state
        """),
        {"id": draft_id, "state": state.value},
    )
    return find_draft(connection, draft_id, max_age)


def _read(connection: Connection, values: Mapping[str, object]) -> list[Draft]:
    rows = connection.execute(_DRAFTS, {**values, "opt_outs": list(OPT_OUT_STATUSES)})
    return [
        Draft(
            **{
                **row._mapping,
                "state": DraftState(row.state),
                "cost_usd": None if row.cost_usd is None else float(row.cost_usd),
            }
        )
        for row in rows
    ]


_DRAFTS = text(f"""
    SELECT draft.id, draft.client_id, client.location_id, draft.lead_id, draft.message_id, draft.channel, draft.state,
        draft.failure, draft.failure_text, draft.attempts, draft.retry_at, draft.provider, draft.model,
        draft.prompt_version, draft.tokens_in, draft.tokens_out, draft.cost_usd, draft.seconds, draft.created_at,
        draft.decided_at, draft.body,
        {answered_sql("message")} AS answered,
        draft.state IN ('pending', 'rejected')
            AND (message.sent_at < now() - CAST(:max_age AS interval) OR {superseded_sql("message")}) AS outdated,
        lead.opted_out_at IS NOT NULL OR lower(btrim(lead.status)) = ANY(CAST(:opt_outs AS text[])) AS opted_out
    FROM reply_drafts AS draft
    JOIN clients AS client ON client.id = draft.client_id
    JOIN leads AS lead ON lead.id = draft.lead_id
    JOIN messages AS message ON message.id = draft.message_id
    WHERE (CAST(:id AS bigint) IS NULL OR draft.id = :id)
      AND (CAST(:locations AS text[]) IS NULL OR client.location_id = ANY(CAST(:locations AS text[])))
      AND (CAST(:state AS text) IS NULL OR draft.state = :state)
    ORDER BY draft.id DESC LIMIT :limit
""")  # noqa: S608 - the conditions are our own words
