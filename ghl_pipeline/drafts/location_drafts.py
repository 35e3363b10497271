"""The drafts of one location in one run: what is wanted, written side by side and stored one by one.

A run over many messages takes minutes, in which a client may be switched off, its link may change, its free times may
go stale and its leads may write on. So what a draft is written from is read right before it is written.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from ghl_pipeline.drafts.asking import Asked
from ghl_pipeline.drafts.context import Context, read_context, read_offer
from ghl_pipeline.drafts.draft import Written, write_draft
from ghl_pipeline.drafts.draft_store import NewDraft, store_draft
from ghl_pipeline.drafts.outcomes import Channel, SkipReason
from ghl_pipeline.drafts.prices import Price
from ghl_pipeline.drafts.prompting import Offer, render
from ghl_pipeline.drafts.report import DraftCounts, DraftsReport, cost_of, report_of
from ghl_pipeline.drafts.wanting import CAPABILITY, SETUP_REFUSED, Candidate, candidates, skip_reason
from ghl_pipeline.orchestration.attempts import last_record
from ghl_pipeline.orchestration.blocking import in_thread

# Of a location in one run; the rest is the next run's, so that a burst at one location ends its run some time.
MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class DraftRules:
    """How drafts are written: seconds for a whole draft by channel, and what the settings say of the rest."""

    deadlines: Mapping[Channel, float] = field(default_factory=lambda: {Channel.SMS: 20.0, Channel.EMAIL: 60.0})
    multiplier: float = 3.0
    concurrency: int = 20
    max_age: timedelta = timedelta(days=7)
    prices: Mapping[str, Price] = field(default_factory=dict)


class LocationDrafts:
    """One location in one run."""

    def __init__(
        self,
        *,
        engine: Engine,
        location_id: str,
        rules: DraftRules,
        setup: str | None,
        providers: Sequence[Asked],
        slots: tuple[asyncio.Semaphore, asyncio.Semaphore],
    ) -> None:
        self._engine = engine
        self._location_id = location_id
        self._rules = rules
        self._setup = setup
        self._providers = providers
        self._slots = slots
        self._counts = DraftCounts()

    async def run(self, *, is_on: bool, again: bool, patient: bool) -> DraftsReport:
        """Writes what is wanted here; raises what is no provider's doing, when all others have ended."""
        began = time.monotonic()
        if not is_on:
            self._counts.skip(SkipReason.NOT_SWITCHED_ON)
        wanted = await in_thread(self._wanted, again=again, patient=patient) if is_on else []
        await _all(self._one(candidate) for candidate in wanted)
        record = await in_thread(last_record, self._engine, self._location_id, CAPABILITY)
        before = record.get(SETUP_REFUSED)
        refused = self._setup if self._counts.setup_refused else before if isinstance(before, str) else None
        return report_of(
            self._location_id,
            self._counts,
            self._rules.prices,
            seconds=time.monotonic() - began,
            setup_refused=refused,
            all_refused=self._setup if all(each.refusal is not None for each in self._providers) else None,
        )

    def _wanted(self, *, again: bool, patient: bool) -> list[Candidate]:
        """Newest first: whoever wrote last waits for an answer."""
        with self._engine.connect() as connection:
            found = candidates(connection, self._rules.max_age, [self._location_id])
        wanted = []
        for candidate in found:
            reason = skip_reason(candidate, self._setup, again=again, patient=patient)
            if reason is None:
                wanted.append(candidate)
            else:
                self._counts.skip(reason)
        return wanted[:MOST_AT_ONCE]

    async def _one(self, candidate: Candidate) -> None:
        # The location's own first: whoever waits for the common one stands in its line once.
        async with self._slots[0], self._slots[1]:
            offer, context = await in_thread(self._read, candidate)
            if offer is None or context is None:
                self._counts.skip(SkipReason.NOT_SWITCHED_ON if offer is None else SkipReason.CHANGED_MEANWHILE)
                return
            prompt = render(candidate.channel, offer, context.first_name, context.conversation, datetime.now(UTC))
            written = await write_draft(
                prompt,
                offer,
                self._providers,
                deadline_seconds=self._rules.deadlines[candidate.channel],
                multiplier=self._rules.multiplier,
            )
        self._counts.spent(written.tally)
        if await in_thread(self._store, candidate, written, prompt.version):
            self._counts.ended(candidate.channel.value, written)
        else:
            self._counts.skip(SkipReason.CHANGED_MEANWHILE)

    def _read(self, candidate: Candidate) -> tuple[Offer | None, Context | None]:
        with self._engine.connect() as connection:
            offer = read_offer(connection, candidate.client_id, datetime.now(UTC))
            return offer, read_context(connection, candidate.lead_id, candidate.message_id)

    def _store(self, candidate: Candidate, written: Written, version: str) -> bool:
        draft = NewDraft(candidate, written, version, cost_of(written.tally, self._rules.prices))
        with self._engine.begin() as connection:
            return store_draft(connection, draft, self._rules.max_age)


async def _all(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Does all of it; an error of one is raised when the others have ended, by itself and not in a group."""
    for ended in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended
