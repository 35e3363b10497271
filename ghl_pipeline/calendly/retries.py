"""When a call to Calendly is tried again, how often, and after what pause: bounded by attempts and by time."""

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState

from ghl_pipeline.calendly.errors import CalendlyError

# A pause beyond this is an outage; the next run asks again. Calendly counts by the minute.
LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of one call. `first_pause_seconds` doubles with each failure; the pause is drawn between 0 and that."""

    max_attempts: int = 4
    deadline_seconds: float = 60.0
    first_pause_seconds: float = 0.5


class CallClock:
    """One call's time under a policy: its stop and wait rules, as tenacity asks for them."""

    def __init__(self, policy: RetryPolicy) -> None:
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


def read_pause(headers: Mapping[str, str], status: int) -> float | None:
    """Seconds that a refusal asks to wait: `Retry-After`, else of a 429 `X-RateLimit-Reset`, which is documented."""
    asked = _seconds(headers.get("Retry-After"))
    return _seconds(headers.get("X-RateLimit-Reset")) if asked is None and status == 429 else asked


def _seconds(value: str | None) -> float | None:
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
    return (error.retry_after or 0.0) if isinstance(error, CalendlyError) else 0.0
