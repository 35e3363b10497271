"""Runs that were queued and did not begin: a task that got lost on its way to a worker is sent again.

Redis hands a task to whoever waits for one. A host that was cut off a moment ago still waits, as far as Redis knows,
and what it is handed is gone without a trace. Sending a task twice does no harm: whoever finds the run executed, or
ended, leaves it alone.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0
# A warm worker begins within a second, one whose process was just replaced within five, on a busy machine.
LOST_AFTER_SECONDS = 20.0


@dataclass
class _Sent:
    at: float
    again: Callable[[], None]


class UnbegunRuns:
    """What this process sent and nobody has begun.

    A daemon that is restarted forgets it; then the start timeout of run monitoring brings the run back, later.
    """

    def __init__(
        self,
        *,
        begun: Callable[[str], bool],
        executed: Callable[[str], bool],
        waiting: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is watched yet.

        Args:
            begun: whether the run of this id has begun, or ended without.
            executed: whether some process has it in hand. It may be one that was cut off before it could say that it
                has begun, so such a run is not forgotten.
            waiting: tasks in the queue; while there are some, the run's may be among them.
            clock: seconds.
        """
        self._begun = begun
        self._executed = executed
        self._waiting = waiting
        self._clock = clock
        self._sent: dict[str, _Sent] = {}
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run_id: str, again: Callable[[], None]) -> None:
        """From now on the run is looked after; `again` sends its task once more."""
        with self._guard:
            self._sent[run_id] = _Sent(self._clock(), again)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_looking, name="unbegun runs", daemon=True)
                self._thread.start()

    def look(self) -> list[str]:
        """Forgets what has begun, and sends again what got lost; returns the ids of the latter."""
        with self._guard:
            late = {id_: it for id_, it in self._sent.items() if self._clock() - it.at >= LOST_AFTER_SECONDS}
        unbegun = {id_: it for id_, it in late.items() if not self._begun(id_)}
        with self._guard:
            for id_ in late.keys() - unbegun.keys():
                del self._sent[id_]
        lost = {id_: it for id_, it in unbegun.items() if not self._executed(id_)}
        if not lost or self._waiting():
            return []
        for id_, it in lost.items():
            log.warning("the task of run %s got lost on its way to a worker and is sent again", id_)
            it.again()
            it.at = self._clock()
        return sorted(lost)

    def close(self) -> None:
        """Looks after nothing any more."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(LOOK_EVERY_SECONDS)

    def _keep_looking(self) -> None:
        while not self._closed.wait(LOOK_EVERY_SECONDS):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the database or the queue is away; this thread has to stay
                log.warning("runs that have not begun cannot be looked after now (%s)", type(error).__name__)
