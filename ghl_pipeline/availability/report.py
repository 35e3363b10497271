"""What a run says of the clients' free times. Counts, states and ids; never a link."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from ghl_pipeline.availability.outcomes import Provider, Reason, ResolvedBy, State, in_words
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.reports import Report

# Of a location that was asked for by name while another run was at its calendar.
LEFT_TO_ANOTHER = Report({"skipped": "another run is at this calendar", "requests": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilityReport:
    """One look at one client's calendar.

    Attributes:
        location: its id.
        state: how the free times stand after it; None: the client has neither link nor calendar.
        reason: why they are stale or unsupported.
        provider: whose calendar was asked; None: none was found.
        resolved_by: how it was found.
        slots: free times stored after it.
        added: of them new.
        removed: that were stored before and are not any more, past ones included.
        changed_meanwhile: the link was changed during the look, so that nothing was written; the next run looks again.
        requests: requests sent, retries included.
        seconds: how long it took.
    """

    location: str
    state: State | None
    reason: Reason | None = None
    provider: Provider | None = None
    resolved_by: ResolvedBy | None = None
    slots: int = 0
    added: int = 0
    removed: int = 0
    changed_meanwhile: bool = False
    requests: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}

    def as_report(self) -> Report:
        """For the events of `availability_slots`."""
        if self.state is None:
            skipped = "no calendar; to give one: ghl-pipeline clients set-calendar LOCATION --link URL"
            return Report({"skipped": skipped, "requests": 0})
        words = {"reason": self.reason.value, "reason_in_words": in_words(self.reason)} if self.reason else {}
        return Report(
            values={
                "state": self.state.value,
                **words,
                "slots": self.slots,
                "slots_added": self.added,
                "slots_removed": self.removed,
                "provider": str(self.provider or ""),
                "resolved_by": str(self.resolved_by or ""),
                "requests": self.requests,
                "seconds": self.seconds,
            },
            data={"location_report": self.as_dict()},
        )


@dataclass(frozen=True, slots=True)
class AvailabilityResult:
    """What became of each location.

    `reports` has one of every location that was looked at, also of those in `failures` whose provider failed: their old
    times are kept. `busy`: another run is at work there. `not_reached`: the run's time was over before their turn; they
    are first in the next one.
    """

    reports: tuple[AvailabilityReport, ...]
    failures: tuple[FailedLocation, ...]
    busy: tuple[str, ...] = ()
    not_reached: tuple[str, ...] = ()
    seconds: float = 0.0

    def counts(self) -> Mapping[str, int | float]:
        """Clients by state and reason, slots, requests, seconds."""
        states = Counter(report.state for report in self.reports)
        return {
            **{state.value: states[state] for state in State if state is not State.NEVER},
            **{f"stale_{name}": count for name, count in self.by_reason(State.STALE).items()},
            "without_calendar": states[None],
            "not_reached": len(self.not_reached),
            "failed": len(self.failures),
            "slots": sum(report.slots for report in self.reports),
            "requests": sum(report.requests for report in self.reports),
            "seconds": self.seconds,
        }

    def by_reason(self, state: State) -> Mapping[str, int]:
        """Clients in this state by reason, the most frequent first."""
        reasons = Counter(report.reason for report in self.reports if report.state is state)
        return {reason.value: count for reason, count in reasons.most_common() if reason is not None}
