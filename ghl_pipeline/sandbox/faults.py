"""What can go wrong on purpose, for one location or for all, and the dice that decide when.

`Faults` is what `POST /_sandbox/faults` takes; `FaultBoard` holds what is set. Dice are seeded and each location has
its own, so the same requests of a location meet the same mishaps whatever the other locations do.
"""

import random
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from ghl_pipeline.errors import InvalidInput

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Mishap(StrEnum):
    """What becomes of one request."""

    NONE = "none"
    SERVER_ERROR = "server_error"  # answered with `error_status`; nothing was done
    SEARCH_CONTEXT_LOST = "search_context_lost"  # searches only: the "point in time" text
    HANG = "hang"  # answered, after `hang_seconds`
    DROPPED = "dropped"  # the work is done, the connection ends in the middle of the answer
    GARBAGE = "garbage"  # the work is done, the answer is not JSON
    FAILED = "failed"  # one of those that `fail_at` counts to; answered with `fail_status`; nothing was done


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be made to go wrong. The default is a server without faults.

    Rates are shares of the requests that the rate limit lets in. A request meets at most one mishap, so the rates add
    up to 1 at most.
    """

    seed: int = 0
    routes: tuple[str, ...] | None = None
    """Route templates (`POST /contacts/search`) whose requests may meet a mishap; None means every route."""
    times: Count | None = None
    """Most mishaps per location; afterwards all is well. None means no end."""

    error_rate: Share = 0.0
    error_status: Annotated[int, msgspec.Meta(ge=500, le=599)] = 500
    search_context_rate: Share = 0.0
    search_context_status: Literal[400, 404, 422, 500] = 400
    hang_rate: Share = 0.0
    hang_seconds: Seconds = 20.0
    drop_rate: Share = 0.0
    garbage_rate: Share = 0.0

    fail_at: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The so-manyth request of the location to GHL, or of the user to Calendly, fails, of any route, counted from
    when the faults are set."""
    fail_requests: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    """So many requests in a row fail from there on; None means all of them."""
    fail_status: Literal[400, 401, 403, 429, 500, 503] | None = 503
    """How they fail; None cuts the connection in the middle of the answer, after the work is done."""

    latency_seconds: Seconds = 0.0
    """Added to every answer."""

    storm_requests: Count = 0
    """That many next requests of a location are answered 429."""
    storm_seconds: Seconds = 0.0
    """Every request in that time is answered 429."""
    retry_after: Seconds | None = None
    """Value of Retry-After on each 429; None sends none, as GHL documents none."""
    retry_after_as_date: bool = False

    token_revoked: bool = False
    missing_scopes: tuple[str, ...] = ()
    """Scopes the token lacks, e.g. `contacts.readonly`."""

    max_or_leaves: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """An OR group with more leaves is refused with `or_refusal_status`."""
    or_refusal_status: Literal[400, 413, 422, 500] = 400
    or_answers_first_leaf_only: bool = False
    """OR groups are accepted and silently answer for their first member."""
    or_answers_first_leaves: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The same, for that many first members."""
    cursors_refused: bool = False
    """A search with `searchAfter` is refused with 400, so that nobody gets beyond a first page."""
    ranges_refused: bool = False
    """A search by a date range is refused with 400."""
    ranges_find_nothing: bool = False
    """A search by a date range is accepted and silently finds nobody."""
    unfiltered_status: Literal[400, 422, 500] | None = None
    """A search without filters, as a pull of all contacts makes, is answered with this status."""
    total_surplus: Count = 0
    """A search's `total` says so many contacts more than there are."""
    total_at_most: Count | None = None
    """A search's `total` stops counting there, as Elasticsearch's does at 10,000 unless told otherwise."""
    case_sensitive_email: bool = False
    primary_email_only: bool = False
    """`email eq` does not look at additional e-mails; whether GHL does is not documented."""
    lower_case_names_only: bool = False
    """Search items lack firstName and lastName, as HighLevel's page on the search says."""
    hidden_from_search: tuple[str, ...] = ()
    """Ids of contacts that searches and lists do not show, and of contacts or opportunities that the list of
    opportunities does not show; GET does."""
    scan_ends_after: Count | None = None
    """A search without filters, or by dates alone, shows no more than its first so many contacts; its `total` does."""
    index_lag_seconds: Seconds = 0.0
    """Searches see a write that much later; GET sees it at once."""
    cursor_lifetime_seconds: Seconds = 120.0
    """A cursor of the message export is refused when nobody used it for so long; GHL's was seen to die after 120 s."""
    export_repeats_cursor: bool = False
    """From its second page on, the message export gives the cursor it was given."""
    export_ignores_order: bool = False
    """The message export comes newest first, whatever `sortOrder` says."""
    export_ignores_start: bool = False
    """The message export begins with the first message ever, whatever `startDate` says."""
    empty_calendars: tuple[str, ...] = ()
    """Ids of calendars, or of Calendly's event types, that answer as if they were full; `*` means all."""
    failing_pages: tuple[int, ...] = ()
    """Numbers of the pages of EmailBison's lists that are answered with `error_status`, each time."""
    pages_loop: bool = False
    """The second page of a list of EmailBison's or Calendly's leads back to the first."""
    foreign_next_link: bool = False
    """`links.next` of EmailBison's lists leads to another host."""
    duplicate_lookup_lags: bool = False
    """The duplicate lookup sees no more than searches do; whether GHL's does is not documented."""
    duplicate_lookup_follows_setting: bool = False
    """In a location that allows duplicates, the duplicate lookup knows of none, as GHL documents it."""
    refused_properties: tuple[str, ...] = ()
    """Properties that a change of a contact is refused for, with 422, as if it did not take them."""
    refused_phone: str | None = None
    """A contact that is written with a phone is refused with this text."""
    refused_phone_status: Literal[400, 422] = 400
    creates_what_it_refuses: bool = False
    """A contact that is refused for its phone is created all the same, without it, as was once reported."""
    clock_shift_seconds: float = 0.0
    """GHL's clock, in the Date header and in the dates of what is written, is that much ahead; behind if negative."""

    def __post_init__(self) -> None:
        """Refuses rates that add up to more than every request."""
        rates = (self.error_rate, self.search_context_rate, self.hang_rate, self.drop_rate, self.garbage_rate)
        if sum(rates) > 1 + 1e-9:
            raise ValueError("the rates add up to more than 1")


def faults_from(fields: object) -> Faults:
    """Faults from plain values, checked.

    Raises:
        InvalidInput: an unknown fault, or a value out of range; the text names it.
    """
    try:
        return msgspec.convert(fields, Faults)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"These faults cannot be set: {error}. See ghl_pipeline/sandbox/faults.py.") from None


class FaultDice:
    """The faults of one location and what is left of them."""

    def __init__(self, faults: Faults, location_id: str, now: float) -> None:
        self.faults = faults
        self._random = random.Random(f"{faults.seed}/{location_id}")  # noqa: S311 - repeatable, not secret
        self._mishaps_left = faults.times
        self._storm_requests_left = faults.storm_requests
        self._storm_until = now + faults.storm_seconds
        self._arrived = 0

    def fails(self) -> bool:
        """Counts a request to GHL or Calendly; whether it is one of those that are to fail."""
        self._arrived += 1
        first, count = self.faults.fail_at, self.faults.fail_requests
        return first is not None and self._arrived >= first and (count is None or self._arrived < first + count)

    def in_storm(self, now: float) -> bool:
        """Whether this request is answered 429; uses up one of `storm_requests`."""
        if self._storm_requests_left > 0:
            self._storm_requests_left -= 1
            return True
        return now < self._storm_until

    def roll(self, route: str) -> Mishap:
        """What becomes of the next request of `route`."""
        faults = self.faults
        if (faults.routes is not None and route not in faults.routes) or self._mishaps_left == 0:
            return Mishap.NONE
        roll = self._random.random()
        for mishap, rate in (
            (Mishap.SERVER_ERROR, faults.error_rate),
            (Mishap.SEARCH_CONTEXT_LOST, faults.search_context_rate if route == "POST /contacts/search" else 0.0),
            (Mishap.HANG, faults.hang_rate),
            (Mishap.DROPPED, faults.drop_rate),
            (Mishap.GARBAGE, faults.garbage_rate),
        ):
            if roll < rate:
                if self._mishaps_left is not None:
                    self._mishaps_left -= 1
                return mishap
            roll -= rate
        return Mishap.NONE


class FaultBoard:
    """The faults that are set: one set for all locations, and sets of single locations that replace it there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._common = (Faults(), clock())
        self._own: dict[str, tuple[Faults, float]] = {}
        self._dice: dict[str, FaultDice] = {}

    def set(self, faults: Faults, location_id: str | None = None) -> None:
        """Sets the faults of one location, or of all that have none of their own; starts their dice and storms anew."""
        if location_id is None:
            self._common = (faults, self._clock())
            self._dice = {key: dice for key, dice in self._dice.items() if key in self._own}
        else:
            self._own[location_id] = (faults, self._clock())
            self._dice.pop(location_id, None)

    def reset(self) -> None:
        """All is well everywhere."""
        self._own.clear()
        self.set(Faults())

    def of(self, location_id: str) -> FaultDice:
        """The dice of a location."""
        dice = self._dice.get(location_id)
        if dice is None:
            faults, set_at = self._own.get(location_id, self._common)
            dice = self._dice[location_id] = FaultDice(faults, location_id, set_at)
        return dice
