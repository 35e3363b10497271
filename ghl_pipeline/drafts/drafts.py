"""Drafts of many locations in one process, so many at a time; a location that fails stops no other."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from ghl_pipeline.drafts.asking import Asked, Provider
from ghl_pipeline.drafts.client_settings import switched_on
from ghl_pipeline.drafts.context import Context, read_context, read_offer
from ghl_pipeline.drafts.draft import Written, write_draft
from ghl_pipeline.drafts.draft_store import NewDraft, store_draft
from ghl_pipeline.drafts.outcomes import Channel, SkipReason
from ghl_pipeline.drafts.prices import Price
from ghl_pipeline.drafts.prompting import Offer, render
from ghl_pipeline.drafts.report import DraftCounts, DraftsReport, cost_of, report_of
from ghl_pipeline.drafts.wanting import CAPABILITY, SETUP_REFUSED, Candidate, candidates, due_locations, skip_reason
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.orchestration.attempts import last_record
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.many_locations import work_on_locations
from ghl_pipeline.orchestration.reports import History, NoHistory

REPLY_DRAFTS = "reply_drafts"
# Of a location in one run; the rest is the next run's, so that a burst at one location ends its run some time.
MOST_AT_ONCE = 500
# Of the drafts under way, those of one location while there are others: a burst at one keeps nobody else waiting.
SHARE_OF_ONE = 0.25

OpenProviders = Callable[[], AbstractAsyncContextManager[Sequence[Provider]]]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DraftRules:
    """How drafts are written: seconds for a whole draft by channel, and what the settings say of the rest."""

    deadlines: Mapping[Channel, float] = field(default_factory=lambda: {Channel.SMS: 20.0, Channel.EMAIL: 60.0})
    multiplier: float = 3.0
    concurrency: int = 20
    max_age: timedelta = timedelta(days=7)
    prices: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DraftsResult:
    """What became of each location.

    `busy`: another run is at work there. `skipped`: done before in this attempt. `refusals`: providers that refused
    their key or model, a sentence each; they were not asked again in this run.
    """

    reports: tuple[DraftsReport, ...]
    failures: tuple[FailedLocation, ...]
    busy: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


class Drafts:
    """The capability with its collaborators. Safe to use from one event loop at a time.

    `setup` is a fingerprint of keys, models and addresses; None when no provider has a key.
    """

    def __init__(
        self, *, engine: Engine, open_providers: OpenProviders, setup: str | None, rules: DraftRules | None = None
    ) -> None:
        self._engine = engine
        self._open_providers = open_providers
        self._setup = setup
        self._rules = rules or DraftRules()

    def __repr__(self) -> str:
        return "Drafts()"

    @property
    def has_key(self) -> bool:
        """Whether any provider can be asked."""
        return self._setup is not None

    def due(self) -> list[str]:
        """The locations with a message that wants a draft now. None without a key."""
        if self._setup is None:
            return []
        with self._engine.connect() as connection:
            return due_locations(connection, self._rules.max_age, self._setup)

    async def write(
        self,
        location_ids: Sequence[str],
        history: History | None = None,
        *,
        again: bool = False,
        told: Callable[[DraftsReport], None] | None = None,
    ) -> DraftsResult:
        """Writes the drafts that are wanted at locations.

        A location that this attempt has already done (a rerun of a killed run) is skipped. What a killed run had not
        stored is done again.

        Args:
            location_ids: which; repeated ones count once.
            history: of the asset; None outside a run.
            again: what failed is tried once more, whatever its time.
            told: called with the report of each location that ended well, in place of telling the history.

        Raises:
            asyncio.CancelledError: the run was stopped; drafts that were stored are kept.
        """
        history = history or NoHistory()
        skipped = await in_thread(_done_before, history, location_ids)
        on = await in_thread(self._switched_on)
        slots = asyncio.Semaphore(self._rules.concurrency)
        is_alone = len(set(location_ids)) == 1
        at_most = self._rules.concurrency if is_alone else max(1, int(SHARE_OF_ONE * self._rules.concurrency))
        async with self._open_providers() as providers:
            asked = [Asked(provider) for provider in providers]

            async def one(location_id: str) -> DraftsReport:
                work = _LocationDrafts(
                    engine=self._engine,
                    location_id=location_id,
                    rules=self._rules,
                    setup=self._setup,
                    providers=asked,
                    slots=(asyncio.Semaphore(at_most), slots),
                )
                report = await work.run(is_on=location_id in on, again=again)
                if told is not None:
                    await in_thread(told, report)
                else:
                    await in_thread(history.done, REPLY_DRAFTS, location_id, report.as_report())
                return report

            result = await work_on_locations(
                self._engine,
                [location_id for location_id in location_ids if location_id not in skipped],
                one,
                capability=CAPABILITY,
                run_id=history.run_id,
                counts=DraftsReport.as_record,
            )
        refusals = tuple(each.sentence(each.refusal) for each in asked if each.refusal is not None)
        for sentence in refusals:
            log.error("No drafts from one provider: %s. Correct its key or model; see docs/runbook.md", sentence)
        busy = tuple(f.location_id for f in result.failures if f.error_class == LocationBusy.__name__)
        return DraftsResult(
            tuple(result.reports.values()),
            tuple(failure for failure in result.failures if failure.location_id not in busy),
            busy,
            tuple(skipped),
            refusals,
        )

    def _switched_on(self) -> Collection[str]:
        with self._engine.connect() as connection:
            return switched_on(connection)


class _LocationDrafts:
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

    async def run(self, *, is_on: bool, again: bool) -> DraftsReport:
        began = time.monotonic()
        if not is_on:
            self._counts.skip(SkipReason.NOT_SWITCHED_ON)
        wanted = await in_thread(self._wanted, again=again) if is_on else []
        if wanted:
            offer = await in_thread(self._offer, wanted[0].client_id)
            await _all(self._one(candidate, offer) for candidate in wanted)
        record = await in_thread(last_record, self._engine, self._location_id, CAPABILITY)
        before = record.get(SETUP_REFUSED)
        refused = self._setup if self._counts.setup_refused else before if isinstance(before, str) else None
        return report_of(
            self._location_id,
            self._counts,
            self._rules.prices,
            seconds=time.monotonic() - began,
            setup_refused=refused,
        )

    def _wanted(self, *, again: bool) -> list[Candidate]:
        """Newest first: whoever wrote last waits for an answer."""
        with self._engine.connect() as connection:
            found = candidates(connection, self._rules.max_age, [self._location_id])
        wanted = []
        for candidate in found:
            reason = skip_reason(candidate, self._setup, again=again)
            if reason is None:
                wanted.append(candidate)
            else:
                self._counts.skip(reason)
        return wanted[:MOST_AT_ONCE]

    def _offer(self, client_id: int) -> Offer:
        with self._engine.connect() as connection:
            return read_offer(connection, client_id, datetime.now(UTC))

    async def _one(self, candidate: Candidate, offer: Offer) -> None:
        # The location's own first: whoever waits for the common one stands in its line once.
        async with self._slots[0], self._slots[1]:
            context = await in_thread(self._context, candidate)
            if context is None:
                self._counts.skip(SkipReason.CHANGED_MEANWHILE)
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

    def _context(self, candidate: Candidate) -> Context | None:
        with self._engine.connect() as connection:
            return read_context(connection, candidate.lead_id, candidate.message_id)

    def _store(self, candidate: Candidate, written: Written, version: str) -> bool:
        draft = NewDraft(candidate, written, version, cost_of(written.tally, self._rules.prices))
        with self._engine.begin() as connection:
            return store_draft(connection, draft)


async def _all(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Does all of it; an error of one is raised when the others have ended, by itself and not in a group."""
    for ended in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


def _done_before(history: History, location_ids: Sequence[str]) -> list[str]:
    done = []
    for location_id in dict.fromkeys(location_ids):
        last = history.last_done(REPLY_DRAFTS, location_id)
        if last is not None and last.get("attempt") == history.attempt:
            done.append(location_id)
    return done
