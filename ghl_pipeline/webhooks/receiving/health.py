"""Whether the receiver's database answers, for `/healthz`."""

import asyncio
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from ghl_pipeline.database.connection import opened
from ghl_pipeline.errors import PipelineError
from ghl_pipeline.webhooks.receiving.own_threads import OwnThread

HEALTHY_WITHIN_SECONDS: Final = 1.0


class Health:
    """Whether the database answers. One question at a time, however many ask: a dead database must not eat threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = OwnThread("health of the database")
        self._question: asyncio.Task[bool] | None = None

    async def is_alive(self) -> bool:
        """Whether it answers now, within a second."""
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._thread.run(self._ask), name="asking the database")
        done, _ = await asyncio.wait([self._question], timeout=HEALTHY_WITHIN_SECONDS)
        return bool(done) and self._question.result()

    async def close(self) -> None:
        """Waits for the question that is under way."""
        if self._question is not None:
            await asyncio.wait([self._question])
        self._thread.close()

    def _ask(self) -> bool:
        try:
            with opened(self._engine) as connection:
                connection.execute(text("SELECT 1"))
        except (PipelineError, SQLAlchemyError):
            return False
        return True
