"""The memory of a run does not grow with its location: at any moment it holds some pages, never a list of all.

Measured is what is alive in Python after each page, in a process of its own so that the sandbox's contacts do not
count. The next page may just be read then, which takes two megabytes for a moment (a busy machine once had such a
moment in the one location and not in the other), so that is waited for. Which pages are in memory after that is chance
and differs by half a megabyte; a list of all leads would take more than 200 bytes for each.
"""

import asyncio
import gc
import multiprocessing
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import URL, Engine, make_url

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.plan import Way
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import Agency, Place

FEW, MANY = 2_000, 12_000
PAGE = 500
# For each lead more. 10,000 of them may thus take one megabyte, which is less than their addresses alone.
MOST_BYTES = 100
# What a page in the making changes at once is more.
UNCHANGED_BYTES = 10_000


@dataclass(frozen=True)
class Job:
    """What the measuring process needs to know."""

    database_url: str
    sandbox_url: str
    key: bytes
    locations: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """Of one location's run: leads that were looked at, and bytes that were alive at most."""

    leads: int
    alive: int


def alive_when_settled() -> int:
    """Bytes alive once they stop changing: work at hand goes on until it needs the page that waits here."""
    before = -1
    for _ in range(100):
        gc.collect()
        now = tracemalloc.get_traced_memory()[0]
        if abs(now - before) < UNCHANGED_BYTES:
            return min(now, before)
        before = now
        time.sleep(0.05)
    return before


def measure(job: Job) -> list[Measured]:
    """Runs the locations one after the other. The first is only there so that everything is imported and warm."""
    engine = create_engine(make_url(job.database_url))
    settings = Settings(api_url=job.sandbox_url, requests_per_10s=1000)
    hydration = Hydration(
        engine=engine,
        cipher=TokenCipher([Fernet(job.key)], "this test"),
        open_client=client_opener(settings, engine),
    )
    measured = []
    alive: list[int] = []

    def count(_asset: str, _report: Report) -> None:
        alive.append(alive_when_settled())

    tracemalloc.start()
    for location in job.locations:
        alive.clear()
        history = RememberedHistory(before_progress=count)
        result = asyncio.run(hydration.run([location], history, Options(page_size=PAGE)))
        assert result.failures == ()
        measured.append(Measured(result.reports[0].eligible, max(alive)))
    tracemalloc.stop()
    engine.dispose()
    return measured


def place_with(agency: Agency, name: str, leads: int, way: Way) -> Place:
    """As many leads, each of a contact that lacks the company, so that the lead stays eligible."""
    people = [msgspec.structs.replace(contact, company_name=None) for contact in crowd(leads + leads // 20, name)]
    place = agency.place(name, contacts=people)
    agency.leads(place, [{"email": contact.email} for contact in people[:leads]])
    if way is Way.LOOKUP:
        agency.prefer_lookups(place, group_size=100)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("way", list(Way))
def test_six_times_the_leads_take_no_more_memory(engine: Engine, database_url: URL, sandbox: Sandbox, way: Way) -> None:
    key = Fernet.generate_key()
    agency = Agency(engine, sandbox, TokenCipher([Fernet(key)], "this test"))
    warm, few, many = [place_with(agency, f"Place {n}", n, way) for n in (FEW // 4, FEW, MANY)]
    if way is Way.DELTA:
        first = asyncio.run(agency.backfill(warm, few, many, history=RememberedHistory()))
        assert first.failures == ()
        now = int(time.time() * 1000)
        for place in (warm, few, many):
            for at, contact_id in enumerate(list(place.ghl.contacts.by_id)):
                place.ghl.change(contact_id, date_updated=now + at, last_name="Changed")
    job = Job(
        database_url.render_as_string(hide_password=False), sandbox.url, key, [place.id for place in (warm, few, many)]
    )
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        _, small, large = processes.submit(measure, job).result(timeout=300)
    assert (small.leads, large.leads) == (FEW, MANY)
    ways = {row["client_id"]: row["plan"]["way"] for row in agency.table("work_lists")}
    assert (ways[few.client_id], ways[many.client_id]) == (way, way)
    grown = large.alive - small.alive
    assert grown <= MOST_BYTES * (MANY - FEW), f"{small.alive:,} bytes for {FEW:,} leads, {large.alive:,} for {MANY:,}"
