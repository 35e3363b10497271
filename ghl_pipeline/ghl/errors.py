"""What the GHL API can answer instead of data, as one small tree, and the rule that picks the branch.

    GhlError
    ├── TransientGhlError            worth trying again
    │   ├── GhlTimeout               no whole answer in time
    │   ├── GhlUnreachable           connection refused, reset or cut off
    │   ├── RateLimited              429; `retry_after` when GHL gave one
    │   ├── GhlServerError           5xx, 408
    │   ├── SearchContextLost        "point in time context" texts, at any status
    │   └── UnreadableAnswer         a 2xx whose body is not what GHL sends
    └── PermanentGhlError            trying again changes nothing
        ├── TokenRejected            401: unknown, expired or malformed token
        ├── LocationAccessDenied     the token is another location's
        ├── ScopeMissing             the token may not do this
        ├── ContactNotFound          unknown or deleted id (GHL says 400, sometimes 404)
        ├── CalendarNotFound         likewise, of a calendar
        ├── DuplicateContact         refused because `contact_id` has the address or number already
        ├── RequestRejected          any other 4xx: our request is wrong, or too large
        │   └── PhoneRejected        a write: GHL does not take the phone
        └── DailyQuotaReached        the day's requests of the location are used up

An error knows method, route template, status, GHL's trace id and Retry-After. It never holds a body, an e-mail, a phone
number or a token: GHL's text is read to pick the branch and then dropped.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from ghl_pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Where an error happened: enough to find the call in GHL's own logs, nothing of a person."""

    location_id: str
    method: str
    route: str
    status: int | None = None
    trace_id: str | None = None
    retry_after: float | None = None

    def __str__(self) -> str:
        """One phrase: location, method, route, status and trace id."""
        status = f" ({self.status})" if self.status is not None else ""
        trace = f", trace {self.trace_id}" if self.trace_id else ""
        return f"location {self.location_id}: {self.method} {self.route}{status}{trace}"


class GhlError(PipelineError):
    """Base of everything the GHL client raises."""

    advice = ""

    def __init__(self, facts: CallFacts, what: str = "") -> None:
        self.facts = facts
        said = f" {what}" if what else f" {self.what}"
        advice = f". {self.advice.format(location=facts.location_id)}" if self.advice else ""
        super().__init__(f"{type(self).__name__}: {facts}{said}{advice}")

    what = "failed"


class TransientGhlError(GhlError):
    """Worth trying again."""


class GhlTimeout(TransientGhlError):
    """No whole answer within the time allowed."""

    what = "gave no answer in time"


class GhlUnreachable(TransientGhlError):
    """The connection could not be made, or broke."""

    what = "could not be reached"
    advice = "Check GHL_API_URL and the network"


class RateLimited(TransientGhlError):
    """429."""

    what = "was refused for its rate"


class GhlServerError(TransientGhlError):
    """5xx or 408."""

    what = "failed at GHL"


class SearchContextLost(TransientGhlError):
    """GHL's search lost its snapshot ("point in time" context); the same search works after a pause."""

    what = "lost its search context"


class UnreadableAnswer(TransientGhlError):
    """A success status with a body that is not what GHL sends (a proxy's page, half a document)."""

    what = "answered something that is not GHL's JSON"


class PermanentGhlError(GhlError):
    """Trying again changes nothing until a person acts."""


class TokenRejected(PermanentGhlError):
    """401 for the token itself."""

    what = "refused the token"
    advice = (
        "Make a new private integration token in the sub-account and store it with: "
        "ghl-pipeline clients set-token {location}"
    )


class LocationAccessDenied(PermanentGhlError):
    """The token belongs to another location."""

    what = "says the token has no access to this location"
    advice = "Check that the client's location id and token come from the same sub-account"


class ScopeMissing(PermanentGhlError):
    """The token lacks a scope, or is of the wrong kind (an agency's)."""

    what = "says the token may not do this"
    advice = (
        "Add the scopes contacts.readonly, locations.readonly and users.readonly to the private integration, and "
        "contacts.write for interested leads, conversations/message.readonly for messages, calendars.readonly for free "
        "times"
    )


class ContactNotFound(PermanentGhlError):
    """GHL has no contact with this id (any more)."""

    what = "found no such contact"


class CalendarNotFound(PermanentGhlError):
    """GHL has no calendar with this id (any more)."""

    what = "found no such calendar"


class DuplicateContact(PermanentGhlError):
    """A write was refused because another contact has the address or number. Holds that contact's id."""

    what = "would have made a duplicate contact"

    def __init__(self, facts: CallFacts, contact_id: str | None) -> None:
        super().__init__(facts)
        self.contact_id = contact_id


class RequestRejected(PermanentGhlError):
    """Any other 4xx: the request is wrong, or larger than GHL takes."""

    what = "was rejected"


class PhoneRejected(RequestRejected):
    """A contact was not written because GHL does not take its phone, or the country of it."""

    what = "did not take the phone"


