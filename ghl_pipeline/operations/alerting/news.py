"""Which failure is news. Pure.

A run fails, Dagster starts it again when it crashed, the rerun sensor asks for its locations again with growing pauses,
the next schedule comes: one cause makes dozens of failures. Somebody wants to hear of it once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Told:
    """What is remembered of one error of one kind of work at one location.

    Attributes:
        at: when it was last told.
        was_held: whether it was told as one that stays until somebody acts.
        is_latest: whether it is the error that was seen there last.
        was_well_since: whether the work succeeded since it was told.
    """

    at: datetime
    was_held: bool
    is_latest: bool
    was_well_since: bool


def is_news(told: Told | None, *, is_held: bool, is_repeat: bool, now: datetime, every: timedelta) -> bool:
    """Whether a failure is told now, or counted and told with the next one.

    Args:
        told: what is remembered of the same error; None: it was never told.
        is_held: nothing tries the location again before somebody acts.
        is_repeat: the run repeats one that failed; nobody is told of the same error again for that.
        now: of the same clock as `told.at`.
        every: the least time between two alerts of the same failure.
    """
    if told is None:
        return True
    if is_held:
        # Told once; again only when it was well, or failed in another way, in between.
        return not told.was_held or told.was_well_since or not told.is_latest
    if is_repeat and told.is_latest:
        return False
    return now - told.at >= every
