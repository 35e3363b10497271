"""The plan of a work list: which of three ways finds its leads' contacts with the fewest calls. Pure.

- *lookup*: leads are asked for, in groups of n.
- *scan*: every contact of the location is pulled, 500 a page, and joined locally.
- *delta*: leads that were looked up before, as they are now, can only have changed if a contact has; so only contacts
  changed since are pulled, and new leads are looked up.

The plan is kept with the list, with the cursor of its pull, so that a killed run goes on where it was.
"""

import math
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

import msgspec

from ghl_pipeline.ghl.payloads import SearchPage
from ghl_pipeline.ghl.search import MAX_PAGE

# Counting the contacts costs a call itself, so that is not asked where looking up costs hardly more.
NOT_WORTH_COUNTING = 2
# What was pulled longer ago is no longer what GHL has.
PULL_IS_GOOD_FOR = timedelta(hours=12)


class Way(StrEnum):
    """How the leads of a list find their contacts."""

    LOOKUP = "lookup"
    SCAN = "scan"
    DELTA = "delta"


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that each way would take; None where it was not counted or is not possible."""

    lookup: int
    scan: int | None = None
    delta: int | None = None

    def cheapest(self) -> Way:
        """The way with the fewest calls. Of equal ones the delta, then the lookup: they pull fewer people's data."""
        ways = {Way.DELTA: self.delta, Way.LOOKUP: self.lookup, Way.SCAN: self.scan}
        return min((way for way in ways if ways[way] is not None), key=lambda way: ways[way] or 0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a list is answered, and how far its pull has come.

    Attributes:
        way: the way chosen.
        upto: leads of the list up to this position are the plan's; later ones came when it was made, and are looked up.
        began_at: when the pull began; a lead that was edited since is looked up.
        since: for a delta, from when on contacts count as changed.
        to_ask: leads never looked up, or not as they are now.
        current: leads looked up before, as they are now.
        costs: what was weighed.
        pulled: whether the pull is through; true for a lookup, which pulls nothing.
        cursor: where the pull goes on, as JSON: what is in it is GHL's business.
        received: contacts pulled.
        total: contacts that GHL said there are to pull, at last.
        gave_up: why the way was given up for lookups, None when it was not.
    """

    way: Way
    upto: int
    began_at: datetime
    since: datetime | None = None
    to_ask: int = 0
    current: int = 0
    costs: Costs = Costs(lookup=0)
    pulled: bool = True
    cursor: str | None = None
    received: int = 0
    total: int | None = None
    gave_up: str | None = None

    def after_page(self, page: SearchPage) -> Self:
        """The plan with one more page of its pull received."""
        received = self.received + len(page.contacts) + page.unreadable
        cursor = None if page.next_cursor is None else msgspec.json.encode(page.next_cursor).decode()
        total = page.total if page.total is not None else self.total
        # Not at `total` alone: what is deleted meanwhile lowers it, and a search engine may stop counting.
        is_full = len(page.contacts) + page.unreadable >= MAX_PAGE
        as_many_as_there_are = not is_full and (total is None or received >= total)
        is_last = cursor is None or cursor == self.cursor or as_many_as_there_are
        return msgspec.structs.replace(self, received=received, cursor=cursor, total=total, pulled=is_last)

    @property
    def search_after(self) -> tuple[object, ...] | None:
        """The cursor as a search takes it."""
        return None if self.cursor is None else tuple(msgspec.json.decode(self.cursor, type=list[object]))

    @property
    def came_short(self) -> bool:
        """Whether the pull ended with fewer contacts than GHL says there are."""
        return self.pulled and self.way is not Way.LOOKUP and self.total is not None and self.received < self.total

    def is_outgrown(self, unanswered: int, beyond: int, now: datetime) -> bool:
        """Whether a plan should be made anew: its pull is old, or most leads without an answer came after it.

        Args:
            unanswered: leads of the list without an answer.
            beyond: those of them that the plan knows nothing of.
            now: on the clock of `began_at`.
        """
        is_old = self.way is not Way.LOOKUP and now - self.began_at > PULL_IS_GOOD_FOR
        return is_old or beyond * 2 > unanswered

    def by_lookups(self, why: str) -> Self:
        """The plan when its way did not work: everything is looked up."""
        return msgspec.structs.replace(self, way=Way.LOOKUP, pulled=True, cursor=None, gave_up=why)

    def covers(self, position: int, *, is_current: bool) -> bool:
        """Whether the lead at `position` is answered by the pull, if nobody edited it since."""
        if self.way is Way.LOOKUP or position > self.upto:
            return False
        return self.way is Way.SCAN or is_current

    def in_words(self) -> str:
        """The choice and what it was made from, for people: one line of counts."""
        weighed = {Way.LOOKUP: self.costs.lookup, Way.DELTA: self.costs.delta, Way.SCAN: self.costs.scan}
        calls = ", ".join(f"{way} {count}" for way, count in weighed.items() if count is not None)
        text = f"{self.way} for {self.to_ask + self.current} leads ({self.to_ask} to ask); calls: {calls}"
        return f"{text}; given up: {self.gave_up}" if self.gave_up else text

    def values(self) -> dict[str, int | str]:
        """The choice and its numbers as report values."""
        numbers = {
            "plan_leads_to_ask": self.to_ask,
            "plan_leads_current": self.current,
            "plan_calls_by_lookup": self.costs.lookup,
            "plan_calls_by_scan": self.costs.scan,
            "plan_calls_by_delta": self.costs.delta,
            "contacts_pulled": self.received,
            "contacts_to_pull": self.total,
        }
        known = {name: value for name, value in numbers.items() if value is not None}
        return {"plan": self.in_words(), "way": self.way.value, **known}


def lookup_calls(leads: int, group_size: int, *, case_matters: bool) -> int:
    """Calls that looking up `leads` takes; one each where the search cannot be trusted with letter case."""
    return leads if case_matters else math.ceil(leads / group_size)


def pull_calls(contacts: int) -> int:
    """Calls that pulling `contacts` takes: a page at least, to learn that there are none."""
    return max(1, math.ceil(contacts / MAX_PAGE))
