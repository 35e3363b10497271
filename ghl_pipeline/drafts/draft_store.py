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
from ghl_pipeline.drafts.superseding import answered_sql, superseded_sql
from ghl_pipeline.drafts.wanting import OPT_OUT_STATUSES, Candidate

MOST_ATTEMPTS: Final = 5
# 1, 4, 16 and 64 minutes: an outage of minutes costs no draft its time, one of hours is not paid for all night.
FIRST_PAUSE: Final = timedelta(minutes=1)
PAUSE_GROWS: Final = 4
LONGEST_PAUSE: Final = timedelta(days=1)
# While both providers are away it goes on at this pace as long as the message is young enough: an outage of a night
# must not cost all drafts of that night, and nobody is paid for a call that does not arrive.
OUTAGE_PAUSE: Final = timedelta(hours=4)


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


def store_draft(connection: Connection, draft: NewDraft, max_age: timedelta) -> bool:
    """Stores how a draft ended, in the caller's transaction.

    Args:
        connection: in the caller's transaction.
        draft: what came out.
        max_age: of messages that get drafts; nothing is to be tried again when they are older.

    Returns:
        Whether it is stored. Not when there is one already that did not fail, and not when, while it was written, the
        client was switched off, the lead opted out, lost its contact, wrote on or was answered, or the message became
        another lead's.
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
        # By the number of attempts that the row will have; beyond the end, NULL but for outages.
        "pauses": pauses if written.passes else [],
        "outage_pause": max(OUTAGE_PAUSE, pauses[0]) if written.is_outage else None,
        "max_age": max_age,
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


_RETRY_AT = """(
        SELECT now() + waits.pause
        FROM messages AS message, LATERAL (
            SELECT coalesce((CAST(:pauses AS interval[]))[{attempts}], CAST(:outage_pause AS interval)) AS pause
        ) AS waits
        WHERE message.id = :message_id AND message.sent_at + CAST(:max_age AS interval) > now() + waits.pause
    )"""
_STORE = text(f"""
    INSERT INTO reply_drafts
        (client_id, lead_id, message_id, channel, state, body, failure, failure_text, attempts, retry_at, provider,
         model, prompt_version, tokens_in, tokens_out, cost_usd, seconds)
    SELECT lead.client_id, lead.id, message.id, :channel, :state, :body, :failure, :failure_text, 1,
        {_RETRY_AT.format(attempts=1)}, :provider, :model, :prompt_version, :tokens_in, :tokens_out,
        :cost_usd, :seconds
    FROM leads AS lead JOIN messages AS message ON message.lead_id = lead.id AND message.id = :message_id
    JOIN clients AS client ON client.id = lead.client_id AND client.active
    JOIN draft_clients ON draft_clients.client_id = client.id AND draft_clients.enabled
    WHERE lead.id = :lead_id AND lead.client_id = :client_id
      AND lead.opted_out_at IS NULL AND lead.contact_deleted_at IS NULL
      AND lower(btrim(lead.status)) <> ALL(CAST(:opt_outs AS text[]))
      AND NOT {answered_sql("message")} AND NOT {superseded_sql("message")}
    FOR SHARE OF lead
    ON CONFLICT (message_id, channel) DO UPDATE SET
        state = excluded.state, body = excluded.body, failure = excluded.failure, failure_text = excluded.failure_text,
        attempts = reply_drafts.attempts + 1,
        retry_at = {_RETRY_AT.format(attempts="reply_drafts.attempts + 1")},
        provider = excluded.provider, model = excluded.model, prompt_version = excluded.prompt_version,
        tokens_in = coalesce(reply_drafts.tokens_in, 0) + excluded.tokens_in,
        tokens_out = coalesce(reply_drafts.tokens_out, 0) + excluded.tokens_out,
        -- Unknown when one of them is: too low a sum would be believed.
        cost_usd = reply_drafts.cost_usd + excluded.cost_usd,
        seconds = excluded.seconds, updated_at = now()
    WHERE reply_drafts.state = 'failed'
    RETURNING id
""")  # noqa: S608 - the conditions are our own words
