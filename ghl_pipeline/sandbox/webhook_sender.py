"""Sends events to a receiver over HTTP as their senders do: many at once, repeated, out of order, some never.

await WebhookSender(world).send(SendOrder(url=receiver, location=location.id, event="inbound_sms", copies=100))
"""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import aiohttp

from ghl_pipeline.sandbox.people import seeded
from ghl_pipeline.sandbox.webhook_events import About, EventMaker, Outgoing
from ghl_pipeline.sandbox.webhook_orders import SendOrder
from ghl_pipeline.sandbox.world import World

UNANSWERED = "unanswered"
"""Stands for a status where there was no answer: refused, broken off, or too late."""
_EVENTS_SHOWN = 100


@dataclass(frozen=True)
class Attempts:
    """How one delivery ended: the last status, the seconds of the last attempt, and how many there were."""

    status: str
    seconds: float
    attempts: int


@dataclass(frozen=True)
class SendReport:
    """What was sent and how it was answered. `statuses` counts the last attempt of each delivery."""

    events: tuple[About, ...]
    lost: int
    deliveries: tuple[Attempts, ...]

    @property
    def sent(self) -> int:
        """Deliveries, each counted once however often it was tried."""
        return len(self.deliveries)

    @property
    def statuses(self) -> dict[str, int]:
        """Status -> deliveries that ended with it."""
        return dict(sorted(Counter(each.status for each in self.deliveries).items()))

    def seconds(self, share: float) -> float:
        """The time within which that share of the deliveries was answered; 0 when there was none."""
        times = sorted(each.seconds for each in self.deliveries)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0

    def as_json(self) -> dict[str, object]:
        """The report as plain values, with the ids of the first hundred events."""
        return {
            "events": len(self.events),
            "sent": self.sent,
            "lost": self.lost,
            "retries": sum(each.attempts - 1 for each in self.deliveries),
            "statuses": self.statuses,
            "seconds_p50": round(self.seconds(0.5), 4),
            "seconds_p99": round(self.seconds(0.99), 4),
            "about": [
                {name: value for name, value in asdict(each).items() if value is not None}
                for each in self.events[:_EVENTS_SHOWN]
            ],
        }


class WebhookSender:
    """Sends what orders say. Safe to use from any thread that has an event loop."""

    def __init__(self, world: World) -> None:
        self._world = world

    def prepare(self, order: SendOrder) -> list[list[Outgoing]]:
        """Lets the events of the order happen and returns their requests, a list of copies for each event.

        Raises:
            InvalidInput: the order makes no sense, or names somebody unknown.
        """
        # The lock is taken for each event anew: signing thousands takes seconds, and the world must go on meanwhile.
        with self._world.lock:
            maker = EventMaker(self._world, order)
        made = []
        for number in range(order.count):
            with self._world.lock:
                made.append(maker.make(number))
        return made

    async def send(self, order: SendOrder) -> SendReport:
        """Lets the events of the order happen and delivers them.

        Raises:
            InvalidInput: as `prepare`.
        """
        made = await asyncio.to_thread(self.prepare, order)
        events = tuple(copies[0].about for copies in made)
        if not order.deliver:
            return SendReport(events, 0, ())
        kept, lost = list[list[Outgoing]](), 0
        rng = seeded("webhooks", order.seed)
        for copies in made:
            if rng.random() < order.lost_share:
                lost += 1
            else:
                kept.append([*copies, copies[-1]] if rng.random() < order.repeated_share else copies)
        requests = [request for copies in kept for request in copies]
        if order.shuffle:
            rng.shuffle(requests)
        delivered = await deliver_all(
            order.url,
            requests,
            concurrency=order.concurrency,
            retries=order.retries,
            pause_seconds=order.retry_pause_seconds,
            timeout_seconds=order.timeout_seconds,
            only_429_again=order.retry_429_only,
        )
        return SendReport(events, lost, tuple(delivered))


async def deliver_all(
    url: str,
    requests: Sequence[Outgoing],
    *,
    concurrency: int,
    retries: int = 0,
    pause_seconds: float = 0.1,
    timeout_seconds: float = 15.0,
    only_429_again: bool = False,
) -> list[Attempts]:
    """Delivers all requests, at most `concurrency` at once, taking them in their order.

    Whatever is not answered with 2xx is tried again, `retries` times at most; or only what is answered with 429.
    """
    waiting = iter(requests)
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    connector = aiohttp.TCPConnector(limit=concurrency)

    async def deliver(session: aiohttp.ClientSession, request: Outgoing) -> Attempts:
        attempt = 0
        while True:
            attempt += 1
            started = time.perf_counter()
            status = await _post(session, url.rstrip("/") + request.path, request)
            seconds = time.perf_counter() - started
            if status.startswith("2"):
                if request.recorded is not None:
                    request.recorded.deliveries += 1
                return Attempts(status, seconds, attempt)
            if attempt > retries or (only_429_again and status != "429"):
                return Attempts(status, seconds, attempt)
            await asyncio.sleep(pause_seconds)

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def work(waiting: Iterator[Outgoing]) -> list[Attempts]:
            return [await deliver(session, each) for each in waiting]

        workers = min(concurrency, len(requests))
        done: Iterable[list[Attempts]] = await asyncio.gather(*(work(waiting) for _ in range(workers)))
    return [each for of_worker in done for each in of_worker]


async def _post(session: aiohttp.ClientSession, url: str, request: Outgoing) -> str:
    content = io.BytesIO(request.body)  # aiohttp warns of megabytes given as bytes
    try:
        async with session.post(url, data=content, headers=request.headers, allow_redirects=False) as response:
            await response.read()
            return str(response.status)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return UNANSWERED
