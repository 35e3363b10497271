"""How a client's free times can stand, why, and what that means in words. No text here names a link or a person."""

from collections.abc import Mapping
from enum import StrEnum

from ghl_pipeline.errors import PipelineError


class State(StrEnum):
    """How the free times of a client stand: `booking_calendars.state`."""

    NEVER = "never"  # not looked at yet
    FRESH = "fresh"  # as the calendar says
    NO_SLOTS = "no_slots"  # the calendar says, and it was confirmed, that nothing is free
    STALE = "stale"  # from an earlier look; they may be taken meanwhile
    UNSUPPORTED = "unsupported"  # the link leads to no calendar that can be asked


class Provider(StrEnum):
    """Whose calendar it is."""

    GHL = "ghl"
    CALENDLY = "calendly"


class ResolvedBy(StrEnum):
    """How the calendar was found."""

    CACHE = "cache"
    LINK_ID = "id_in_link"
    SLUG = "slug"
    SCHEDULING_URL = "scheduling_url"
    AUTO_BOOKING = "auto_booking_calendar"


class Reason(StrEnum):
    """Why free times are not fresh, or what has to be known of them: `booking_calendars.reason`."""

    # The provider did not answer as it should; the next run may do better.
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    PROVIDER_ERROR = "provider_error"
    RATE_LIMITED = "rate_limited"
    DAILY_QUOTA = "daily_quota"
    UNREADABLE = "unreadable"
    EMPTY_UNCONFIRMED = "empty_unconfirmed"
    LINK_CHANGED = "link_changed"
    # Somebody has to act.
    TOKEN_MISSING = "token_missing"  # noqa: S105 - no token
    TOKEN_UNREADABLE = "token_unreadable"  # noqa: S105 - no token
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - no token
    SCOPE_MISSING = "scope_missing"
    CALENDLY_TOKEN_MISSING = "calendly_token_missing"  # noqa: S105 - no token
    CALENDLY_TOKEN_REFUSED = "calendly_token_refused"  # noqa: S105 - no token
    REJECTED = "rejected"
    LINK_NOT_FOUND = "link_not_found"
    CALENDAR_INACTIVE = "calendar_inactive"
    BUG = "bug"
    TIME_ZONE_UNREAD = "time_zone_unread"  # of free times that are fresh
    # The link is none that can be asked.
    NOT_A_LINK = "not_a_link"
    UNKNOWN_PAGE = "unknown_page"
    GHL_GROUP = "ghl_group"
    CALENDLY_SINGLE_USE = "calendly_single_use"
    CALENDLY_PROFILE = "calendly_profile"


# The next run does no better until a person has acted.
NEEDS_SOMEBODY = frozenset(
    {
        Reason.TOKEN_MISSING, Reason.TOKEN_UNREADABLE, Reason.TOKEN_REFUSED, Reason.SCOPE_MISSING,
        Reason.CALENDLY_TOKEN_MISSING, Reason.CALENDLY_TOKEN_REFUSED, Reason.REJECTED, Reason.LINK_NOT_FOUND,
        Reason.CALENDAR_INACTIVE, Reason.BUG, Reason.TIME_ZONE_UNREAD,
    }
)  # fmt: skip

REASON_TEXTS: Mapping[Reason, str] = {
    Reason.TIMEOUT: "the calendar gave no answer within its time",
    Reason.UNREACHABLE: "the calendar's provider could not be reached",
    Reason.PROVIDER_ERROR: "the calendar's provider answered with an error",
    Reason.RATE_LIMITED: "the provider's rate limit is used up",
    Reason.DAILY_QUOTA: "the location's GHL requests of the day are used up; it goes on after 00:00 UTC",
    Reason.UNREADABLE: "the provider's answer could not be read",
    Reason.EMPTY_UNCONFIRMED: "the calendar had free times and suddenly shows none; the next run asks again before "
    "that is believed",
    Reason.LINK_CHANGED: "the booking link or calendar was changed; the next run looks there",
    Reason.TOKEN_MISSING: "the client has no GHL token: ghl-pipeline clients set-token",
    Reason.TOKEN_UNREADABLE: "a stored token cannot be decrypted; see docs/runbook.md, a lost key",
    Reason.TOKEN_REFUSED: "GHL refuses the client's token: ghl-pipeline clients set-token",
    Reason.SCOPE_MISSING: "the GHL token lacks the scope calendars.readonly; add it to the private integration",
    Reason.CALENDLY_TOKEN_MISSING: "a Calendly link, and no token for it: ghl-pipeline clients set-calendar "
    "--calendly-token",
    Reason.CALENDLY_TOKEN_REFUSED: "Calendly refuses the token: ghl-pipeline clients set-calendar --calendly-token",
    Reason.REJECTED: "the provider rejects the request",
    Reason.LINK_NOT_FOUND: "the booking link leads to no calendar of this client; correct it: ghl-pipeline clients "
    "set-calendar --link",
    Reason.CALENDAR_INACTIVE: "the calendar is switched off at its provider; switch it on there",
    Reason.BUG: "a bug of this software; its stack is in the log of the run",
    Reason.TIME_ZONE_UNREAD: "the calendar's time zone could not be read, so that the last known one, else the "
    "client's own, is used; if it stays so, add the scope locations.readonly to the private integration",
    Reason.NOT_A_LINK: "the booking link is no web address",
    Reason.UNKNOWN_PAGE: "the booking link is no page of a GHL calendar or of Calendly",
    Reason.GHL_GROUP: "the booking link is of a group of GHL calendars; give the link of one calendar",
    Reason.CALENDLY_SINGLE_USE: "the booking link is Calendly's for a single booking; give the event type's own",
    Reason.CALENDLY_PROFILE: "the booking link is a Calendly profile; give the link of one event type",
}


def in_words(reason: str | None) -> str:
    """The reason for people; one that is stored and not known any more as it is."""
    if reason is None:
        return ""
    try:
        return REASON_TEXTS[Reason(reason)]
    except ValueError:
        return reason


class SlotsStale(PipelineError):
    """A client's free times could not be refreshed, for a reason that is no answer of a provider."""

    def __init__(self, location_id: str, reason: Reason) -> None:
        self.reason = reason
        super().__init__(
            f"SlotsStale: location {location_id}: free times could not be refreshed ({reason}): "
            f"{REASON_TEXTS[reason]}. The old ones are kept and marked as stale"
        )
