"""Stopping an op's asynchronous work: at the next `await`, with its clean-up, and told to Dagster for what it is.

Dagster raises its interrupt from the signal handler, in the middle of whatever line runs, also of the event loop's own.
While the work runs, the signal cancels it instead, and what has to be put in order is put in order.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dagster import AssetExecutionContext
from dagster._core.errors import DagsterExecutionInterruptedError

from ghl_pipeline.orchestration.processes import COMMAND_LINE, STARTED_BY_TAG

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_stoppable(context: AssetExecutionContext, work: Coroutine[Any, Any, T]) -> T:
    """Runs the coroutine to its end, like `asyncio.run`, unless the process is told to stop.

    Raises:
        DagsterExecutionInterruptedError: it was told to stop, and the work has ended its clean-up. A run that a command
            line started is marked as being canceled, because Dagster takes an interrupt that nobody announced for a
            crash; in other runs it was announced (the UI's Terminate), or it is a crash indeed.
    """
    told_to_stop = threading.Event()

    async def stoppable() -> T:
        task = asyncio.current_task()

        def stop() -> None:
            told_to_stop.set()
            if task is not None:
                task.cancel()

        with _signals(asyncio.get_running_loop(), stop):
            return await work

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        if not told_to_stop.is_set():
            raise
    if context.run.tags.get(STARTED_BY_TAG) == COMMAND_LINE:
        context.instance.report_run_canceling(context.run, "Stopped at the command line.")
    raise DagsterExecutionInterruptedError


@contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Iterator[None]:
    """Hands the stop signals to the loop for a while; only the main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
