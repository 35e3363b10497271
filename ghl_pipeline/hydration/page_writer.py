"""Writing resolved pages into `leads` behind the lookups: a page is written while the next one is asked for."""

import asyncio
from collections.abc import Callable

from ghl_pipeline.orchestration.blocking import in_thread, until_done


class PageWriter:
    """Writes one page at a time. `write` writes the next resolved page, in a thread, and returns its number of leads.

    Without `write` nothing is written: the write-back is not among the steps.
    """

    def __init__(self, write: Callable[[], int] | None) -> None:
        self._write = write
        self._writing: asyncio.Task[int] | None = None

    async def page_is_stored(self) -> None:
        """Begins to write a page; waits for the one before. Raises what that one raised."""
        if self._write is None:
            return
        if self._writing is not None:
            await self._writing
        self._writing = asyncio.create_task(in_thread(self._write))

    async def drain(self) -> None:
        """Writes everything that is resolved. Raises what the writing raised."""
        if self._write is None:
            return
        if self._writing is not None:
            await self._writing
        while await in_thread(self._write):
            pass

    async def stop(self) -> None:
        """Waits for the page that is being written: a thread cannot be stopped. Raises only CancelledError."""
        if self._writing is not None:
            await until_done(self._writing)
            if not self._writing.cancelled():
                self._writing.exception()  # looked at, or asyncio reports it as lost
