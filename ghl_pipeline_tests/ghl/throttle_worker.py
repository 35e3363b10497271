"""A process that asks GHL as often as the throttle lets it: what the throttle's proofs and its benchmark are made of.

`python -m ghl_pipeline_tests.ghl.throttle_worker JOB` takes a `Job` as JSON, works for its time and prints a `Report`.
"""

import asyncio
import logging
import subprocess
import sys
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress

import msgspec
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.throttle import Limits, LocationThrottle, Throttle


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask, how often, and for how long."""

    database_url: str
    api_url: str
    tokens: dict[str, str]  # by location id
    limits: Limits
    seconds: float
    callers: int = 20  # at the same time, per location
    interactive: bool = False
    pause_seconds: float = 0.0  # of each caller between two calls


class Report(msgspec.Struct, kw_only=True):
    """What became of it."""

    calls: int = 0
    waits: list[float] = []  # seconds on the limit, of each call that was answered
    cpu_seconds: float = 0.0
    sent: dict[str, list[float]] = {}  # by location, when its requests left; one clock for all processes
    round_trips: dict[str, list[float]] = {}  # of the same requests, seconds until they were answered


class _Noting:
    """A throttle that also notes when the requests left, and how long they took."""

    def __init__(self, throttle: Throttle, sent: list[float], round_trips: list[float]) -> None:
        self._sent = sent
        self._round_trips = round_trips
        self._throttle = throttle
        self.acquire = throttle.acquire
        self.refused = throttle.refused
        self.learn = throttle.learn

    async def sent(self, at: float) -> None:
        self._sent.append(at)
        self._round_trips.append(time.monotonic() - at)
        await self._throttle.sent(at)


def start_worker(job: Job) -> subprocess.Popen[bytes]:
    """The worker as a child process; `report_of` waits for its end."""
    command = [sys.executable, "-m", "ghl_pipeline_tests.ghl.throttle_worker", msgspec.json.encode(job).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def report_of(worker: subprocess.Popen[bytes]) -> Report:
    """What the worker has to tell, when it has ended."""
    output, _ = worker.communicate()
    if worker.returncode:
        raise RuntimeError(f"a worker ended with exit code {worker.returncode}")
    return msgspec.json.decode(output, type=Report)


async def work(job: Job, engine: Engine) -> Report:
    """Does the job in this process."""
    report = Report()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(job, engine, each, report)) for each in job.tokens]
        with suppress(TimeoutError):
            async with asyncio.timeout(job.seconds), asyncio.TaskGroup() as group:
                for client in clients:
                    for _ in range(job.callers):
                        group.create_task(_call_for_ever(client, job.pause_seconds, report.waits))
        report.calls = sum(client.usage.calls for client in clients)
    return report


def _client(job: Job, engine: Engine, location_id: str, report: Report) -> AbstractAsyncContextManager[LocationClient]:
    throttle = LocationThrottle(engine, location_id, job.limits, interactive=job.interactive)
    return open_client(
        base_url=job.api_url,
        location_id=location_id,
        token=SecretStr(job.tokens[location_id]),
        throttle=_Noting(
            throttle, report.sent.setdefault(location_id, []), report.round_trips.setdefault(location_id, [])
        ),
        policy=RetryPolicy(max_attempts=5, max_429=100, deadline_seconds=600),
        timeout_seconds=30,
    )


async def _call_for_ever(client: LocationClient, pause_seconds: float, waits: list[float]) -> None:
    while True:
        before = client.usage.waited_seconds
        await client.location()
        waits.append(client.usage.waited_seconds - before)
        if pause_seconds:
            await asyncio.sleep(pause_seconds)


def main() -> None:
    logging.disable()  # refusals are counted by the server
    job = msgspec.json.decode(sys.argv[1], type=Job)
    engine = create_engine(make_url(job.database_url))
    began = time.process_time()
    report = asyncio.run(work(job, engine))
    report.cpu_seconds = time.process_time() - began
    engine.dispose()
    sys.stdout.buffer.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
