"""How many locations are asked again when many failed at once: a few, and more with every round that goes well. Pure.

When GHL is down for five minutes, a thousand locations fail. Asked again each by itself, they would be a storm while it
is down, and would use up their tries; so a round of a few finds out, and the others wait for it.
"""

from dataclasses import dataclass
from typing import Final

# So many that fail for passing reasons are GHL, the network or this side, and not each location's own trouble.
MANY: Final = 20
FIRST_ROUND: Final = 5
# A round that failed is followed by the next one, half as large, after this long: a handful of locations a minute.
SECONDS_AFTER_FAILURE: Final = 60
# One call takes three minutes at most, all tries included (`GHL_CALL_DEADLINE_SECONDS`): work that lasts is answered.
WORKS_AFTER_SECONDS: Final = 240
# A round of which nobody heard for this long (no place in the queue, a run that died) says nothing; a new one begins.
LOST_AFTER_SECONDS: Final = 600
# Of a round that went well, for each location that did; so a thousand are back in five rounds.
GROWTH: Final = 3


@dataclass(frozen=True, slots=True)
class Round:
    """The latest round: how many locations were asked, what is known of them, and how long ago that was.

    `good` were answered (also those that were refused), `bad` failed again for a passing reason; the others are under
    way. `newly_failing` locations began to fail since.
    """

    asked: int
    good: int
    bad: int
    seconds: float
    newly_failing: int = 0

    @property
    def went_well(self) -> bool:
        """Whether what was heard of it says that the trouble is over."""
        return self.good > self.bad and self.newly_failing <= MANY

    @property
    def is_open(self) -> bool:
        """Whether too little was heard of it yet."""
        return 2 * (self.good + self.bad) < self.asked


def next_round(latest: Round | None) -> int:
    """How many locations may be asked now; 0: wait for those that were."""
    if latest is None or latest.asked == 0:
        return FIRST_ROUND
    if latest.is_open and latest.seconds < LOST_AFTER_SECONDS:
        return 0
    if latest.good + latest.bad == 0:
        return FIRST_ROUND
    if latest.went_well:
        return latest.asked + GROWTH * latest.good
    if latest.seconds < SECONDS_AFTER_FAILURE:
        return 0
    return max(1, min(FIRST_ROUND, latest.asked // 2))
