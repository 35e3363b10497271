"""What the sandbox was asked, as counts: never an e-mail, an id or a name of a person.

Tests and the demo read it to prove what a client did: how many requests, how fast, what was created, what was asked
twice. It counts on its own, apart from `limits.py`, so that a wrong limiter cannot hide a client that is too fast.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

SearchKind = Literal["ids", "emails", "dates", "none", "other"]
"""What an answered search selects by: only ids, only e-mails, only dates, no filter at all, or anything else."""
LIST_SEARCHES: Final = frozenset({"dates", "none"})
"""Those that go through a list of contacts, whoever they are."""


@dataclass
class PeakRate:
    """The highest number of arrivals in any window of `interval_seconds`, exact.

    A window is fullest when it ends at an arrival, so looking at each arrival's own window is enough.
    """

    interval_seconds: float
    highest: int = 0
    _arrivals: deque[float] = field(default_factory=deque)

    def add(self, at: float) -> None:
        """Counts an arrival at epoch second `at`, not earlier than the one before."""
        self._arrivals.append(at)
        while self._arrivals[0] + self.interval_seconds <= at:
            self._arrivals.popleft()
        self.highest = max(self.highest, len(self._arrivals))


@dataclass
class Lookups:
    """How many leaves of one field were asked in answered searches, and how often one was asked again."""

    asked: int = 0
    _times: Counter[int] = field(default_factory=Counter)

    def add(self, value: str) -> None:
        """Counts one leaf; only a hash of its value is kept."""
        self.asked += 1
        self._times[hash(value)] += 1

    def as_counts(self) -> dict[str, int]:
        """`asked` leaves, of `distinct` values, `repeated` beyond the first time, one value `most_often`."""
        distinct = len(self._times)
        most_often = max(self._times.values(), default=0)
        return {
            "asked": self.asked,
            "distinct": distinct,
            "repeated": self.asked - distinct,
            "most_often": most_often,
        }


class LocationStatistics:
    """The counts of one location."""

    def __init__(self, interval_seconds: float) -> None:
        self.creates = 0
        self.updates = 0
        self.deletes = 0
        self.lookups = {"email": Lookups(), "id": Lookups()}
        self._by_route: dict[str, Counter[int]] = {}
        self._searches: Counter[SearchKind] = Counter()
        self._peak = PeakRate(interval_seconds)

    def admitted(self, at: float) -> None:
        """Counts a request that the rate limit let in at epoch second `at`."""
        self._peak.add(at)

    def answered(self, route: str, status: int) -> None:
        """Counts an answer, of any status, to a request of `route` (method and path template)."""
        self._by_route.setdefault(route, Counter())[status] += 1

    def searched(self, kind: SearchKind) -> None:
        """Counts an answered search of contacts."""
        self._searches[kind] += 1

    def looked_up(self, field: str, value: str) -> None:
        """Counts a leaf of an answered search, if it is one of those by which leads are found."""
        if field in self.lookups:
            self.lookups[field].add(value.lower() if field == "email" else value)

    def as_counts(self) -> dict[str, object]:
        """The counts as plain values for JSON."""
        return {
            "requests": sum(statuses.total() for statuses in self._by_route.values()),
            "by_route": {
                route: {str(status): count for status, count in sorted(statuses.items())}
                for route, statuses in sorted(self._by_route.items())
            },
            "highest_in_window": self._peak.highest,
            "window_seconds": self._peak.interval_seconds,
            "refused_429": sum(statuses[429] for statuses in self._by_route.values()),
            "creates": self.creates,
            "updates": self.updates,
            "deletes": self.deletes,
            "searches": {kind: self._searches[kind] for kind in get_args(SearchKind)},
            "list_calls": sum(count for kind, count in self._searches.items() if kind in LIST_SEARCHES),
            "lookups": {name: lookups.as_counts() for name, lookups in self.lookups.items()},
        }
