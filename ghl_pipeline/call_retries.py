"""When a call to a provider without a shared rate limit is tried again: bounded by attempts and by time.

GHL's own rules are in `ghl/retries.py`: there time waited on the location's limit does not count.
"""

import math
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState

# A pause beyond this is no pause but an outage; the next run asks again.
LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """Bounds of one call. `first_pause_seconds` doubles with each failure; the pause is drawn between 0 and that."""

    max_attempts: int
    deadline_seconds: float
    first_pause_seconds: float = 0.5


class CallClock:
    """One call's time under a policy: its stop and wait rules, as tenacity asks for them.

    An error's `retry_after`, where it has one, is for how many seconds the answer asked to wait.
    """

    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy
        self._ends = time.monotonic() + policy.deadline_seconds

    def remaining_seconds(self) -> float:
        """Seconds left of the deadline."""
        return max(0.0, self._ends - time.monotonic())

    def stop(self, state: RetryCallState) -> bool:
        """Whether the call has to end with the error it just got."""
        wished = _wished(state)
        return (
            state.attempt_number >= self._policy.max_attempts
            or wished > LONGEST_PAUSE_SECONDS
            or self.remaining_seconds() <= wished
        )

    def pause(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: full jitter, never less than the answer asked for."""
        ceiling = min(self._policy.first_pause_seconds * 2 ** (state.attempt_number - 1), LONGEST_PAUSE_SECONDS)
        jitter = random.uniform(0, ceiling)  # noqa: S311 - jitter, not a secret
        return min(max(jitter, _wished(state)), self.remaining_seconds())


def read_retry_after(value: str | None) -> float | None:
    """Seconds that a header names, as a number or as a date; None when it says neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _wished(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked: float | None = getattr(error, "retry_after", None)
    return asked or 0.0
