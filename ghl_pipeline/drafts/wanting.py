"""Which messages want a draft, and why the others do not.

Looked at is the newest inbound message that somebody wrote, of each lead on each channel, of clients that are switched
on. What it says of itself and its lead is fetched in one statement; the rule is a pure function of that.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from ghl_pipeline.database.blank import WHITE_SPACE
from ghl_pipeline.database.rows import as_json_list
from ghl_pipeline.drafts.opting_out import LONGEST_READ, opts_out_in_words
from ghl_pipeline.drafts.outcomes import Channel, DraftFailure, SkipReason
from ghl_pipeline.drafts.superseding import answered_sql
from ghl_pipeline.ghl.opt_outs import opts_out

CAPABILITY: Final = "drafts"
SETUP_REFUSED: Final = "setup_refused"
"""In the record of an attempt: by which set-up drafts failed because of the set-up."""
ALL_REFUSED: Final = "all_refused"
"""In the record of an attempt: the set-up that every provider refused in that run."""
# The dashboard's and the events' words for somebody who must not be written to, lower-case.
OPT_OUT_STATUSES: Final = ("unsubscribed", "do_not_contact")
BOUNCED, INTERESTED = "bounced", "interested"

_MACHINES = re.compile(
    r"(?:mailer[-_.]?daemon|postmaster|(?:do[-_.]?)?no[t]?[-_.]?reply|bounces?|auto[-_.]?reply|notifications?)(?:[+=-].*)?"
)
# Messages say no sender. Who wrote an e-mail is the lead by its address, unless the subject is a mail server's.
_NOTICES = re.compile(
    r"undeliver(?:able|ed)\b|(?:mail )?delivery (?:status notification|fail|has failed|incomplete|delay|system)"
    r"|returned mail\b|failure notice|message (?:not delivered|blocked)|warning: (?:message|could not send)"
    r"|auto(?:matic|mated)?[- ]?re(?:ply|sponse)\b|out of (?:the )?office\b",
    re.IGNORECASE,
)
# A lead that writes three text messages in a row is answered once, to the last one.
SETTLES: Final = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Candidate:
    """The newest message that a lead wrote on a channel, as far as the rule needs it. `repr` shows ids and flags.

    Attributes:
        location_id: of the client.
        client_id, lead_id, message_id: rows.
        channel: how it came, and how a reply would go.
        start: the first letters, enough to tell an opt-out.
        subject: of an e-mail.
        is_automated: as the message says; then nobody wrote one lately that was not.
        is_interested: as this or another e-mail of these days says.
        is_settling: came this moment; the lead may be writing on.
        status: the lead's.
        email: the lead's own address. Who sent the message is not stored: a reply may come from another one.
        opted_out, contact_deleted: of the lead.
        answered: whether somebody wrote to the lead on this channel since.
        failure: of the draft that there is; None when there is none.
        is_due: of a failed draft: it is time to try again. None: it is not tried again by itself.
        setup_tried: the set-up with which such failures were last tried.
    """

    location_id: str
    client_id: int
    lead_id: int
    message_id: int
    channel: Channel
    start: str = field(repr=False)
    subject: str | None = field(repr=False)
    is_automated: bool
    is_interested: bool
    is_settling: bool
    status: str
    email: str | None = field(repr=False)
    opted_out: bool
    contact_deleted: bool
    answered: bool
    failure: DraftFailure | None = None
    is_due: bool | None = None
    setup_tried: str | None = None


def skip_reason(
    candidate: Candidate, setup: str | None, *, again: bool = False, patient: bool = False
) -> SkipReason | None:
    """Why the message gets no draft; None when it wants one.

    Args:
        candidate: the message.
        setup: the fingerprint of keys, models and addresses; None when no provider has a key.
        again: what failed is tried once more, whatever its time.
        patient: a message of this moment waits, since the lead may be writing on.
    """
    reason = _of_person(candidate) or _of_message(candidate) or _of_attempts(candidate, setup, again=again)
    if reason is not None:
        return reason
    # Last, since it reads the text: all other reasons are flags.
    if opts_out_in_words(candidate.start):
        return SkipReason.OPTED_OUT_IN_WORDS
    return SkipReason.SETTLING if patient and candidate.is_settling else None


def _of_person(candidate: Candidate) -> SkipReason | None:
    status = candidate.status.strip().lower()
    # The message may be seconds old, and its event not handled yet, by which the lead will have opted out.
    if candidate.opted_out or status in OPT_OUT_STATUSES or opts_out(candidate.start):
        return SkipReason.OPTED_OUT
    if candidate.contact_deleted:
        return SkipReason.CONTACT_DELETED
    # An address that takes no e-mails says nothing of the phone.
    if status == BOUNCED and candidate.channel is Channel.EMAIL:
        return SkipReason.BOUNCED
    return None


def _of_message(candidate: Candidate) -> SkipReason | None:
    if candidate.is_automated:
        return SkipReason.AUTOMATED
    is_email = candidate.channel is Channel.EMAIL
    if is_email and (
        _MACHINES.fullmatch((candidate.email or "").strip().lower().partition("@")[0])
        or _NOTICES.match((candidate.subject or "").strip())
    ):
        return SkipReason.MACHINE
    if not candidate.start.strip():
        return SkipReason.NO_TEXT
    # EmailBison says it once for a conversation: what an interested lead writes later is wanted, too.
    if is_email and not candidate.is_interested and candidate.status.strip().lower() != INTERESTED:
        return SkipReason.NOT_POSITIVE
    return SkipReason.ANSWERED if candidate.answered else None


def _of_attempts(candidate: Candidate, setup: str | None, *, again: bool) -> SkipReason | None:
    if setup is None:
        return SkipReason.NO_KEY
    if candidate.failure is None or again:
        return None
    if candidate.is_due is not None:
        return None if candidate.is_due else SkipReason.RESTING
    if candidate.failure.concerns_setup:
        return SkipReason.SETUP_REFUSED if candidate.setup_tried == setup else None
    return SkipReason.GIVEN_UP


def candidates(
    connection: Connection, max_age: timedelta, location_ids: Collection[str] | None = None
) -> list[Candidate]:
    """The messages of clients that are active and switched on that have no draft yet, or one that failed.

    Args:
        connection: reads only.
        max_age: older messages are left out.
        location_ids: only of these; None: of all.
    """
    chosen = None if location_ids is None else as_json_list(sorted(set(location_ids)))
    values = {
        "max_age": max_age,
        "locations": chosen,
        "capability": CAPABILITY,
        "setup_refused": SETUP_REFUSED,
        "start": LONGEST_READ,
        "settles": SETTLES,
        "white_space": WHITE_SPACE,
    }
    return [
        Candidate(
            **{
                **row._mapping,
                "channel": Channel(row.channel),
                "failure": None if row.failure is None else DraftFailure(row.failure),
            }
        )
        for row in connection.execute(_CANDIDATES, values)
    ]


def due_locations(connection: Connection, max_age: timedelta, setup: str) -> list[str]:
    """The locations with a message that wants a draft now, in the order in which their clients were added."""
    due: dict[str, int] = {}
    for each in candidates(connection, max_age):
        if each.location_id not in due and skip_reason(each, setup, patient=True) is None:
            due[each.location_id] = each.client_id
    return sorted(due, key=lambda location_id: due[location_id])


_CANDIDATES = text(f"""
    -- Materialized: in a join, the planner looks up the last attempt once for each message instead of each client.
    WITH chosen AS MATERIALIZED (
        SELECT client.id, client.location_id,
            (SELECT attempt.report ->> :setup_refused FROM location_attempts AS attempt
             WHERE attempt.capability = :capability AND attempt.location_id = client.location_id
               AND attempt.state = 'succeeded'
             ORDER BY attempt.id DESC LIMIT 1) AS setup_tried
        FROM clients AS client JOIN draft_clients ON draft_clients.client_id = client.id AND draft_clients.enabled
        WHERE client.active
          AND (CAST(:locations AS json) IS NULL
               OR client.location_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:locations AS json)))))
    ), recent AS (
        SELECT message.id, message.client_id, message.lead_id, message.channel, message.sent_at, message.is_automated,
            -- EmailBison marks one e-mail of a conversation.
            bool_or(message.is_interested) OVER (PARTITION BY message.lead_id, message.channel) AS is_interested,
            message.is_automated OR btrim(message.body, :white_space) = '' AS says_nothing
        FROM chosen JOIN messages AS message ON message.client_id = chosen.id
        WHERE message.direction = 'inbound' AND message.sent_at > now() - :max_age
          AND (message.channel = 'sms' OR (message.channel = 'email' AND message.provider = 'emailbison'))
    ), newest AS (
        -- What says nothing comes last: an automatic reply must not hide what somebody wrote before it.
        SELECT DISTINCT ON (lead_id, channel) * FROM recent
        ORDER BY lead_id, channel, says_nothing, sent_at DESC, id DESC
    )
    SELECT chosen.location_id, newest.client_id, newest.lead_id, newest.id AS message_id, newest.channel,
        left(btrim(message.body, :white_space), :start) AS start, left(message.subject, 200) AS subject,
        newest.is_automated, newest.is_interested,
        -- A clock that goes ahead makes nobody wait for long.
        newest.sent_at > now() - :settles AND newest.sent_at <= now() + :settles AS is_settling,
        lead.status, lead.email,
        lead.opted_out_at IS NOT NULL AS opted_out, lead.contact_deleted_at IS NOT NULL AS contact_deleted,
        {answered_sql("newest")} AS answered,
        draft.failure, draft.retry_at <= now() AS is_due, chosen.setup_tried
    FROM newest
    JOIN chosen ON chosen.id = newest.client_id
    JOIN messages AS message ON message.id = newest.id
    JOIN leads AS lead ON lead.id = newest.lead_id AND lead.client_id = newest.client_id
    LEFT JOIN reply_drafts AS draft ON draft.message_id = newest.id AND draft.channel = newest.channel
    WHERE draft.id IS NULL OR draft.state = 'failed'
    ORDER BY newest.sent_at DESC, newest.id DESC
""")  # noqa: S608 - the conditions are our own words
