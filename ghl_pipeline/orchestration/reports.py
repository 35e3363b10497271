"""What a capability says about a location, and where it says it, without knowing Dagster.

`history.py` turns this into events on asset partitions; tests keep it in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

Value: TypeAlias = int | float | str | bool
TableRow: TypeAlias = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class Report:
    """Counts and ids of one step at one location; never a value of a person.

    `values` are plotted over time when they are numbers; `tables` are shown as tables; `data` is kept as JSON for
    programs; `charts` are Markdown for people.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    tables: Mapping[str, Sequence[TableRow]] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    charts: Mapping[str, str] = field(default_factory=dict)


class History(Protocol):
    """The materialization history of some assets: what it says, and what a run adds. Calls block for milliseconds.

    `attempt` names what belongs together: a backfill, or a run with its automatic retries.
    """

    @property
    def attempt(self) -> str:
        """The id of this attempt."""

    @property
    def run_id(self) -> str | None:
        """The run that writes, None outside one."""

    def last_done(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """The values of the last materialization; None when there is none."""

    def last_progress(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """The values of the last progress event; None when there is none."""

    def done(self, asset: str, location_id: str, report: Report) -> None:
        """The step is complete for the location: a materialization."""

    def progress(self, asset: str, location_id: str, report: Report) -> None:
        """The step has come so far: an observation; the partition does not count as materialized by it."""


class NoHistory:
    """For work outside any run: remembers nothing."""

    attempt = "no history"
    run_id: str | None = None

    def last_done(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """Always None."""

    def last_progress(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """Always None."""

    def done(self, asset: str, location_id: str, report: Report) -> None:
        """Forgets it."""

    def progress(self, asset: str, location_id: str, report: Report) -> None:
        """Forgets it."""


def bar_chart(counts: Mapping[str, int], width: int = 30, *, unit: str = "leads") -> str:
    """Counts as a Markdown table with a bar each, scaled to the largest; zeros are left out."""
    largest = max(counts.values(), default=0)
    if largest == 0:
        return "_nothing_"
    rows = [
        f"| {name} | {count:,} | {'█' * max(1, round(width * count / largest))} |"
        for name, count in counts.items()
        if count
    ]
    return "\n".join([f"| | {unit} | |", "|---|---:|:---|", *rows])
