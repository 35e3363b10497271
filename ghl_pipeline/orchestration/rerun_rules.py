"""When a location is asked for again after work that did not succeed: the causes, and the pause of each. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from ghl_pipeline.settings import Settings

# Errors of a location as a whole that stay until somebody acts: `ghl.errors`, `emailbison.errors`, `calendly.errors`,
# `locations.clients`, `privacy.tokens`.
REFUSALS: Final = (
    "TokenRejected", "LocationAccessDenied", "ScopeMissing", "TokenMissing", "TokenUnreadable",
    "EmailBisonAccessDenied", "EmailBisonWrongWorkspace", "CalendlyAccessDenied",
)  # fmt: skip

# Work that asks for itself again. Events and messages wait in tables of their own, with pauses of their own for each
# event and each location, and their sensors look every few seconds: a rerun on top would ask twice. The doctor is a
# person's question.
TRIES_BY_ITSELF: Final = frozenset({"webhooks", "drafts", "doctor"})

# A bug, or a request that GHL rejects, is rarely cured by asking again; three times, in case it was the moment's data.
FEW_TRIES: Final = 3
# A minute for clocks that differ, then ten in which those that ran out come back one after the other.
RESET_MARGIN: Final = timedelta(minutes=1)
RESET_SPREAD: Final = timedelta(minutes=10)
ONCE_A_DAY: Final = timedelta(days=1)


class Cause(StrEnum):
    """Why a location's work did not succeed, as far as it matters for trying again."""

    TRANSIENT = "transient"  # GHL, the network or the database failed; it passes
    QUOTA = "quota"  # the day's requests are used up; no failure
    REFUSED = "refused"  # the location as a whole refuses us until somebody acts
    DECISION = "decision"  # the work stopped to ask a person
    BROKEN = "broken"  # a bug, or a request that stays wrong
    STOPPED = "stopped"  # a person stopped the run; no failure
    KILLED = "killed"  # the process ended in the middle, or before the location's turn


# Nobody asks for these again until a person has acted.
HELD_AT_ONCE: Final = frozenset({Cause.REFUSED, Cause.DECISION})
# These say nothing against the location, so that they are no failures of it.
NO_FAILURES: Final = frozenset({Cause.QUOTA, Cause.STOPPED})


@dataclass(frozen=True, slots=True)
class RerunRules:
    """How long the pauses are.

    Attributes:
        first_pause: before the first rerun; each further one waits twice as long.
        longest_pause: what the doubling ends at.
        after_stop: before work that a person stopped is asked for again.
        most: reruns without a success before there is only one a day.
    """

    first_pause: timedelta = timedelta(minutes=1)
    longest_pause: timedelta = timedelta(hours=1)
    after_stop: timedelta = timedelta(hours=1)
    most: int = 12

    @classmethod
    def of(cls, settings: Settings) -> "RerunRules":
        """The rules that the settings give."""
        return cls(
            timedelta(seconds=settings.rerun_first_pause_seconds),
            timedelta(seconds=max(settings.rerun_first_pause_seconds, settings.rerun_longest_pause_seconds)),
            timedelta(seconds=settings.rerun_after_stop_seconds),
            settings.rerun_most,
        )


def cause_of_failure(error_class: str, *, permanent: bool) -> Cause:
    """The cause that a record of an older version, which has a class and no more, speaks of."""
    if error_class == "DailyQuotaReached":
        return Cause.QUOTA
    if error_class in REFUSALS:
        return Cause.REFUSED
    return Cause.BROKEN if permanent else Cause.TRANSIENT


def spread(location_id: str, attempt_id: int | None) -> float:
    """From 0 to 1, even over locations, the same for an attempt whenever it is asked for."""
    digest = hashlib.blake2b(f"{location_id}/{attempt_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def next_rerun(
    cause: Cause, ended_at: datetime, *, reruns: int, before: Cause | None, share: float, rules: RerunRules
) -> datetime | None:
    """When to ask again; None: not before a person has acted.

    Args:
        cause: why it did not succeed.
        ended_at: when; aware.
        reruns: how often it was asked for again since its last success.
        before: the cause of the attempt before this one, None if that succeeded.
        share: from 0 to 1, which part of the jitter: so many fail at once when GHL does that they must not come back
            at once.
        rules: the pauses.
    """
    match cause:
        case Cause.REFUSED | Cause.DECISION:
            return None
        case Cause.QUOTA:
            midnight = datetime.combine(ended_at.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
            return midnight + RESET_MARGIN + RESET_SPREAD * share
        case Cause.STOPPED:
            return ended_at + rules.after_stop + min(rules.after_stop, RESET_SPREAD) * share
        case Cause.BROKEN if before is Cause.BROKEN and reruns >= FEW_TRIES:
            return None
        case Cause.BROKEN | Cause.TRANSIENT | Cause.KILLED:
            if reruns >= rules.most:
                return ended_at + ONCE_A_DAY + rules.longest_pause * share
            # Beyond 2**20 the doubling would only overflow; the longest pause is reached long before.
            pause = min(rules.first_pause * (1 << min(reruns, 20)), rules.longest_pause)
            return ended_at + pause * (1 + share)
