"""Many requests, one commit: deliveries that arrive while a transaction is under way go into the next one together.

A commit waits for the disk, so one for each event would bound the receiver by the disk's rate. Here is only who waits
for which transaction; what a transaction stores is in `inbox/store_events.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ghl_pipeline.errors import DatabaseUnavailable
from ghl_pipeline.webhooks.inbox.store_events import Delivery, NotStored, Stored
from ghl_pipeline.webhooks.receiving.own_threads import OwnThread

log = logging.getLogger(__name__)

Store = Callable[[Sequence[Delivery]], Sequence[Stored | NotStored]]
"""As `inbox.store_deliveries`, on an engine."""

CountStored = Callable[[int, float, bool], None]
"""Called after each transaction: its deliveries, its seconds, whether it failed as a whole."""

MOST_AT_ONCE = 200
# Whole e-mails are up to 5 MB each; while a transaction hangs, its bodies are kept though nobody waits for them.
MOST_BYTES_AT_ONCE = 16 * 1024 * 1024
MOST_WAITING = 2000
# EmailBison gives up after 15 s, and its next attempt may be hours away; an answer that is late is a failure too. Who
# sends and what is read before takes up to 7 s when both are slow.
PATIENCE_SECONDS = 6.0


@dataclass(eq=False, slots=True)
class _Waiting:
    delivery: Delivery
    answer: asyncio.Future[Stored | NotStored]


@dataclass(eq=False)
class GroupCommit:
    """Hands what is waiting to `store`, all of it at once, again and again.

    Use `add` between `start` and `close`, in one event loop.
    """

    store: Store
    most_at_once: int = MOST_AT_ONCE
    most_waiting: int = MOST_WAITING
    patience_seconds: float = PATIENCE_SECONDS
    count: CountStored = lambda *_: None
    # In the order of arrival; whoever gives up leaves from anywhere.
    _queue: dict[_Waiting, None] = field(default_factory=dict, init=False)
    _thread: OwnThread = field(default_factory=lambda: OwnThread("inbox writer"), init=False)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _writer: asyncio.Task[None] | None = field(default=None, init=False)
    _closing: bool = field(default=False, init=False)

    @property
    def waiting(self) -> int:
        """Deliveries that wait for the next transaction."""
        return len(self._queue)

    def start(self) -> None:
        """Begins to store."""
        self._writer = asyncio.create_task(self._write(), name="inbox writer")

    async def close(self) -> None:
        """Takes nothing more, stores and answers what is waiting, and ends. Whoever is cancelled here leaves it."""
        self._closing = True
        self._arrived.set()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._thread.close()

    async def add(self, delivery: Delivery) -> Stored | NotStored:
        """What became of the delivery, once it is committed.

        Returns:
            `Stored`; or `NotStored` when this delivery, unlike others, could not be.

        Raises:
            DatabaseUnavailable: it was not stored, or not in time. Then a transaction may still bring it in; the
                sender's next attempt is known by its dedupe key.
        """
        if self._closing or self._writer is None:
            raise DatabaseUnavailable("The receiver is stopping. Nothing was stored; the sender has to try again.")
        if len(self._queue) >= self.most_waiting:
            raise DatabaseUnavailable(
                f"{self.most_waiting} events wait for the database already. Nothing was stored; look at its load."
            )
        waiting = _Waiting(delivery, asyncio.get_running_loop().create_future())
        self._queue[waiting] = None
        self._arrived.set()
        try:
            async with asyncio.timeout(self.patience_seconds):
                return await waiting.answer
        except TimeoutError:
            raise DatabaseUnavailable(
                f"The database took longer than {self.patience_seconds:g} s to store an event. Look at its load."
            ) from None
        finally:
            # Also when the request is cancelled: a body that nobody waits for must not stay.
            self._queue.pop(waiting, None)

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._next_batch():
                await self._commit(batch)
            if self._closing:
                return

    def _next_batch(self) -> list[_Waiting]:
        """The longest waiting."""
        batch: list[_Waiting] = []
        size = 0
        for waiting in self._queue:
            size += len(waiting.delivery.body)
            if batch and (len(batch) >= self.most_at_once or size > MOST_BYTES_AT_ONCE):
                break
            batch.append(waiting)
        for waiting in batch:
            del self._queue[waiting]
        return batch

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        failed = True
        try:
            answers = await self._thread.run(self.store, [waiting.delivery for waiting in batch])
        except DatabaseUnavailable as error:
            # Those behind them would each wait as long for the same answer.
            text = str(error)
            for waiting in (*batch, *self._drained()):
                if not waiting.answer.done():
                    waiting.answer.set_exception(DatabaseUnavailable(text))
        except Exception as error:
            log.exception("a bug while storing %d events; none of them was stored", len(batch))
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_result(NotStored(type(error).__name__))
        else:
            failed = False
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        finally:
            self.count(len(batch), time.monotonic() - began, failed)

    def _drained(self) -> list[_Waiting]:
        drained = list(self._queue)
        self._queue.clear()
        return drained
