"""The rule by which an event changes a lead's status, and which messages are an opt-out."""

from datetime import datetime

from ghl_pipeline.database.messages import NewMessage
from ghl_pipeline.ghl.opt_outs import opts_out
from ghl_pipeline.webhooks.events import EventKind

UNSUBSCRIBED = "unsubscribed"
INTERESTED = "interested"
BOUNCED = "bounced"
REPLIED = "replied"
DO_NOT_CONTACT = "do_not_contact"  # set by the dashboard, by hand; no event sets it

# What events set, the strongest first. A status of the dashboard's own ("contacted") is below all of these.
_BY_STRENGTH = (UNSUBSCRIBED, INTERESTED, BOUNCED, REPLIED)
_BEFORE_A_REPLY = frozenset({"", "new", "unassigned"})
_REPLIES = frozenset({EventKind.MESSAGE_RECEIVED, EventKind.LEAD_REPLIED, EventKind.MESSAGE_OF_KNOWN_LEAD})

# RCS takes the place of SMS where the phone can, on the same number and under the same rule.
_CARRIER_CHANNELS = frozenset({"sms", "rcs"})


def statuses_of(setting: str) -> frozenset[str]:
    """The statuses of a setting that lists them with commas, lower-case."""
    return frozenset(status for word in setting.split(",") if (status := _plain(word)))


def status_after(
    current: str | None, kind: EventKind, *, opted_out: bool, protected: frozenset[str], is_automated: bool
) -> str | None:
    """The status that a lead has after an event; None: the one it had.

    Any number of events end in the same status, in whatever order they arrive.

    Args:
        current: the lead's status, as the dashboard or an earlier event set it.
        kind: what the event means.
        opted_out: whether the lead asked not to be written to, by this event or before.
        protected: statuses, lower-case, that only an opt-out changes. Those that events set are never among them, and
            `do_not_contact` always is.
        is_automated: whether the message is an automatic reply ("I am on holiday"), which says nothing of the lead.
    """
    wanted = UNSUBSCRIBED if opted_out else _wanted(kind, is_automated=is_automated)
    return _after(current, wanted, protected | {DO_NOT_CONTACT})


def status_of_both(kept: str | None, given_up: str | None, *, opted_out: bool, protected: frozenset[str]) -> str | None:
    """The status of a lead that another one becomes part of; None: the one it had.

    It ends as if the events of both had reached the one with the dashboard's own status: that of the lead that is
    kept, unless only the other one is protected, or it has none yet.

    Args:
        kept: status of the lead that stays.
        given_up: status of the other one.
        opted_out: whether either asked not to be written to.
        protected: as in `status_after`.
    """
    mine, theirs = _plain(kept), _plain(given_up)
    protected |= {DO_NOT_CONTACT}
    if opted_out:
        return _after(kept, UNSUBSCRIBED, protected)
    if theirs in _BY_STRENGTH:
        return _after(kept, theirs, protected)
    is_theirs = theirs in protected and mine not in protected
    if mine in _BY_STRENGTH:
        return given_up if is_theirs and mine != UNSUBSCRIBED else None
    has_none = mine in _BEFORE_A_REPLY and theirs not in _BEFORE_A_REPLY
    return given_up if is_theirs or has_none else None


def _after(current: str | None, wanted: str | None, protected: frozenset[str]) -> str | None:
    now = _plain(current)
    if wanted is None or now == UNSUBSCRIBED:
        return None
    if wanted == UNSUBSCRIBED:
        return wanted
    if now in _BY_STRENGTH:
        return wanted if _BY_STRENGTH.index(wanted) < _BY_STRENGTH.index(now) else None
    if now in protected or (wanted == REPLIED and now not in _BEFORE_A_REPLY):
        return None
    return wanted


def _plain(status: str | None) -> str:
    return (status or "").strip().lower()


def has_opted_out(status: str | None, opted_out_at: datetime | None) -> bool:
    """Whether a lead must not be written to: it said so to us, or the dashboard says so of it."""
    return opted_out_at is not None or _plain(status) in {UNSUBSCRIBED, DO_NOT_CONTACT}


def message_opts_out(message: NewMessage) -> bool:
    """Whether somebody's message to the client is an opt-out: a carrier's keyword, by a channel of the carriers."""
    is_theirs = message.direction == "inbound" and message.channel.strip().lower() in _CARRIER_CHANNELS
    return is_theirs and opts_out(message.body)


def _wanted(kind: EventKind, *, is_automated: bool) -> str | None:
    if kind is EventKind.LEAD_UNSUBSCRIBED:
        return UNSUBSCRIBED
    if kind is EventKind.LEAD_INTERESTED:
        return INTERESTED
    if kind is EventKind.LEAD_BOUNCED:
        return BOUNCED
    return REPLIED if kind in _REPLIES and not is_automated else None
