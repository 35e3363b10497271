"""Which reason an error is, for the client's row. The error itself goes on to the run."""

from ghl_pipeline.availability.outcomes import Reason, SlotsStale
from ghl_pipeline.calendly.errors import CalendlyAccessDenied, CalendlyError, CalendlyUnavailable
from ghl_pipeline.ghl.errors import (
    CalendarNotFound,
    DailyQuotaReached,
    GhlError,
    GhlServerError,
    GhlTimeout,
    GhlUnreachable,
    LocationAccessDenied,
    RateLimited,
    ScopeMissing,
    TokenRejected,
    UnreadableAnswer,
)
from ghl_pipeline.locations.clients import TokenMissing
from ghl_pipeline.privacy.tokens import TokenUnreadable

_OF_CLASS: tuple[tuple[type[Exception], Reason], ...] = (
    (TimeoutError, Reason.TIMEOUT),
    (GhlTimeout, Reason.TIMEOUT),
    (GhlUnreachable, Reason.UNREACHABLE),
    (GhlServerError, Reason.PROVIDER_ERROR),
    (RateLimited, Reason.RATE_LIMITED),
    (DailyQuotaReached, Reason.DAILY_QUOTA),
    (UnreadableAnswer, Reason.UNREADABLE),
    (TokenRejected, Reason.TOKEN_REFUSED),
    (LocationAccessDenied, Reason.TOKEN_REFUSED),
    (ScopeMissing, Reason.SCOPE_MISSING),
    (CalendarNotFound, Reason.LINK_NOT_FOUND),
    (TokenMissing, Reason.TOKEN_MISSING),
    (TokenUnreadable, Reason.TOKEN_UNREADABLE),
    (CalendlyAccessDenied, Reason.CALENDLY_TOKEN_REFUSED),
    (GhlError, Reason.REJECTED),
)
# Errors after which nothing else needs to be asked of GHL for the location.
SHUT = (TokenRejected, LocationAccessDenied, ScopeMissing, DailyQuotaReached, TokenMissing, TokenUnreadable)


def reason_of(error: BaseException) -> Reason:
    """The reason as the client's row keeps it; anything unforeseen is a bug."""
    if isinstance(error, SlotsStale):
        return error.reason
    if isinstance(error, CalendlyUnavailable):
        return _of_calendly(error)
    if isinstance(error, CalendlyError) and not isinstance(error, CalendlyAccessDenied):
        return Reason.REJECTED
    return next((reason for kind, reason in _OF_CLASS if isinstance(error, kind)), Reason.BUG)


def _of_calendly(error: CalendlyUnavailable) -> Reason:
    if error.timed_out:
        return Reason.TIMEOUT
    if error.status is None:
        return Reason.UNREACHABLE
    if error.status == 429:
        return Reason.RATE_LIMITED
    return Reason.UNREADABLE if error.status < 300 else Reason.PROVIDER_ERROR
