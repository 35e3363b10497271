"""Finding out how a location's search answers: how many addresses it takes at once, and whether letter case matters.

GHL documents OR groups and no limit on their size, and says nothing about letter case. A group that is cut off in
silence, or an address that is found only as it was typed, would make leads look absent, so both are tried with
addresses that the location is known to have before any "not found" is believed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.payloads import SearchPage

# Tried from the largest down, until one is answered rightly.
GROUP_SIZES = (100, 50, 25, 10, 2)


class GroupAnswer(StrEnum):
    """How a group of known and impossible addresses was answered."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found out. `contacts` is the location's total, None when GHL did not say it.

    `answers` holds the group sizes that were tried; `case_matters` is None when no address with capital letters was
    at hand to try it with.
    """

    contacts: int | None = None
    answers: Mapping[int, GroupAnswer] = field(default_factory=dict)
    case_matters: bool | None = None

    @property
    def largest_right(self) -> int:
        """The largest group that was answered rightly; 0 when none was."""
        return max((size for size, answer in self.answers.items() if answer is GroupAnswer.RIGHT), default=0)

    @property
    def groups_are_wrong(self) -> bool:
        """Whether groups cannot be used at all: some were answered, and none rightly."""
        return GroupAnswer.WRONG in self.answers.values() and self.largest_right == 0


async def first_page(client: LocationClient) -> SearchPage:
    """The oldest contacts of the location, at most 500, with the total: also the first page of a scan. Raises GhlError."""
    raise NotImplementedError


async def survey(client: LocationClient, page: SearchPage, *, sizes: Sequence[int] = GROUP_SIZES) -> Survey:
    """Tries groups and letter case with addresses of `page`. Raises GhlError."""
    raise NotImplementedError
