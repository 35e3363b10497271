"""The receiver's own threads: one call after the other, nobody waits for ever, nothing is kept for nobody."""

import asyncio
import gc
import threading
import time

import pytest

from ghl_pipeline.webhooks.receiving.own_threads import NoFreeThread, OwnThread


class Content:
    """What a call is given; counts how many of it are in memory."""

    alive = 0

    def __init__(self) -> None:
        Content.alive += 1

    def __del__(self) -> None:
        Content.alive -= 1


async def test_calls_are_made_one_after_the_other_and_each_gets_its_own_answer() -> None:
    thread = OwnThread("a test's")
    made: list[tuple[int, str]] = []

    def call(number: int) -> int:
        made.append((number, threading.current_thread().name))
        if number == 3:
            raise ValueError("number 3")
        return number

    answers = await asyncio.gather(*(thread.run(call, number) for number in range(6)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["0", "1", "2", "number 3", "4", "5"]
    assert made == [(number, "a test's") for number in range(6)]
    thread.close()


async def test_whoever_gives_up_leaves_nothing_behind_while_the_call_before_hangs() -> None:
    thread, hangs = OwnThread("a test's", most_waiting=3), threading.Event()
    made: list[object] = []
    hanging = asyncio.create_task(thread.run(hangs.wait, 30))
    await asyncio.sleep(0.05)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await thread.run(made.append, Content())

    await asyncio.gather(*(give_up() for _ in range(3)))
    gc.collect()
    assert Content.alive == 0, "what nobody waits for is let go before the thread comes to it"
    waiting = [asyncio.create_task(thread.run(made.append, None)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(NoFreeThread):
        await thread.run(made.append, None)
    hangs.set()
    await asyncio.gather(hanging, *waiting)
    assert made == [None] * 3, "what was given up is not called any more"
    thread.close()


async def test_a_closed_thread_ends_and_a_later_call_has_another_one() -> None:
    thread = OwnThread("a test's")
    first = await thread.run(threading.current_thread)
    thread.close()
    async with asyncio.timeout(5):
        second = await thread.run(threading.current_thread)
    first.join(5)
    assert not first.is_alive()
    assert second is not first
    assert second.daemon, "the interpreter does not wait for it at the end"
    thread.close()


async def test_a_thread_that_hangs_keeps_nobody_who_closes_it() -> None:
    thread, hangs = OwnThread("a test's"), threading.Event()
    hanging = asyncio.create_task(thread.run(hangs.wait, 30))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    thread.close()
    assert time.monotonic() - began < 1
    hangs.set()
    assert await hanging
