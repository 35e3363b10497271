"""One at a time per name, over all tasks and processes, without holding a thread while waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from sqlalchemy import Engine

from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.orchestration.blocking import in_thread

POLL_SECONDS = 0.2


class TurnTaken(PipelineError):
    """Somebody else has the name, for longer than one wanted to wait."""


class Turns:
    """Turns by name. Names hold nothing of a person. Used from one event loop at a time."""

    def __init__(self, engine: Engine) -> None:
        self._locks = AdvisoryLocks(engine)
        self._of_tasks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, name: str, *, patience_seconds: float) -> AsyncIterator[None]:
        """Waits until nobody else has the name, and has it for the time of the block; a kill gives it back.

        Raises:
            TurnTaken: somebody else has had it for all of `patience_seconds`.
            DatabaseUnavailable: the database does not answer, or forgot the turns that were taken before.
        """
        # Tasks of this process wait for each other here: the session that has their turns is one and the same.
        of_tasks = self._of_tasks.setdefault(name, asyncio.Lock())
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(patience_seconds):
                    await held.enter_async_context(of_tasks)
                    await held.enter_async_context(self._of_processes(name))
            except TimeoutError:
                raise TurnTaken(f"TurnTaken: the {name} is being worked on elsewhere. Try again in a while") from None
            yield

    @asynccontextmanager
    async def _of_processes(self, name: str) -> AsyncIterator[None]:
        # Polled: those who wait in threads would leave the holder, who needs one for every statement, none to go on.
        while True:
            held = ExitStack()
            try:
                if await in_thread(held.enter_context, self._locks.hold(name)):
                    yield
                    return
            finally:
                await in_thread(held.close)
            await asyncio.sleep(POLL_SECONDS)
