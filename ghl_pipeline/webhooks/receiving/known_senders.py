"""The senders in memory, so that an event costs no query to authenticate, and how soon a change to them counts."""

import asyncio
import time
from collections.abc import Callable, Mapping

from ghl_pipeline.errors import DatabaseUnavailable
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.receiving.own_threads import OwnThread
from ghl_pipeline.webhooks.receiving.senders import Sender, admits

# A list this old is read anew beside the work; an older one before it is used: a revoked secret must not come back
# after a quiet night.
RENEW_AFTER_SECONDS = 5.0
USE_UP_TO_SECONDS = 15.0
# A stranger may be a client of a minute ago, so the list is read again for one; at most this often, or wrong secrets
# would be queries.
RENEW_FOR_STRANGERS_SECONDS = 1.0
# A reading that takes longer is waited for by nobody: what was known counts meanwhile. After one that failed, or is
# this slow, it is the same for a while, or each event would wait as long before it is told that the database is away.
READ_WITHIN_SECONDS = 3.0
TRUST_AFTER_FAILURE_SECONDS = 15.0


class KnownSenders:
    """The senders as of a few seconds ago. When the database is away, as of when it was there last.

    Args:
        read: all senders by location id, from the database; blocks. Raises `DatabaseUnavailable`.
        clock: seconds, never backwards.
    """

    def __init__(
        self, read: Callable[[], Mapping[str, Sender]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._senders: Mapping[str, Sender] | None = None
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed_at = float("-inf")
        self._thread = OwnThread("readers of senders")
        self._reading: asyncio.Task[None] | None = None

    async def of_location(self, location_id: str) -> Sender | None:
        """Whose the location is; None when it is no client's.

        Raises:
            DatabaseUnavailable: the senders were never read, and cannot be.
        """
        return await self._find(location_id, lambda sender: sender is not None)

    async def with_secret(self, location_id: str, provider: Provider, secret: str) -> Sender | None:
        """Whose the location is, if the secret is one of theirs.

        Raises:
            DatabaseUnavailable: the senders were never read, and cannot be.
        """
        sender = await self._find(location_id, lambda sender: admits(sender, provider, secret))
        return sender if admits(sender, provider, secret) else None

    def has(self, location_id: str) -> bool:
        """Whether the location is a client's, as far as is known without asking."""
        return self._senders is not None and location_id in self._senders

    async def close(self) -> None:
        """Waits for the reading under way, if there is one. Whoever is cancelled here leaves it."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        self._thread.close()

    async def _find(self, location_id: str, is_good: Callable[[Sender | None], bool]) -> Sender | None:
        age = self._clock() - self._read_at
        if self._senders is None or age > USE_UP_TO_SECONDS:
            await self._renewed()
        elif age > RENEW_AFTER_SECONDS:
            self._start_reading()
        sender = self._known().get(location_id)
        if not is_good(sender):
            await self._renewed()
            sender = self._known().get(location_id)
        return sender

    def _known(self) -> Mapping[str, Sender]:
        if self._senders is None:
            raise DatabaseUnavailable(
                "The database does not answer, so it is not known who may send. Nothing was stored; the sender has to "
                "try again."
            )
        return self._senders

    async def _renewed(self) -> None:
        """Waits for the reading under way, or for a new one; whoever comes meanwhile waits for the same.

        Nobody waits long, nor at all while the database is known to be away and a list is there.
        """
        reading = self._start_reading()
        if reading is None:
            return
        if self._senders is not None and self._clock() - self._failed_at < TRUST_AFTER_FAILURE_SECONDS:
            return
        left = self._tried_at + READ_WITHIN_SECONDS - self._clock()
        done, _ = await asyncio.wait([reading], timeout=max(left, 0))
        if done:
            reading.result()  # what is no fault of the database's is a bug, and said
        else:
            self._failed_at = self._clock()

    def _start_reading(self) -> asyncio.Task[None] | None:
        """The reading under way; None when the last one was only just begun."""
        if self._reading is None or self._reading.done():
            if self._clock() - self._tried_at < RENEW_FOR_STRANGERS_SECONDS:
                return None
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._read_again(), name="reading the senders")
        return self._reading

    async def _read_again(self) -> None:
        began = self._clock()
        try:
            self._senders = await self._thread.run(self._read)
        except DatabaseUnavailable:
            self._failed_at = self._clock()
            return  # what was known stays; storing finds out by itself
        self._read_at = began
        self._failed_at = float("-inf")
