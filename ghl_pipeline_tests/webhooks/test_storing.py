"""Many requests, one commit: who is answered what, when storing is slow, fails, or fails for one."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from ghl_pipeline.errors import DatabaseUnavailable
from ghl_pipeline.webhooks.events import Event, EventKind, Provider
from ghl_pipeline.webhooks.inbox.store_events import Delivery, NotStored, Stored
from ghl_pipeline.webhooks.receiving.group_commit import GroupCommit


def delivery(number: int = 1) -> Delivery:
    event = Event(Provider.GHL, EventKind.OTHER, "Test", f"key {number}")
    return Delivery(event, b"{}", client_id=1, location_id="LocationNumberOne001")


@dataclass
class Database:
    """Stores in memory, held up as long as `gate` is closed."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)
    fails_with: Exception | None = None

    def store(self, deliveries: Sequence[Delivery]) -> Sequence[Stored | NotStored]:
        self.batches.append([each.event.dedupe_key for each in deliveries])
        assert self.gate.wait(10)
        if self.fails_with is not None:
            raise self.fails_with
        return [
            NotStored("DataError") if each.event.dedupe_key == "key 13" else Stored(1, True, None)
            for each in deliveries
        ]


@pytest.fixture
def database() -> Database:
    database = Database()
    database.gate.set()
    return database


async def waiting(inbox: GroupCommit, count: int) -> list["asyncio.Task[Stored | NotStored]"]:
    tasks = [asyncio.create_task(inbox.add(delivery(number))) for number in range(1, count + 1)]
    await asyncio.sleep(0.05)
    return tasks


async def test_what_arrives_during_a_commit_goes_into_the_next_one_together(database: Database) -> None:
    inbox = GroupCommit(database.store, most_at_once=40)
    inbox.start()
    database.gate.clear()
    first = await waiting(inbox, 1)
    rest = await waiting(inbox, 100)
    database.gate.set()
    answers = await asyncio.gather(*first, *rest)
    assert [len(batch) for batch in database.batches] == [1, 40, 40, 20]
    assert answers[13] == NotStored("DataError"), "each has its own answer"
    assert answers.count(Stored(1, True, None)) == 100
    await inbox.close()


async def test_a_dead_database_is_told_to_all_who_wait_and_not_found_out_by_each(database: Database) -> None:
    inbox = GroupCommit(database.store, most_at_once=10)
    inbox.start()
    database.gate.clear()
    database.fails_with = DatabaseUnavailable("down")
    tasks = await waiting(inbox, 1) + await waiting(inbox, 50)
    database.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    assert len(database.batches) == 1
    database.fails_with = None
    assert await inbox.add(delivery()) == Stored(1, True, None), "it goes on when the database does"
    await inbox.close()


async def test_a_bug_costs_its_batch_and_no_more(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    inbox = GroupCommit(database.store)
    inbox.start()
    database.fails_with = ValueError("zyxwinda@example.com")
    with caplog.at_level(logging.ERROR):
        assert await inbox.add(delivery()) == NotStored("ValueError")
    database.fails_with = None
    assert await inbox.add(delivery()) == Stored(1, True, None)
    await inbox.close()


async def test_who_waited_too_long_is_sent_away_and_not_stored_later(database: Database) -> None:
    inbox = GroupCommit(database.store, patience_seconds=0.2)
    inbox.start()
    database.gate.clear()
    tasks = await waiting(inbox, 1) + await waiting(inbox, 5)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    database.gate.set()
    assert await inbox.add(delivery(99)) == Stored(1, True, None)
    assert database.batches == [["key 1"], ["key 99"]]
    await inbox.close()


async def test_who_gave_up_takes_no_place_and_no_memory_while_the_database_hangs(database: Database) -> None:
    inbox = GroupCommit(database.store, most_waiting=5, patience_seconds=0.1)
    inbox.start()
    database.gate.clear()
    first = await waiting(inbox, 1)
    given = [replace(delivery(number), body=b"%d" % number * 1000) for number in range(5)]
    references = [sys.getrefcount(each) for each in given]

    async def give_up(each: Delivery) -> None:
        with pytest.raises(DatabaseUnavailable, match="took longer"):
            await inbox.add(each)

    for _ in range(4):
        await asyncio.gather(*map(give_up, given))
    gc.collect()
    assert [sys.getrefcount(each) for each in given] == references
    database.gate.set()
    await inbox.close()
    assert isinstance(first[0].exception(), DatabaseUnavailable)
    assert database.batches == [["key 1"]]


async def test_a_transaction_holds_no_more_bytes_than_may_be_in_flight(database: Database) -> None:
    inbox = GroupCommit(database.store)
    inbox.start()
    database.gate.clear()
    first = await waiting(inbox, 1)
    large = [replace(delivery(number), body=bytes(5_000_000)) for number in range(8)]
    tasks = [asyncio.create_task(inbox.add(each)) for each in large]
    await asyncio.sleep(0.05)
    database.gate.set()
    assert len(await asyncio.gather(*first, *tasks)) == 9
    assert [len(batch) for batch in database.batches] == [1, 3, 3, 2]
    await inbox.close()


async def test_closing_leaves_a_transaction_that_hangs_to_whoever_stops_waiting(database: Database) -> None:
    inbox = GroupCommit(database.store)
    inbox.start()
    database.gate.clear()
    (hanging,) = await waiting(inbox, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await inbox.close()
    database.gate.set()
    assert await hanging == Stored(1, True, None)
    await inbox.close()


async def test_a_queue_that_is_full_takes_nobody_more(database: Database) -> None:
    inbox = GroupCommit(database.store, most_waiting=5)
    inbox.start()
    database.gate.clear()
    tasks = await waiting(inbox, 1) + await waiting(inbox, 5)
    with pytest.raises(DatabaseUnavailable, match="5 events wait"):
        await inbox.add(delivery())
    database.gate.set()
    assert len(await asyncio.gather(*tasks)) == 6
    await inbox.close()


async def test_closing_stores_and_answers_what_waits_and_takes_nothing_more(database: Database) -> None:
    inbox = GroupCommit(database.store, most_at_once=10)
    inbox.start()
    database.gate.clear()
    tasks = await waiting(inbox, 30)
    closing = asyncio.create_task(inbox.close())
    await asyncio.sleep(0.05)
    with pytest.raises(DatabaseUnavailable, match="stopping"):
        await inbox.add(delivery())
    database.gate.set()
    await closing
    assert all(task.done() for task in tasks)
    assert len(await asyncio.gather(*tasks)) == 30
