"""Many locations side by side in one event loop, for work that needs no lease; one that fails stops no other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from ghl_pipeline.database.connection import unavailable
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.errors import LocationBusy, PipelineError
from ghl_pipeline.orchestration.attempts import begin_attempt, end_attempt, record_refusal
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.failures import FailedLocation, describe_failure

R = TypeVar("R")
log = logging.getLogger(__name__)

# Blocking database calls of all locations; the engine's pool has as many connections.
BLOCKING_CALLS = 10


@dataclass(frozen=True, slots=True)
class LocationsResult(Generic[R]):
    """What the work of each location returned, in the order asked for, and the locations that failed.

    `not_begun`: whose turn came when `may_begin` said no any more; nothing is on record of them.
    """

    reports: Mapping[str, R]
    failures: tuple[FailedLocation, ...]
    not_begun: tuple[str, ...] = ()


class _NotBegun:
    """In place of a report: nothing was done."""


async def work_on_locations(
    engine: Engine,
    location_ids: Sequence[str],
    work: Callable[[str], Awaitable[R]],
    *,
    capability: str,
    run_id: str | None,
    counts: Callable[[R], Mapping[str, object]],
    concurrency: int = 50,
    may_begin: Callable[[], bool] | None = None,
    counts_of_failure: Callable[[Exception], Mapping[str, object]] | None = None,
    trial: bool = False,
) -> LocationsResult[R]:
    """Does `work` for each location, at most `concurrency` at a time, each under a lock of the capability.

    Every try is on record in `location_attempts`. Use it from one event loop at a time.

    Args:
        engine: the dashboard database.
        location_ids: which; repeated ones count once.
        work: what to do; its errors become failures.
        capability: `crm`, `conversations`, ...: what the record is kept under.
        run_id: of the Dagster run, None outside one.
        counts: of a report, for the record; counts and ids only.
        concurrency: locations worked on at the same time; their turns come in the order of `location_ids`.
        may_begin: asked when a location's turn comes; once it says no, the location is left out.
        counts_of_failure: of an error, for the record, as `counts`.
        trial: a dry run: its record says nothing of how the locations stand.

    Raises:
        asyncio.CancelledError: the run was stopped.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(BLOCKING_CALLS, "blocking"))
    slots = asyncio.Semaphore(concurrency)
    locks = AdvisoryLocks(engine)

    async def one(location_id: str) -> R | FailedLocation | _NotBegun:
        async with slots:
            if may_begin is not None and not may_begin():
                return _NotBegun()
            try:
                return await _locked(location_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is one location's
                return _failed(engine, location_id, error)

    async def _locked(location_id: str) -> R | FailedLocation:
        held = ExitStack()
        try:
            if not await in_thread(held.enter_context, locks.hold(f"{capability} of location {location_id}")):
                busy = LocationBusy(
                    f"Another run is at the {capability} of location {location_id}. Wait until it ends."
                )
                failure = _failed(engine, location_id, busy)
                await in_thread(record_refusal, engine, failure, run_id, capability)
                return failure
            attempt = await in_thread(begin_attempt, engine, location_id, run_id, capability, trial=trial)
            try:
                report = await work(location_id)
            except asyncio.CancelledError:
                end_attempt(engine, attempt, "interrupted")
                raise
            except Exception as error:  # noqa: BLE001 - one location's bug must not stop the others; it is on record
                failure = _failed(engine, location_id, error)
                known = counts_of_failure(error) if counts_of_failure else None
                await in_thread(end_attempt, engine, attempt, "failed", failure=failure, report=known)
                return failure
            await in_thread(end_attempt, engine, attempt, "succeeded", report=counts(report))
            return report
        finally:
            await in_thread(held.close)

    async with asyncio.TaskGroup() as group:
        tasks = {id_: group.create_task(one(id_)) for id_ in dict.fromkeys(location_ids)}
    results = {id_: task.result() for id_, task in tasks.items()}
    return LocationsResult(
        {id_: result for id_, result in results.items() if not isinstance(result, FailedLocation | _NotBegun)},
        tuple(result for result in results.values() if isinstance(result, FailedLocation)),
        tuple(id_ for id_, result in results.items() if isinstance(result, _NotBegun)),
    )


def _failed(engine: Engine, location_id: str, error: Exception) -> FailedLocation:
    """Describes and logs why a location failed. A bug is logged with its stack, without its own text."""
    if isinstance(error, OperationalError | InterfaceError):
        error = unavailable(engine.url, error)
    failure = describe_failure(location_id, error)
    log.error("%s", failure.text, exc_info=None if isinstance(error, PipelineError) else error)
    return failure
