"""The words for how a draft ends: why there is none, whether trying again can help, and why none is wanted."""

from enum import StrEnum


class Channel(StrEnum):
    """How a draft would be sent: as the message came that it answers."""

    SMS = "sms"
    EMAIL = "email"


class DraftState(StrEnum):
    """Of a row of `reply_drafts`. Only a person makes a pending draft approved or rejected."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    FAILED = "failed"


class DraftFailure(StrEnum):
    """Why a provider, and in the end a draft, gave no text that can be offered."""

    CUT_OFF = "cut_off"  # it reached the token limit, also with the larger budget
    EMPTY = "empty"  # no text: nothing at all, or reasoning only
    REFUSED = "refused"  # the model would not answer
    UNWANTED_LINK = "unwanted_link"  # a link, address or number that is not the client's own
    TOO_LONG = "too_long"  # more than the channel takes
    UNREADABLE = "unreadable"  # a success that is no answer of this API
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # the connection failed
    RATE_LIMITED = "rate_limited"  # 429
    SERVER_ERROR = "server_error"  # 5xx
    REQUEST_REJECTED = "request_rejected"  # another 4xx
    MODEL_UNKNOWN = "model_unknown"  # 404: the model, or the base URL, is wrong
    KEY_REFUSED = "key_refused"  # 401, 403

    @property
    def concerns_setup(self) -> bool:
        """Whether it stays until somebody changes a setting: the key, the model or the address."""
        return self in _OF_THE_SETUP

    @property
    def is_outage(self) -> bool:
        """Whether the provider was away or had no time: nothing that the message or the model has to do with."""
        return self in _OF_THE_PROVIDER

    @property
    def passes(self) -> bool:
        """Whether trying again later can help by itself. A refusal or a rejected request is about the text."""
        return not self.concerns_setup and self not in _OF_THE_TEXT


_OF_THE_SETUP = frozenset({DraftFailure.KEY_REFUSED, DraftFailure.MODEL_UNKNOWN})
_OF_THE_TEXT = frozenset({DraftFailure.REFUSED, DraftFailure.REQUEST_REJECTED})
_OF_THE_PROVIDER = frozenset(
    {DraftFailure.TIMEOUT, DraftFailure.UNREACHABLE, DraftFailure.RATE_LIMITED, DraftFailure.SERVER_ERROR}
)

WORDS = {
    DraftFailure.CUT_OFF: "reached its token limit before the end of the text, also with twice the budget",
    DraftFailure.EMPTY: "gave no text",
    DraftFailure.REFUSED: "would not answer",
    DraftFailure.UNWANTED_LINK: "named a link, address or number that is not the client's own",
    DraftFailure.TOO_LONG: "wrote more than the channel takes",
    DraftFailure.UNREADABLE: "answered with something that is no answer of its API",
    DraftFailure.TIMEOUT: "did not answer in time",
    DraftFailure.UNREACHABLE: "could not be reached",
    DraftFailure.RATE_LIMITED: "has too many requests",
    DraftFailure.SERVER_ERROR: "failed",
    DraftFailure.REQUEST_REJECTED: "rejected the request",
    DraftFailure.MODEL_UNKNOWN: "does not know the model, or its address is wrong",
    DraftFailure.KEY_REFUSED: "refused its key",
}


class SkipReason(StrEnum):
    """Why a message that came in gets no draft."""

    NOT_SWITCHED_ON = "not_switched_on"  # the client is not switched on for drafts
    NO_KEY = "no_key"  # no provider has a key
    SETUP_REFUSED = "setup_refused"  # failed because of a setting that is still the same
    OPTED_OUT = "opted_out"  # the lead, or this very message by a keyword, asks not to be written to
    OPTED_OUT_IN_WORDS = "opted_out_in_words"  # this message asks so in words of its own; the lead stays as it is
    BOUNCED = "bounced"  # an e-mail to a lead whose address does not take any
    CONTACT_DELETED = "contact_deleted"
    AUTOMATED = "automated"  # an automatic reply
    MACHINE = "machine"  # a mailer-daemon, a no-reply address, a notice that an e-mail did not arrive
    NOT_POSITIVE = "not_positive"  # an e-mail that shows no interest
    NO_TEXT = "no_text"  # nothing that could be answered
    ANSWERED = "answered"  # somebody wrote to the lead since
    SETTLING = "settling"  # came in this moment, and the lead may be writing on
    RESTING = "resting"  # failed, and tried again later
    GIVEN_UP = "given_up"  # failed for good
    CHANGED_MEANWHILE = (
        "changed_meanwhile"  # not wanted any more when the draft was there, another process had it, the lead wrote on
    )
