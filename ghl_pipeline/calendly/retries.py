"""How often a call to Calendly is tried, within what time, and which pause its answers ask for."""

from collections.abc import Mapping
from dataclasses import dataclass

from ghl_pipeline.call_retries import CallPolicy, read_retry_after


@dataclass(frozen=True, slots=True)
class RetryPolicy(CallPolicy):
    """Bounds of one call to Calendly, which counts by the minute."""

    max_attempts: int = 4
    deadline_seconds: float = 60.0


def read_pause(headers: Mapping[str, str], status: int) -> float | None:
    """Seconds that a refusal asks to wait: `Retry-After`, else of a 429 `X-RateLimit-Reset`, which is documented."""
    asked = read_retry_after(headers.get("Retry-After"))
    return read_retry_after(headers.get("X-RateLimit-Reset")) if asked is None and status == 429 else asked
