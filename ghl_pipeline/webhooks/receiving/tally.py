"""What the receiver answered, counted for a line a minute: an operator sees that it lives and whom it turns away.

Counts and words of this project only: no path, no secret, no value of an event; a location is named when it is a
client's.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus

log = logging.getLogger(__name__)


class Tally:
    """Counts answers until they are told."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, ...]] = Counter()
        self._refusals: Counter[tuple[str, ...]] = Counter()

    def count(self, route: str, status: int, reason: str, location_id: str | None = None) -> None:
        """Counts one answer.

        Args:
            route: the route's name.
            status: of HTTP.
            reason: one word of ours.
            location_id: of a client, when it is known.
        """
        self._answers[route, str(status)] += 1
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            self._refusals[route, reason, location_id or ""] += 1

    def tell(self) -> None:
        """Logs what was counted since it was last told, and begins anew."""
        answers, self._answers = self._answers, Counter()
        refusals, self._refusals = self._refusals, Counter()
        log.info("receiver: %s", _listed(answers) or "no requests")
        if refusals:
            log.warning("receiver refused: %s", _listed(refusals))


def _listed(counts: Mapping[tuple[str, ...], int]) -> str:
    return ", ".join(f"{' '.join(filter(None, parts))} x {count}" for parts, count in sorted(counts.items()))
