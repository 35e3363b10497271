"""Blocking calls (database, history) from asynchronous code."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a blocking call in a thread and waits for it, also when cancelled meanwhile.

    A thread cannot be stopped. Left alone it would still write after its location's lease is given back, when another
    run may already be at work there.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    await until_done(call)
    return call.result()


async def until_done(call: asyncio.Future[T]) -> None:
    """Waits for the end of `call`, however it ends and however often the waiting is cancelled.

    Raises:
        asyncio.CancelledError: the waiting was cancelled meanwhile.
    """
    cancelled: asyncio.CancelledError | None = None
    while not call.done():
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not call.cancelled():
            call.exception()  # looked at, or asyncio reports it as lost
        raise cancelled
