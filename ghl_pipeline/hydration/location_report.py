"""What the three steps report of a location: counts by reason, outcome and field, calls, waits; no person's value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import msgspec

from ghl_pipeline.hydration.outcomes import REPAIRED, Counts, Reason
from ghl_pipeline.hydration.plan import Plan
from ghl_pipeline.hydration.work_list import WorkList
from ghl_pipeline.orchestration.reports import Report, bar_chart


@dataclass(frozen=True, slots=True)
class Spent:
    """What the work on a list has cost so far, interrupted runs included: requests, seconds, seconds on the limit."""

    requests: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0

    def plus(self, requests: int, seconds: float, waited_seconds: float) -> "Spent":
        """This and what came since."""
        return Spent(self.requests + requests, self.seconds + seconds, self.waited_seconds + waited_seconds)

    def values(self, leads: int) -> dict[str, int | float]:
        """As report values; `requests_per_lead` counts the leads looked up."""
        return {
            "requests": self.requests,
            "requests_per_lead": round(self.requests / leads, 5) if leads else 0.0,
            "seconds": round(self.seconds, 3),
            "seconds_waited_on_limit": round(self.waited_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """How far the lookups of a list have come: everything up to `position` is stored."""

    work_list: int
    position: int
    last_lead_id: int
    spent: Spent

    @classmethod
    def from_history(cls, values: Mapping[str, object] | None, work_list: WorkList) -> "ResumePoint":
        """The point that a progress event holds; the start of the list when it is of another list, or there is none."""
        if values is None or values.get("work_list") != work_list.id:
            return cls(work_list.id, 0, 0, Spent())
        return cls(
            work_list.id,
            _whole(values, "position"),
            _whole(values, "last_lead_id"),
            Spent(_whole(values, "requests"), _real(values, "seconds"), _real(values, "seconds_waited_on_limit")),
        )


@dataclass(frozen=True, slots=True)
class LocationReport:
    """One location's result as the CLI prints it and `location_attempts` keeps it."""

    location: str
    eligible: int
    outcomes: Mapping[str, int]
    fields: Mapping[str, int]
    requests: int
    seconds: float
    seconds_waited_on_limit: float
    dry_run: bool = False

    @classmethod
    def of(cls, location_id: str, counts: Counts, spent: Spent, *, dry_run: bool = False) -> "LocationReport":
        """From the final counts of a list."""
        return cls(
            location_id,
            counts.leads,
            counts.outcome_counts(),
            counts.field_counts(),
            spent.requests,
            round(spent.seconds, 3),
            round(spent.waited_seconds, 3),
            dry_run,
        )

    @property
    def repaired(self) -> int:
        """Leads in which something was written."""
        return sum(self.outcomes.get(outcome.value, 0) for outcome in REPAIRED)

    def as_dict(self) -> dict[str, object]:
        """As JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "LocationReport":
        """From what `as_dict` gave, as the history keeps it. Raises msgspec.ValidationError for anything else."""
        told = msgspec.convert(values, cls)
        # The history sorts names; people read them in the order of the enums.
        order = Counts()
        return replace(
            told,
            outcomes=order.outcome_counts() | dict(told.outcomes),
            fields=order.field_counts() | dict(told.fields),
        )


def eligible_report(work_list: WorkList, reasons: Mapping[Reason, int]) -> Report:
    """For `eligible_leads`: how many leads are on the list and why."""
    by_reason = {reason.name.lower(): count for reason, count in reasons.items() if reason.name}
    return Report(
        values={
            "work_list": work_list.id,
            "eligible": work_list.listed,
            "scope": work_list.scope.value,
            "resumed": work_list.was_resumed,
        },
        tables={"by_reason": [{"reason": name, "leads": count} for name, count in by_reason.items()]},
        charts={"reasons": bar_chart(by_reason)},
    )


def progress_report(point: ResumePoint, listed: int, plan: Plan | None = None) -> Report:
    """For a progress event of `resolved_contacts`; with the plan while its pull goes on."""
    pulling = {} if plan is None else {"contacts_pulled": plan.received, "contacts_to_pull": plan.total or 0}
    return Report(
        values={
            **pulling,
            "work_list": point.work_list,
            "position": point.position,
            "last_lead_id": point.last_lead_id,
            "listed": listed,
            **point.spent.values(point.position),
        }
    )


def resolved_report(
    point: ResumePoint, counts: Mapping[str, int], *, plan: Plan, groups: str, resumed_from: int, complete: bool
) -> Report:
    """For `resolved_contacts`: what the lookups brought, how they were made and why so, and what they cost."""
    looked_up = sum(counts.values())
    return Report(
        values={
            "work_list": point.work_list,
            "position": point.position,
            "last_lead_id": point.last_lead_id,
            "complete": complete,
            "resumed_from_position": resumed_from,
            "groups": groups,
            "failed": counts.get("failed", 0),
            **plan.values(),
            **point.spent.values(looked_up),
        },
        tables={"lookups": [{"outcome": name, "leads": count} for name, count in counts.items()]},
        charts={"lookups_chart": bar_chart(counts)},
    )


def hydrated_report(work_list_id: int, report: LocationReport) -> Report:
    """For `hydrated_leads`: leads by outcome, fields filled, and what the whole list has cost."""
    spent = Spent(report.requests, report.seconds, report.seconds_waited_on_limit)
    return Report(
        values={
            "work_list": work_list_id,
            "leads": report.eligible,
            "repaired": report.repaired,
            "not_found": report.outcomes.get("not_found", 0),
            "failed": report.outcomes.get("failed", 0),
            "dry_run": report.dry_run,
            **spent.values(report.eligible),
        },
        tables={
            "by_outcome": [{"outcome": name, "leads": count} for name, count in report.outcomes.items()],
            "by_field": [{"field": name, "leads": count} for name, count in report.fields.items()],
        },
        data={"location_report": report.as_dict()},
        charts={"outcomes": bar_chart(report.outcomes), "fields_filled": bar_chart(report.fields)},
    )


def _whole(values: Mapping[str, object], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0


def _real(values: Mapping[str, object], name: str) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
