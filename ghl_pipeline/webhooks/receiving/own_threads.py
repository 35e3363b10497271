"""Threads of the receiver's own, so that what hangs or is slow in one place holds up nothing elsewhere.

asyncio's pool is one for all: bodies that are slow to read would keep the writer from storing. And the interpreter
waits for its threads at the end, so that one call that hangs would keep the process from ending. Threads of here are
not waited for.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class NoFreeThread(Exception):
    """As many calls wait as may wait."""


@dataclass(eq=False, slots=True)
class _Call:
    """A call that waits for its thread; nothing once its caller has given up, so that its arguments are let go."""

    work: Callable[[], None] | None


@dataclass(eq=False)
class OwnThread:
    """One thread that makes one call after the other; it starts with the first.

    Args:
        name: of the thread.
        most_waiting: calls that may wait for the one under way.
    """

    name: str
    most_waiting: int = 16
    _calls: SimpleQueue[_Call | None] = field(default_factory=SimpleQueue, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _wanted: int = field(default=0, init=False)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns or raises. Whoever is cancelled stops waiting; a call that began goes on by itself.

        Raises:
            NoFreeThread: too many calls wait already.
        """
        if self._wanted > self.most_waiting:
            raise NoFreeThread
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits, whatever it is
                answer.set_exception(error)

        call = _Call(work)
        self._start()
        self._calls.put(call)
        self._wanted += 1
        try:
            return await asyncio.wrap_future(answer)
        finally:
            self._wanted -= 1
            call.work = None

    def close(self) -> None:
        """Lets the thread end after what it has; does not wait for it. A later call starts another one."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread, self._calls = None, SimpleQueue()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=_work, args=(self._calls,), name=self.name, daemon=True)
            self._thread.start()


def _work(calls: "SimpleQueue[_Call | None]") -> None:
    while (call := calls.get()) is not None:
        work, call.work = call.work, None
        if work is not None:
            work()
        del work, call
