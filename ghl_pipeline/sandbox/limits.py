"""The rate limits of one location: a true sliding window and a daily count, and the headers that tell of them.

GHL documents 100 requests per 10 s and 200,000 a day per location, and the five header names; not whether its window
slides. The sliding reading is the stricter one, so whoever passes here passes there. A request refused with 429 uses
no slot of the window and none of the day.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

SECONDS_PER_DAY: Final = 86_400


@dataclass(frozen=True)
class Limits:
    """What a location may ask. `interval_seconds` is real time; tests shrink it and the headers say so."""

    requests: int = 100
    interval_seconds: float = 10.0
    requests_per_day: int = 200_000


@dataclass
class RateLimiter:
    """Admits requests of one location. Times are epoch seconds and must not go backwards."""

    limits: Limits
    _admitted: deque[float] = field(default_factory=deque)
    _day: int = 0
    _used_today: int = 0

    def admit(self, now: float) -> bool:
        """Takes a slot at `now`; False when none is free and the answer must be 429.

        A slot is free again once a full interval has passed: two requests exactly one interval apart never share a
        window.
        """
        self._forget(now)
        if len(self._admitted) >= self.limits.requests or self._used_today >= self.limits.requests_per_day:
            return False
        self._admitted.append(now)
        self._used_today += 1
        return True

    def headers(self, now: float) -> dict[str, str]:
        """The five headers, as they stand after what was admitted up to `now`."""
        self._forget(now)
        limits = self.limits
        return {
            "X-RateLimit-Limit-Daily": str(limits.requests_per_day),
            "X-RateLimit-Daily-Remaining": str(max(0, limits.requests_per_day - self._used_today)),
            "X-RateLimit-Interval-Milliseconds": str(round(limits.interval_seconds * 1000)),
            "X-RateLimit-Max": str(limits.requests),
            "X-RateLimit-Remaining": str(max(0, limits.requests - len(self._admitted))),
        }

    def _forget(self, now: float) -> None:
        while self._admitted and self._admitted[0] + self.limits.interval_seconds <= now:
            self._admitted.popleft()
        day = int(now // SECONDS_PER_DAY)  # days begin at midnight UTC
        if day != self._day:
            self._day, self._used_today = day, 0