class DailyQuotaReached(PermanentGhlError):
    """The location's requests of this UTC day are used up; the work goes on after the reset."""

    what = "had to wait: the location's daily requests are used up"
    advice = "The work goes on from its resume point after 00:00 UTC"

    def __init__(self, facts: CallFacts, resets_at: datetime | None = None) -> None:
        super().__init__(facts)
        self.resets_at = resets_at


# Elasticsearch's words for a lost point-in-time snapshot; GHL passes them on under changing statuses.
_SEARCH_CONTEXT = re.compile(r"point[ _-]?in[ _-]?time|search[ _]context", re.IGNORECASE)
# Elasticsearch abbreviates it, but in a refusal the same letters are a private integration token.
_SEARCH_CONTEXT_ABBREVIATED = re.compile(r"\bpit\b.*(expired|not found|missing)", re.IGNORECASE)
_VERSION_HEADER = re.compile(r"version header", re.IGNORECASE)
_NO_ACCESS_TO_LOCATION = re.compile(r"does not have access to this location", re.IGNORECASE)
_SCOPE = re.compile(
    r"authorized for this scope|not allowed to access this scope|user type mismatch|permission", re.IGNORECASE
)
_NOT_FOUND = re.compile(r"contact not found|contact with id .* not found", re.IGNORECASE)
_NO_CALENDAR = re.compile(r"calendar.{0,80}(?:not found|not exist|deleted)|no calendar", re.IGNORECASE)
_DUPLICATE = re.compile(r"does not allow duplicated contacts", re.IGNORECASE)

# The texts are not documented. "Invalid country calling code", INVALID_COUNTRY, NOT_A_NUMBER, TOO_SHORT and their like
# are libphonenumber's own, the first was met by others; a refused type reads "phone must be a string". Parts of words
# count, because of contactPhone and NOT_A_NUMBER.
_PHONE = re.compile(r"phone|mobile|number|country|calling code|too[_ ](?:short|long)|invalid[_ ]length", re.IGNORECASE)
# It names the phone among what is missing; without any phone it would say the same.
_NO_IDENTITY = re.compile(r"contacts without email, phone", re.IGNORECASE)

CONTACT_ROUTE = "/contacts/{contactId}"
CONTACTS_ROUTE = "/contacts/"
CALENDAR_ROUTE = "/calendars/{calendarId}"
FREE_SLOTS_ROUTE = "/calendars/{calendarId}/free-slots"


def error_for_status(  # noqa: PLR0911 - one return a branch of the tree reads best
    facts: CallFacts, message: str, duplicate_of: str | None = None
) -> GhlError:
    """Picks the error for a non-2xx answer.

    Args:
        facts: the call, with its status set.
        message: GHL's `message`, joined when it is a list. Read here, kept nowhere.
        duplicate_of: `meta.contactId` of a duplicate refusal.

    The texts are those observed in the wild: GHL says 401 for a missing `Version` header and for a missing scope, 400
    for an unknown contact, and both 401 and 403 for a token of another location, so the status alone does not decide.
    """
    status = facts.status or 0
    if _SEARCH_CONTEXT.search(message):
        return SearchContextLost(facts)
    if status not in (401, 403) and _SEARCH_CONTEXT_ABBREVIATED.search(message):
        return SearchContextLost(facts)
    if status == 429:
        return RateLimited(facts)
    if status == 408 or status >= 500:
        return GhlServerError(facts)
    if status in (401, 403):
        return _refusal(facts, message)
    if status == 400 and _DUPLICATE.search(message):
        return DuplicateContact(facts, duplicate_of)
    if facts.route == CONTACT_ROUTE and (status == 404 or (status == 400 and _NOT_FOUND.search(message))):
        return ContactNotFound(facts)
    if _is_about_a_lost_calendar(facts, message):
        return CalendarNotFound(facts)
    return PhoneRejected(facts) if _is_about_the_phone(facts, message) else RequestRejected(facts)


def _is_about_a_lost_calendar(facts: CallFacts, message: str) -> bool:
    """Whether the id in the path was the mistake. A calendar's own route takes nothing else that could be wrong."""
    if facts.route not in (CALENDAR_ROUTE, FREE_SLOTS_ROUTE) or facts.status not in (400, 404, 422):
        return False
    return facts.status == 404 or facts.route == CALENDAR_ROUTE or _NO_CALENDAR.search(message) is not None


def _is_about_the_phone(facts: CallFacts, message: str) -> bool:
    """Whether a contact was not written for its phone, if it had one. Searches are refused for numbers, too."""
    is_write = (facts.method, facts.route) in {("POST", CONTACTS_ROUTE), ("PUT", CONTACT_ROUTE)}
    names_it = _PHONE.search(message) is not None and not _NO_IDENTITY.search(message)
    return is_write and facts.status in (400, 422) and names_it


def _refusal(facts: CallFacts, message: str) -> GhlError:
    if _NO_ACCESS_TO_LOCATION.search(message):
        return LocationAccessDenied(facts)
    if _SCOPE.search(message):
        return ScopeMissing(facts)
    if facts.status == 401 and _VERSION_HEADER.search(message):
        return RequestRejected(facts)
    return TokenRejected(facts) if facts.status == 401 else LocationAccessDenied(facts)
