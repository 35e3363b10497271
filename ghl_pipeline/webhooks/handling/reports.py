"""What handling says of a location's events: counts and seconds, never a value of a person."""

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.webhooks.outcomes import EventOutcome


@dataclass(frozen=True, slots=True)
class EventsReport:
    """Events of a location that were looked at. `handled` is the sum of the outcomes by construction.

    Attributes:
        outcomes: handled events by `EventOutcome`.
        types: handled events by the name that their sender gives them.
        postponed: failed, to be tried again.
        dead: failed for the last time; they wait for a person.
        requests: calls of the GHL API.
        phones_refused: interested leads whose phone GHL did not take.
        values_refused: interested leads of which GHL did not take another value.
        lags: seconds from the arrival of each handled event to its end.
    """

    outcomes: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    postponed: int = 0
    dead: int = 0
    requests: int = 0
    phones_refused: int = 0
    values_refused: int = 0
    lags: tuple[float, ...] = ()

    @property
    def handled(self) -> int:
        """Events that came to an end."""
        return sum(self.outcomes.values())

    @property
    def looked_at(self) -> int:
        """Events that were tried, whatever became of them."""
        return self.handled + self.postponed + self.dead

    def __add__(self, other: "EventsReport") -> "EventsReport":
        """Both together."""
        return EventsReport(
            dict(Counter(self.outcomes) + Counter(other.outcomes)),
            dict(Counter(self.types) + Counter(other.types)),
            self.postponed + other.postponed,
            self.dead + other.dead,
            self.requests + other.requests,
            self.phones_refused + other.phones_refused,
            self.values_refused + other.values_refused,
            self.lags + other.lags,
        )

    def counts(self) -> dict[str, int | float]:
        """Every count by name, zeros included."""
        return {
            "events_handled": self.handled,
            **{outcome.value: self.outcomes.get(outcome, 0) for outcome in EventOutcome},
            "events_postponed": self.postponed,
            "dead_letters": self.dead,
            "requests": self.requests,
            "phones_refused": self.phones_refused,
            "values_refused": self.values_refused,
            "lag_p50_seconds": round(statistics.median(self.lags), 3) if self.lags else 0.0,
            "lag_max_seconds": round(max(self.lags, default=0.0), 3),
        }

    def told(self) -> Report:
        """As the history of `handled_events` keeps it."""
        by_type: list[dict[str, int | float | str]] = [
            {"type": name, "events": count} for name, count in sorted(self.types.items())
        ]
        return Report(values=self.counts(), tables={"events_by_type": by_type})
