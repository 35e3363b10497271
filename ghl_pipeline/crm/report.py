"""What keeping a location in step came to: counts by what became of contacts, vendors and leads. Never a value."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ghl_pipeline.crm.missing import TooManyMissing
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.orchestration.failures import PartlyFailed
from ghl_pipeline.orchestration.reports import Report, Value, bar_chart

# What every report is summed up by, in this order.
STATS = (
    "vendors_updated",
    "vendors_created",
    "vendors_missing_in_ghl",
    "leads_updated",
    "leads_created",
    "leads_deleted",
    "ghl_contacts_fetched",
    "errors",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmReport:
    """One run at one location; of a dry run, what it would have written.

    Attributes:
        location: its id.
        mode: how the contacts were fetched: `nothing`, `full` or `changes`.
        dry_run: whether nothing was written.
        vendors_updated, leads_updated: rows that were changed, those that came back included.
        vendors_created, leads_created: rows that were made.
        vendors_missing_in_ghl, leads_deleted: rows that were marked because their contact is gone.
        vendors_back, leads_back: rows that were marked before and have a contact again.
        ghl_contacts_fetched: contacts that came, each once.
        classes: of them, how many are a vendor, a lead, staff, or other.
        reasons: of them, by why they are that.
        reclassified: of them, leads that are vendors now; their lead's row is left as it is.
        known_staff: vendors and leads that are linked to contacts of staff, and were left as they are.
        errors: vendors and leads that could not be looked up.
        conflicts: contacts and rows left alone, in part or whole, because a contact or an address is another row's.
        ambiguous: addresses with several contacts of which none is the likelier one.
        changed_meanwhile: rows that somebody else wrote during the run; the next one sees to them.
        coverage_unread: vendors of whose coverage a part, or all, could not be understood.
        unreadable_fields: vendors by the field that holds something other than it is for.
        share_missing: by side, 0 to 1: rows newly found gone of those with a contact.
        calls: requests by what they were for, those for fields and users included.
        requests: all requests that were sent, retries included.
        seconds: how long it took.
        seconds_waited_on_limit: of them, spent waiting on the rate limit.
        warnings: what a person should know.
    """

    location: str
    mode: str
    dry_run: bool
    vendors_updated: int = 0
    vendors_created: int = 0
    vendors_missing_in_ghl: int = 0
    vendors_back: int = 0
    leads_updated: int = 0
    leads_created: int = 0
    leads_deleted: int = 0
    leads_back: int = 0
    ghl_contacts_fetched: int = 0
    classes: Mapping[str, int] = field(default_factory=dict[str, int])
    reasons: Mapping[str, int] = field(default_factory=dict[str, int])
    reclassified: int = 0
    known_staff: int = 0
    errors: int = 0
    conflicts: int = 0
    ambiguous: int = 0
    changed_meanwhile: int = 0
    coverage_unread: int = 0
    unreadable_fields: Mapping[str, int] = field(default_factory=dict[str, int])
    share_missing: Mapping[str, float] = field(default_factory=dict[str, float])
    calls: Mapping[str, int] = field(default_factory=dict[str, int])
    requests: int = 0
    seconds: float = 0.0
    seconds_waited_on_limit: float = 0.0
    warnings: Sequence[str] = ()

    @property
    def unclassified(self) -> int:
        """Contacts that nobody here knows and that have no sign of a vendor or lead."""
        return self.classes.get("other", 0)

    @property
    def staff(self) -> int:
        """Contacts of the client's own people."""
        return self.classes.get("staff", 0)

    def stats(self) -> dict[str, int]:
        """The counts that every report is summed up by."""
        return {name: getattr(self, name) for name in STATS}

    def as_dict(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {**asdict(self), "unclassified": self.unclassified, "staff": self.staff}

    def as_record(self) -> dict[str, object]:
        """As `location_attempts` keeps it."""
        return self.as_dict()

    def as_reports(self) -> tuple[Report, Report, Report]:
        """For the materializations of the contacts, the vendors and the leads."""
        return self._contacts(), self._vendors(), self._leads()

    def _contacts(self) -> Report:
        return Report(
            values={
                "ghl_contacts_fetched": self.ghl_contacts_fetched,
                "unclassified": self.unclassified,
                "staff": self.staff,
                "reclassified": self.reclassified,
                "known_staff": self.known_staff,
                "errors": self.errors,
                **self._cost(),
                "warnings": "; ".join(self.warnings),
            },
            tables={
                "by_class": _rows("class", "contacts", self.classes),
                "by_reason": _rows("reason", "contacts", self.reasons),
                "calls": _rows("call", "requests", self.calls),
            },
            data={"location_report": self.as_dict()},
            charts={"classes": bar_chart(self.classes, unit="contacts")},
        )

    def _vendors(self) -> Report:
        became = {
            "updated": self.vendors_updated,
            "created": self.vendors_created,
            "missing_in_ghl": self.vendors_missing_in_ghl,
            "back": self.vendors_back,
        }
        return Report(
            values={
                **{f"vendors_{name}": count for name, count in became.items()},
                "reclassified": self.reclassified,
                "share_missing": self.share_missing.get("vendor", 0.0),
                "coverage_unread": self.coverage_unread,
                **self._shared(),
            },
            tables={"unreadable_fields": _rows("field", "vendors", self.unreadable_fields)},
            charts={"vendors": bar_chart(became, unit="vendors")},
        )

    def _leads(self) -> Report:
        became = {
            "updated": self.leads_updated,
            "created": self.leads_created,
            "deleted": self.leads_deleted,
            "back": self.leads_back,
        }
        return Report(
            values={
                **{f"leads_{name}": count for name, count in became.items()},
                "reclassified": self.reclassified,
                "share_missing": self.share_missing.get("lead", 0.0),
                **self._shared(),
            },
            charts={"leads": bar_chart(became)},
        )

    def _shared(self) -> dict[str, Value]:
        return {
            "conflicts": self.conflicts,
            "ambiguous": self.ambiguous,
            "changed_meanwhile": self.changed_meanwhile,
            "errors": self.errors,
            **self._cost(),
        }

    def _cost(self) -> dict[str, Value]:
        return {
            "mode": str(self.mode),
            "requests": self.requests,
            "seconds": self.seconds,
            "seconds_waited_on_limit": self.seconds_waited_on_limit,
        }


class CrmPartlyFailed(PartlyFailed):
    """Some vendors or leads could not be looked up; everybody else is in step. Holds the report of what was done."""

    def __init__(self, report: CrmReport, error: GhlError) -> None:
        self.report = report
        self.error = error
        super().__init__(
            f"{type(self).__name__}: location {report.location}: {report.errors} vendors or leads could not be looked "
            f"up and were left as they are, nobody of them marked missing; the others are in step. The reason, of the "
            f"first: {error}. The next run looks them up again"
        )


class WouldStop(TooManyMissing):
    """A dry run saw that a run that writes would stop, as `TooManyMissing`. Holds the report of what it would write."""

    def __init__(self, report: CrmReport, error: TooManyMissing) -> None:
        self.report = report
        super().__init__(f"A run that writes would stop here. {error}", error.sides)


def _rows(name: str, unit: str, counts: Mapping[str, int]) -> list[dict[str, int | float | str]]:
    return [{name: key, unit: count} for key, count in counts.items() if count]
