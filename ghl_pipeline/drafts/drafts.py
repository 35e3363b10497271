"""Drafts of many locations in one process, so many at a time; a location that fails stops no other."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy import Engine

from ghl_pipeline.drafts.asking import Asked, Provider
from ghl_pipeline.drafts.client_settings import switched_on
from ghl_pipeline.drafts.in_hand import refused_everywhere
from ghl_pipeline.drafts.location_drafts import DraftRules, LocationDrafts
from ghl_pipeline.drafts.report import DraftsReport
from ghl_pipeline.drafts.wanting import CAPABILITY, due_locations
from ghl_pipeline.errors import LocationBusy
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.many_locations import work_on_locations
from ghl_pipeline.orchestration.reports import History, NoHistory

REPLY_DRAFTS = "reply_drafts"
# Of the drafts under way, those of one location while there are others: a burst at one keeps nobody else waiting.
SHARE_OF_ONE = 0.25

OpenProviders = Callable[[], AbstractAsyncContextManager[Sequence[Provider]]]
log = logging.getLogger(__name__)


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

    def is_refused(self) -> bool:
        """Whether all providers refused their keys or models within the hour, and these are still the same."""
        if self._setup is None:
            return False
        with self._engine.connect() as connection:
            return refused_everywhere(connection, self._setup)

    async def write(
        self,
        location_ids: Sequence[str],
        history: History | None = None,
        *,
        again: bool = False,
        patient: bool = False,
        told: Callable[[DraftsReport], None] | None = None,
    ) -> DraftsResult:
        """Writes the drafts that are wanted at locations.

        A location that this attempt has already done (a rerun of a killed run) is skipped. What a killed run had not
        stored is done again.

        Args:
            location_ids: which; repeated ones count once.
            history: of the asset; None outside a run.
            again: what failed is tried once more, whatever its time.
            patient: messages of this moment are left to the next run, since their leads may be writing on.
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
                work = LocationDrafts(
                    engine=self._engine,
                    location_id=location_id,
                    rules=self._rules,
                    setup=self._setup,
                    providers=asked,
                    slots=(asyncio.Semaphore(at_most), slots),
                )
                report = await work.run(is_on=location_id in on, again=again, patient=patient)
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


def _done_before(history: History, location_ids: Sequence[str]) -> list[str]:
    done = []
    for location_id in dict.fromkeys(location_ids):
        last = history.last_done(REPLY_DRAFTS, location_id)
        if last is not None and last.get("attempt") == history.attempt:
            done.append(location_id)
    return done
