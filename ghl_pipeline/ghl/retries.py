"""When a call is tried again, how often, and after what pause. The one place where that is decided.

Bounded twice, by attempts and by time: time spent in attempts and pauses counts, time waited on the location's rate
limit does not, because a backfill at the limit waits most of the time without anything being wrong.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from ghl_pipeline.ghl.errors import GhlError, RateLimited, SearchContextLost, TransientGhlError

T = TypeVar("T")

# A Retry-After beyond this is no pause but an outage; the work then ends and is taken up by a rerun.
LONGEST_PAUSE_SECONDS = 60.0
# GHL's search context has been seen to come back within seconds.
SEARCH_CONTEXT_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of one call. `first_pause_seconds` doubles with each failure; the pause is drawn between 0 and that."""

    max_attempts: int = 5
    max_429: int = 8
    deadline_seconds: float = 180.0
    first_pause_seconds: float = 0.5


class CallBudget:
    """What one call has used of its policy: failures, refusals, and seconds in attempts and pauses."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._refusals = 0
        self._spent = 0.0

    def remaining_seconds(self) -> float:
        """Seconds left of the deadline."""
        return max(0.0, self._policy.deadline_seconds - self._spent)

    def count(self, error: TransientGhlError) -> None:
        """Counts a failed attempt, before its pause and its stop rule are asked."""
        if isinstance(error, RateLimited):
            self._refusals += 1
        else:
            self._failures += 1

    def stop(self, state: RetryCallState) -> bool:
        """Whether the call has to end with the error it just got (tenacity's stop rule)."""
        error = _error_of(state)
        too_long = (error.facts.retry_after or 0) > LONGEST_PAUSE_SECONDS if isinstance(error, GhlError) else False
        return (
            too_long
            or self._refusals > self._policy.max_429
            or self._failures >= self._policy.max_attempts
            or self.remaining_seconds() <= 0
        )

    def pause(self, state: RetryCallState) -> float:
        """Seconds until the next attempt (tenacity's wait rule): full jitter, never less than GHL's Retry-After.

        After a 429 there is none here: the throttle has blocked the location and the next attempt waits there.
        """
        error = _error_of(state)
        if isinstance(error, RateLimited):
            return 0.0
        ceiling = self._policy.first_pause_seconds * 2 ** (self._failures - 1)
        pause = random.uniform(0, min(ceiling, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret
        if isinstance(error, SearchContextLost):
            pause += SEARCH_CONTEXT_PAUSE_SECONDS
        if isinstance(error, GhlError) and error.facts.retry_after is not None:
            pause = max(pause, error.facts.retry_after)
        pause = min(pause, self.remaining_seconds())
        self._spent += pause
        return pause

    def clock(self) -> "_AttemptClock":
        """Times one attempt: `with budget.clock(): ...`."""
        return _AttemptClock(self)

    def spend(self, seconds: float) -> None:
        """Counts seconds against the deadline."""
        self._spent += seconds


class _AttemptClock:
    def __init__(self, budget: CallBudget) -> None:
        self._budget = budget
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._budget.spend(time.monotonic() - self._started)


async def call_with_retries(policy: RetryPolicy, attempt: Callable[[CallBudget], Awaitable[T]]) -> T:
    """Runs `attempt` until it succeeds, its error is permanent, or the policy's bounds are reached.

    Raises:
        GhlError: the last error, unchanged.
    """
    budget = CallBudget(policy)

    async def counted() -> T:
        try:
            return await attempt(budget)
        except TransientGhlError as error:
            budget.count(error)
            raise

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TransientGhlError), stop=budget.stop, wait=budget.pause, reraise=True
    )
    return await retrying(counted)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
