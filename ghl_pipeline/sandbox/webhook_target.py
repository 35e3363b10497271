"""A receiver that is told of every change of a contact by itself, as a GHL app is, with what goes wrong on the way."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.faults import Count, Seconds, Share
from ghl_pipeline.sandbox.people import seeded
from ghl_pipeline.sandbox.webhook_events import About, Outgoing, app_request, change_event, occasion_now
from ghl_pipeline.sandbox.webhook_sender import deliver_all
from ghl_pipeline.sandbox.world import Location, World

GATHERED_SECONDS: Final = 0.05
"""Changes so close together are delivered as one lot, within which they may be shuffled."""


class TargetSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/webhook-target`. Without a URL, nothing is told to anybody any more."""

    url: str | None = None
    location: str | None = None
    """Only changes of this location; None: of all."""
    lost_share: Share = 0.0
    repeated_share: Share = 0.0
    shuffled: bool = False
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    retries: Count = 0
    retry_pause_seconds: Seconds = 0.5
    seed: int = 0


@dataclass
class _Round:
    """What became of the changes since the target was set."""

    settings: TargetSettings
    loop: asyncio.AbstractEventLoop
    rng: random.Random
    changes: int = 0
    lost: int = 0
    unfinished: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    gathered: list[Outgoing] = field(default_factory=list)


class WebhookTarget:
    """Tells the set receiver of changes. The deliveries run on the event loop on which it was set."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._round: _Round | None = None
        self._deliveries: set[asyncio.Task[None]] = set()

    def set(self, settings: TargetSettings) -> None:
        """Takes effect for what changes from now on, and starts the counts anew. Called on the loop that delivers.

        Raises:
            InvalidInput: there is no such location.
        """
        if settings.location is not None:
            self._world.known_location(settings.location)
        self._round = _Round(settings, asyncio.get_running_loop(), seeded("webhook target", settings.seed))
        self._world.listener = self._changed if settings.url is not None else None

    def as_counts(self) -> dict[str, object]:
        """Changes, what became of them, and statuses of deliveries; `waiting` is 0 when all have been made."""
        current = self._round
        if current is None:
            return {"changes": 0, "lost": 0, "sent": 0, "waiting": 0, "statuses": {}}
        return {
            "changes": current.changes,
            "lost": current.lost,
            "sent": current.statuses.total(),
            "waiting": current.unfinished,
            "statuses": dict(sorted(current.statuses.items())),
        }

    def _changed(self, location: Location, before: Contact | None, after: Contact | None) -> None:
        current, contact = self._round, after or before
        if current is None or contact is None or current.settings.location not in (None, location.id):
            return
        current.changes += 1
        if current.rng.random() < current.settings.lost_share:
            current.lost += 1
            return
        occasion = occasion_now(self._world)
        event = change_event(location, before, after, occasion)
        request = app_request(self._world, None, event, About(occasion.webhook_id, contact.id))
        copies = 2 if current.rng.random() < current.settings.repeated_share else 1
        if not current.gathered:
            current.loop.call_soon_threadsafe(self._start, current)
        current.gathered += [request] * copies
        current.unfinished += copies

    def _start(self, current: _Round) -> None:
        task = current.loop.create_task(self._deliver(current))
        self._deliveries.add(task)  # a task that nobody holds may be collected before it is done
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, current: _Round) -> None:
        await asyncio.sleep(GATHERED_SECONDS)
        settings = current.settings
        with self._world.lock:
            requests, current.gathered = current.gathered, []
            if settings.shuffled:
                current.rng.shuffle(requests)
        done = await deliver_all(
            settings.url or "",
            requests,
            concurrency=settings.concurrency,
            retries=settings.retries,
            pause_seconds=settings.retry_pause_seconds,
        )
        with self._world.lock:
            current.unfinished -= len(done)
            current.statuses.update(each.status for each in done)
