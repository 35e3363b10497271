"""What a caller may ask of a hydration run."""

from dataclasses import dataclass
from enum import StrEnum

from ghl_pipeline.hydration.work_list import Scope

# Locations wait on their limits most of the time, so far more of them than cores overlap well.
DEFAULT_CONCURRENCY = 100
# Runs of Dagster wait so long for a location that another one has, which takes seconds or minutes. With the schedules
# on, 27 of 1,000 locations of a backfill were in use for a moment; they need not turn red for it.
BUSY_WAIT_SECONDS = 600.0


class Step(StrEnum):
    """The steps of a location, named as their assets."""

    ELIGIBLE_LEADS = "eligible_leads"
    RESOLVED_CONTACTS = "resolved_contacts"
    HYDRATED_LEADS = "hydrated_leads"


ALL_STEPS = frozenset(Step)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        steps: which steps; a later one without the earlier works on what is there.
        scope: all eligible leads, or only those never looked up (what a new-lead run wants).
        fresh: start the list anew even if one was interrupted.
        dry_run: look up and count what would change; write nothing to leads.
        direct: page by page without work list and resume point (Sync All).
        max_leads: at most so many leads per location; None for all.
        concurrency: locations worked on at the same time.
        page_size: leads looked up, recorded and written at a time; None for the setting's.
        busy_wait_seconds: how long to wait for a location that another run holds; it takes no place meanwhile.
    """

    steps: frozenset[Step] = ALL_STEPS
    scope: Scope = Scope.ALL
    fresh: bool = False
    dry_run: bool = False
    direct: bool = False
    max_leads: int | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    page_size: int | None = None
    busy_wait_seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all of a location's work is asked for, so that its success makes up for an earlier failure."""
        return self.scope is Scope.ALL and self.steps == ALL_STEPS

    @property
    def is_trial(self) -> bool:
        """Whether a person tries it out first: what fails then must not be asked for again as a run without limits."""
        return self.dry_run or self.max_leads is not None
