"""Hydration of many locations at once in one process; one that fails never stops the rest.

A location waits on its rate limit most of the time, so many of them overlap on one core. Each has a client of its own,
holds its lease while it works, and ends as a report or as a failure on record.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.database.leases import LocationLeases
from ghl_pipeline.errors import LocationBusy, PipelineError
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.hydration.location_report import LocationReport, hydrated_report
from ghl_pipeline.hydration.location_work import LocationWork
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.hydration.planning import PlanRules
from ghl_pipeline.hydration.straight_through import straight_through
from ghl_pipeline.hydration.work_list import Scope, drop_abandoned_lists
from ghl_pipeline.hydration.workplace import Workplace
from ghl_pipeline.locations.clients import LocationAccess, location_access
from ghl_pipeline.locations.learning import load_learned
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.orchestration.attempts import (
    begin_attempt,
    end_attempt,
    record_refusal,
    somebody_was_turned_away,
)
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import FailedLocation, describe_failure
from ghl_pipeline.orchestration.reports import History, Report
from ghl_pipeline.privacy.tokens import TokenCipher

log = logging.getLogger(__name__)

# Blocking database and history calls of all locations; the engine's pool has as many connections.
BLOCKING_CALLS = 10
BUSY_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """Reports of the locations whose leads were written, failures, and locations that were done before.

    A location of which only earlier steps were asked for is in none of them.
    """

    reports: tuple[LocationReport, ...]
    failures: tuple[FailedLocation, ...]
    skipped: tuple[str, ...] = ()


class _InUse(Exception):
    """Another run holds the location, and there is time to wait for it."""


class Hydration:
    """The capability with its collaborators. Safe to use from one event loop at a time."""

    def __init__(
        self,
        *,
        engine: Engine,
        cipher: TokenCipher,
        open_client: OpenClient,
        open_interactive: OpenClient | None = None,
        default_group_size: int = 50,
        default_page_size: int = 1000,
        rules: PlanRules | None = None,
    ) -> None:
        self.engine = engine
        self._cipher = cipher
        self._open_client = open_client
        self._open_interactive = open_interactive or open_client
        self._default_group_size = default_group_size
        self._default_page_size = default_page_size
        self._rules = rules or PlanRules()

    def __repr__(self) -> str:
        return "Hydration()"

    async def run(self, location_ids: Sequence[str], history: History, options: Options) -> RunResult:
        """Hydrates locations, at most `options.concurrency` at a time.

        A location that this attempt has already completed (a rerun of a killed run) is skipped.

        Returns:
            What became of each. Errors of a location never surface as exceptions.

        Raises:
            asyncio.CancelledError: the run was stopped; every location's resume point is in the history.
        """
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(BLOCKING_CALLS, "blocking"))
        slots = asyncio.Semaphore(options.concurrency)
        await in_thread(self._drop_abandoned_lists)
        with LocationLeases(self.engine) as leases:

            async def one(location_id: str) -> LocationReport | FailedLocation | str | None:
                give_up_at: float | None = None
                while True:
                    async with slots:
                        now = time.monotonic()
                        give_up_at = give_up_at or now + options.busy_wait_seconds
                        try:
                            if await in_thread(self._is_done, history, location_id, options):
                                return location_id
                            return await self._location(
                                location_id, leases, history, options, may_wait=now < give_up_at
                            )
                        except _InUse:
                            pass  # asked again later, and others have the place meanwhile
                        except Exception as error:  # noqa: BLE001 - whatever it is, it is one location's
                            # Not even the record of the location could be kept; the others go on all the same.
                            return self._failed(location_id, error)
                    await asyncio.sleep(BUSY_POLL_SECONDS)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(location_id)) for location_id in dict.fromkeys(location_ids)]
        results = [task.result() for task in tasks]
        return RunResult(
            tuple(result for result in results if isinstance(result, LocationReport)),
            tuple(result for result in results if isinstance(result, FailedLocation)),
            tuple(result for result in results if isinstance(result, str)),
        )

    def _drop_abandoned_lists(self) -> None:
        with self.engine.begin() as connection:
            drop_abandoned_lists(connection)

    @staticmethod
    def _is_done(history: History, location_id: str, options: Options) -> bool:
        if options.dry_run or Step.HYDRATED_LEADS not in options.steps:
            return False
        last = history.last_done(Step.HYDRATED_LEADS, location_id)
        return last is not None and last.get("attempt") == history.attempt

    async def _location(
        self, location_id: str, leases: LocationLeases, history: History, options: Options, *, may_wait: bool
    ) -> LocationReport | FailedLocation | None:
        run = f"run {history.run_id}" if history.run_id else "a command"
        holder = f"{run} (process {os.getpid()} on {socket.gethostname()})"
        try:
            await in_thread(leases.acquire, location_id, holder)
        except LocationBusy as error:
            if may_wait:
                raise _InUse from None
            return await self._refused(location_id, error, history)
        except PipelineError as error:
            return await self._refused(location_id, error, history)
        try:
            return await self._leased_location(location_id, leases, history, options)
        finally:
            await in_thread(leases.release, location_id)

    async def _leased_location(
        self, location_id: str, leases: LocationLeases, history: History, options: Options
    ) -> LocationReport | FailedLocation | None:
        attempt_id = await in_thread(begin_attempt, self.engine, location_id, history.run_id, trial=options.is_trial)
        try:
            report = await self._work(location_id, leases, history, options)
        except asyncio.CancelledError:
            end_attempt(self.engine, attempt_id, "interrupted")
            raise
        except Exception as error:  # noqa: BLE001 - one location's bug must not stop the others; it is on record
            failure = self._failed(location_id, error)
            await in_thread(end_attempt, self.engine, attempt_id, "failed", failure=failure)
            return failure
        if await in_thread(somebody_was_turned_away, self.engine, attempt_id):
            await in_thread(self._tell_list_again, history, location_id, options)
        counts = report.as_dict() if report else {}
        if options.scope is Scope.NEVER_LOOKED_UP:
            counts["only_new"] = True  # no turn of the location's in a rhythm: its other leads were not looked at
        await in_thread(end_attempt, self.engine, attempt_id, "succeeded", report=counts, whole=options.is_whole)
        return report

    @staticmethod
    def _tell_list_again(history: History, location_id: str, options: Options) -> None:
        """Dagster counts what a run planned and did not materialize as failed.

        The run that was turned away planned the list, which was materialized before that; the later steps come after.
        """
        told = history.last_done(Step.ELIGIBLE_LEADS, location_id)
        if told is None or options.dry_run or Step.ELIGIBLE_LEADS not in options.steps:
            return
        values = {name: value for name, value in told.items() if isinstance(value, str | int | float | bool)}
        history.done(Step.ELIGIBLE_LEADS, location_id, Report(values))

    @asynccontextmanager
    async def open_location(
        self, location_id: str, *, remember: bool = True, interactive: bool = False
    ) -> AsyncIterator[tuple[LocationAccess, LocationClient, LocationKnowledge]]:
        """A location's access, its client, and what is known of it.

        Args:
            location_id: the location.
            remember: keep what is found out about it for the next run.
            interactive: a person waits; the client may use the slots that are kept for that.

        Raises:
            UnknownClient, InvalidInput: the location is unknown, inactive, or has no token.
        """

        def access() -> LocationAccess:
            with self.engine.connect() as connection:
                return location_access(connection, self._cipher, location_id)

        granted = await in_thread(access)
        learned = await in_thread(load_learned, self.engine, location_id, self._default_group_size)
        opened = self._open_interactive if interactive else self._open_client
        async with opened(granted) as client:
            yield granted, client, LocationKnowledge(client, learned, self.engine if remember else None)

    async def _work(
        self, location_id: str, leases: LocationLeases, history: History, options: Options
    ) -> LocationReport | None:
        async with self.open_location(location_id, remember=not options.dry_run) as (access, client, knowledge):
            if options.dry_run or options.direct:
                report = await straight_through(
                    engine=self.engine,
                    access=access,
                    client=client,
                    knowledge=knowledge,
                    page_size=options.page_size or self._default_page_size,
                    max_leads=options.max_leads,
                    dry_run=options.dry_run,
                )
                if options.dry_run:
                    told = hydrated_report(0, report)
                    await in_thread(history.progress, Step.HYDRATED_LEADS, location_id, told)
                return report
            at = Workplace(
                engine=self.engine,
                access=access,
                client=client,
                knowledge=knowledge,
                history=history,
                rules=self._rules,
                page_size=options.page_size or self._default_page_size,
                check_lease=leases.check,
            )
            return await LocationWork(at, options).run()

    async def _refused(self, location_id: str, error: PipelineError, history: History) -> FailedLocation:
        failure = self._failed(location_id, error)
        await in_thread(record_refusal, self.engine, failure, history.run_id)
        return failure

    def _failed(self, location_id: str, error: Exception) -> FailedLocation:
        """Describes and logs why a location failed. A bug is logged with its stack, without its own text."""
        if isinstance(error, OperationalError | InterfaceError):
            error = unavailable(self.engine.url, error)
        failure = describe_failure(location_id, error)
        log.error("%s", failure.text, exc_info=None if isinstance(error, PipelineError) else error)
        return failure
