"""A provider of language models as one call of it: what is asked, what comes back, and what went wrong.

`pydantic_models.py` makes these from the SDKs; `draft.py` decides whom to ask how often. In between there is nothing
that an SDK raised: its texts repeat what the server said, and servers repeat the prompt.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from ghl_pipeline.drafts.outcomes import WORDS, DraftFailure
from ghl_pipeline.drafts.prompting import Prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call gave: a text, or why there is none. `repr` does not show the text.

    Attributes:
        text: whole, never cut off; None when `failure` is set.
        failure: why there is none.
        status: HTTP status of a refusal, where there was one.
        tokens_in, tokens_out: as the provider counted them, 0 where it did not say.
        retry_after: seconds after which the provider wants to be asked again.
    """

    text: str | None = field(default=None, repr=False)
    failure: DraftFailure | None = None
    status: int | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    retry_after: float | None = None


class Provider(Protocol):
    """Somebody who can be asked."""

    @property
    def name(self) -> str:
        """Such as `openai`."""

    @property
    def model(self) -> str:
        """The model asked for."""

    async def ask(self, prompt: Prompt, *, budget: int, again: bool) -> Answer:
        """One request, without retries and without a time limit of its own: the caller cancels it.

        Args:
            prompt: rules and data.
            budget: most tokens of the answer, reasoning included.
            again: after one that was cut off: with as little reasoning as the model can.
        """


@dataclass(slots=True)
class Asked:
    """A provider within a run. Once it refused the set-up, it is not asked again in this run.

    Attributes:
        provider: who is asked.
        refusal: the answer by which it refused key or model; what every later call would get.
    """

    provider: Provider
    refusal: Answer | None = None
    _free_at: float = 0.0
    _first_ended: asyncio.Event | None = None

    @property
    def standing(self) -> Answer | None:
        """What a call would get now, known without making it: a refused set-up, or the pause that was asked for."""
        if self.refusal is not None:
            return self.refusal
        left = self._free_at - time.monotonic()
        return Answer(failure=DraftFailure.RATE_LIMITED, retry_after=left) if left > 0 else None

    def learn(self, answer: Answer) -> None:
        """Remembers what an answer says of the calls after it."""
        if answer.failure is None:
            return
        if answer.failure.concerns_setup:
            self.refusal = Answer(failure=answer.failure, status=answer.status)
        elif answer.failure is DraftFailure.RATE_LIMITED and answer.retry_after is not None:
            self._free_at = max(self._free_at, time.monotonic() + answer.retry_after)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While a draft asks it. The first of a run is alone, so that a wrong key is refused once and not 20 times.

        What the first one got, the others know; whatever it was, they are not kept waiting a second time.
        """
        if self._first_ended is not None:
            await self._first_ended.wait()
            yield
            return
        self._first_ended = asyncio.Event()
        try:
            yield
        finally:
            self._first_ended.set()

    def sentence(self, answer: Answer) -> str:
        """Why it gave no text, for people: name, words, status; nothing that it said itself."""
        words = WORDS[answer.failure] if answer.failure else "answered"
        return f"{self.provider.name} {words}{f' ({answer.status})' if answer.status else ''}"
