"""Which token a location is called with: its own, or for a while the one before it.

GHL keeps the old token for 7 days when a private integration's is rotated "to expire later". Until then a new one that
GHL refuses (not active yet, mistyped, revoked again) costs nothing. Which token is used is a matter of one client: the
next one that is opened begins with the new token again.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import SecretStr

log = logging.getLogger(__name__)


class Which(StrEnum):
    """One of the two tokens that a location may have."""

    CURRENT = "current"
    PREVIOUS = "previous"


class LocationTokens:
    """The token of a location, and the one before it while that may be used. Its `repr` shows neither.

    Args:
        location_id: for the log.
        current: the token that is stored.
        previous: the one before the last rotation.
        previous_until: when it must not be used any more.
        clock: now, in UTC.
    """

    def __init__(
        self,
        location_id: str,
        current: SecretStr,
        previous: SecretStr | None = None,
        previous_until: datetime | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.in_use = Which.CURRENT
        self._location_id = location_id
        self._current = current
        self._previous = previous
        self._previous_until = previous_until
        self._clock = clock

    def __repr__(self) -> str:
        return f"LocationTokens({self._location_id}, {self.in_use.value} in use)"

    def authorization(self, which: Which) -> str:
        """The value of the header that proves who asks."""
        token = self._previous if which is Which.PREVIOUS and self._previous is not None else self._current
        return f"Bearer {token.get_secret_value()}"

    def first(self) -> Which:
        """Which one to ask with: what GHL took last, and never the one before when its time is over."""
        if self.in_use is Which.PREVIOUS and not self._may_use_previous():
            self.in_use = Which.CURRENT
        return self.in_use

    def instead_of(self, refused: Which) -> Which | None:
        """What to try after GHL refused a token; None when there is nothing else.

        The token before is tried until its time is over. When that is refused, the current one is: it may have become
        active meanwhile, and a location must not be held because somebody let the old one expire early.
        """
        if refused is Which.PREVIOUS:
            return Which.CURRENT
        return Which.PREVIOUS if self._may_use_previous() else None

    def _may_use_previous(self) -> bool:
        return self._previous is not None and self._previous_until is not None and self._clock() < self._previous_until

    def settle_on(self, which: Which) -> None:
        """GHL took this token after it had refused the other one; from now on it is asked with first."""
        if which is self.in_use:
            return
        self.in_use = which
        if which is Which.PREVIOUS:
            log.warning(
                "location %s: GHL refused its new token and took the one before, which may be used until %s",
                self._location_id,
                self._previous_until.isoformat(timespec="minutes") if self._previous_until else "",
            )
        else:
            log.warning("location %s: GHL refused the token before and took the new one", self._location_id)
