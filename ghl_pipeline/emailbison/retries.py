"""How often a call to EmailBison is tried, and within what time."""

from dataclasses import dataclass

from ghl_pipeline.call_retries import CallPolicy


@dataclass(frozen=True, slots=True)
class RetryPolicy(CallPolicy):
    """Bounds of one call to EmailBison."""

    max_attempts: int = 6
    deadline_seconds: float = 180.0
