"""Drafts in the table `reply_drafts`: one for each message and channel, whoever wrote it, and however often.

A row appears when a draft has ended, so that a killed run leaves none. A failed one gives way to what a later attempt
brings; what an operator may have seen is never touched.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.drafts.draft import Written
from ghl_pipeline.drafts.outcomes import DraftState
from ghl_pipeline.drafts.wanting import OPT_OUT_STATUSES, Candidate

MOST_ATTEMPTS: Final = 5
# 1, 4, 16 and 64 minutes: an outage of minutes costs no draft its time, one of hours is not paid for all night.
FIRST_PAUSE: Final = timedelta(minutes=1)
PAUSE_GROWS: Final = 4
LONGEST_PAUSE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NewDraft:
    """A draft as it is stored: for which message, how it ended, by which prompt, and what it cost if that is known."""

    candidate: Candidate
    written: Written
    prompt_version: str
    cost: Decimal | None


def pause_after(attempts: int, retry_after: float | None = None) -> timedelta:
    """How long to wait after so many attempts (from 1), at least as long as the provider asked for."""
    pause = FIRST_PAUSE * int(PAUSE_GROWS ** (attempts - 1))
    return min(max(pause, timedelta(seconds=min(retry_after or 0.0, 1e6))), LONGEST_PAUSE)


def store_draft(connection: Connection, draft: NewDraft) -> bool:
    """Stores how a draft ended, in the caller's transaction.

    Returns:
        Whether it is stored. Not when there is one already that did not fail, and not when the lead opted out or lost
        its contact, or the message became another lead's, while it was written.
    """
    written, candidate = draft.written, draft.candidate
    pauses = [pause_after(number, written.retry_after) for number in range(1, MOST_ATTEMPTS)]
    values = {
        "client_id": candidate.client_id,
        "lead_id": candidate.lead_id,
        "message_id": candidate.message_id,
        "channel": candidate.channel.value,
        "state": DraftState.PENDING.value if written.body is not None else DraftState.FAILED.value,
        "body": written.body,
        "failure": None if written.failure is None else written.failure.value,
        "failure_text": written.failure_text,
        # By the number of attempts that the row will have; NULL beyond the end.
        "pauses": pauses if written.passes else [],
        "provider": written.provider,
        "model": written.model,
        "prompt_version": draft.prompt_version,
        "tokens_in": written.tally.tokens_in,
        "tokens_out": written.tally.tokens_out,
        "cost_usd": draft.cost,
        "seconds": round(written.seconds, 3),
        "opt_outs": list(OPT_OUT_STATUSES),
    }
    return connection.execute(_STORE, values).one_or_none() is not None


_STORE = text("""
    INSERT INTO reply_drafts
        (client_id, lead_id, message_id, channel, state, body, failure, failure_text, attempts, retry_at, provider,
         model, prompt_version, tokens_in, tokens_out, cost_usd, seconds)
    SELECT lead.client_id, lead.id, message.id, :channel, :state, :body, :failure, :failure_text, 1,
        now() + (CAST(:pauses AS interval[]))[1], :provider, :model, :prompt_version, :tokens_in, :tokens_out,
        :cost_usd, :seconds
    FROM leads AS lead JOIN messages AS message ON message.lead_id = lead.id AND message.id = :message_id
    WHERE lead.id = :lead_id AND lead.client_id = :client_id
      AND lead.opted_out_at IS NULL AND lead.contact_deleted_at IS NULL
      AND lower(btrim(lead.status)) <> ALL(CAST(:opt_outs AS text[]))
    FOR SHARE OF lead
    ON CONFLICT (message_id, channel) DO UPDATE SET
        state = excluded.state, body = excluded.body, failure = excluded.failure, failure_text = excluded.failure_text,
        attempts = reply_drafts.attempts + 1,
        retry_at = now() + (CAST(:pauses AS interval[]))[reply_drafts.attempts + 1],
        provider = excluded.provider, model = excluded.model, prompt_version = excluded.prompt_version,
        tokens_in = coalesce(reply_drafts.tokens_in, 0) + excluded.tokens_in,
        tokens_out = coalesce(reply_drafts.tokens_out, 0) + excluded.tokens_out,
        cost_usd = coalesce(reply_drafts.cost_usd + excluded.cost_usd, reply_drafts.cost_usd, excluded.cost_usd),
        seconds = excluded.seconds, updated_at = now()
    WHERE reply_drafts.state = 'failed'
    RETURNING id
""")
