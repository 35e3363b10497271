"""What is amiss at which location, judged by fixed limits: one rule an asset and question, pure, over all locations.

The asset checks (`checks.py`), the operator's page and `ghl-pipeline status` say the same because they all ask here.
Each location is judged by itself, never the sum: a busy one must not hide a dead one. Locations of deactivated clients
are not judged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ghl_pipeline.operations.status_report import LocationStatus

Row: TypeAlias = dict[str, int | float | str]
# A description that a person reads at a glance; the whole text of an error is in the table.
LONGEST_TEXT = 400


@dataclass(frozen=True, slots=True)
class Amiss:
    """What a rule found at one location.

    `serious`: an error and no warning. `weight` sorts, the worst first. `says` goes on after "location X: " and holds
    counts, ids and sanitised texts only; `row` is the same as columns.
    """

    location: str
    serious: bool
    weight: float
    says: str
    row: Row


# Nothing amiss; and a location that the rule has nothing to say about.
WELL = None
Look: TypeAlias = Callable[[LocationStatus], Amiss | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A question about each location, and what to do where the answer is bad (LOCATION stands for the id)."""

    asset: str
    name: str
    description: str
    advice: str
    concerns: Callable[[LocationStatus], bool]
    look: Look


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a rule found over all locations: `looked_at` of them, those `amiss` with the worst first."""

    rule: Rule
    looked_at: int
    amiss: tuple[Amiss, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is amiss anywhere."""
        return not self.amiss

    @property
    def is_serious(self) -> bool:
        """Whether it is an error somewhere."""
        return any(each.serious for each in self.amiss)

    @property
    def advice(self) -> str:
        """How many, the first by id, and the command that recovers it; empty when all are well."""
        if not self.amiss:
            return ""
        first = self.amiss[0].location
        advice = self.rule.advice.replace("LOCATION", first)
        return f"{len(self.amiss)} of {self.looked_at} locations, first {first}. {advice}"

    @property
    def description(self) -> str:
        """One line: how many, the first by id, and the command that recovers it."""
        if not self.amiss:
            return f"{self.looked_at} locations are well."
        first = self.amiss[0]
        says = first.says if len(first.says) <= LONGEST_TEXT else f"{first.says[:LONGEST_TEXT]} ..."
        return (
            f"{len(self.amiss)} of {self.looked_at} locations are amiss, first {first.location}: {says}. "
            f"{self.rule.advice.replace('LOCATION', first.location)}"
        )


def judge(rules: Iterable[Rule], locations: Sequence[LocationStatus]) -> list[Judgement]:
    """Every rule over all locations of active clients."""
    active = [each for each in locations if each.active]
    return [_judged(rule, [each for each in active if rule.concerns(each)]) for rule in rules]


def _judged(rule: Rule, locations: Sequence[LocationStatus]) -> Judgement:
    found = [amiss for each in locations if (amiss := rule.look(each)) is not None]
    found.sort(key=lambda each: (not each.serious, -each.weight, each.location))
    return Judgement(rule, len(locations), tuple(found))
