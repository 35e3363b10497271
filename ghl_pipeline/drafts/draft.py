"""One draft: whom to ask how often, within one deadline.

First the first provider; after an answer that was cut off once more, with a larger budget and less reasoning; then the
second one in the same way. That is four calls at most, and two where nothing is cut off. Every other failure goes to
the next provider at once: whoever waits for a text message waits 20 seconds, in which a third try has no room.

The deadline is the draft's, not a call's. A provider that has another one behind it gets a share of what is left of it,
so that a hanging first provider leaves the second one time to answer. While a draft waits for the first call that a run
makes to a provider, its clock stands still.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ghl_pipeline.drafts.asking import Answer, Asked
from ghl_pipeline.drafts.budget import first_budget, larger_budget
from ghl_pipeline.drafts.checking import tidy, unusable
from ghl_pipeline.drafts.outcomes import DraftFailure
from ghl_pipeline.drafts.prompting import Offer, Prompt

CALLS_PER_PROVIDER: Final = 2
# Of what is left of the deadline, while somebody else could still be asked.
SHARE_OF_FIRST: Final = 0.6
# With less left than this share of the deadline, no further call is begun: it would be paid for and not awaited.
SHORTEST_CALL: Final = 0.05


@dataclass(slots=True)
class Tally:
    """What a draft used up."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    by_model: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, model: str, answer: Answer) -> None:
        """Adds what one call used."""
        self.tokens_in += answer.tokens_in
        self.tokens_out += answer.tokens_out
        before = self.by_model.get(model, (0, 0))
        self.by_model[model] = (before[0] + answer.tokens_in, before[1] + answer.tokens_out)


@dataclass(frozen=True, slots=True)
class Written:
    """A draft as it came out: `body`, or `failure`. `repr` does not show the body.

    Attributes:
        body: the text that is offered; None when there is none.
        failure: why there is none.
        failure_text: the same for people, with every provider's part in it.
        passes: whether trying again later can help by itself.
        is_outage: a provider was away, so that trying again may help for as long as the message is young.
        provider, model: who wrote it, or failed last.
        tally: calls and tokens, of all providers.
        retry_after: seconds that a provider wants to be left alone.
        seconds: how long it took.
    """

    body: str | None = field(repr=False)
    failure: DraftFailure | None
    failure_text: str | None
    passes: bool
    is_outage: bool
    provider: str | None
    model: str | None
    tally: Tally
    retry_after: float | None
    seconds: float


async def write_draft(
    prompt: Prompt, offer: Offer, providers: Sequence[Asked], *, deadline_seconds: float, multiplier: float
) -> Written:
    """Writes one draft, or says why there is none. Never raises for what a provider does.

    Args:
        prompt: rules and data.
        offer: of the client; says which links are its own.
        providers: in order; those that refused their set-up in this run, or want a pause, are not asked.
        deadline_seconds: for all of it.
        multiplier: of token budgets.

    Raises:
        asyncio.CancelledError: the run was stopped.
    """
    began = time.monotonic()
    tally = Tally()
    draft = _Draft(prompt, offer, first_budget(prompt.channel, prompt.text, multiplier), deadline_seconds, tally)
    failed: list[tuple[Asked, Answer]] = []
    for number, asked in enumerate(providers):
        came = time.monotonic()
        async with asked.turn():
            began += time.monotonic() - came
            until = began + deadline_seconds
            if any(later.standing is None for later in providers[number + 1 :]):
                until = time.monotonic() + SHARE_OF_FIRST * (until - time.monotonic())
            answer = await draft.answer_of(asked, until)
        if answer.text is not None:
            return _written(asked, answer, tally, began)
        failed.append((asked, answer))
    return _failed(failed, tally, began)


@dataclass(frozen=True, slots=True)
class _Draft:
    """What stays the same whoever is asked."""

    prompt: Prompt
    offer: Offer
    budget: int
    deadline_seconds: float
    tally: Tally

    async def answer_of(self, asked: Asked, until: float) -> Answer:
        """What one provider says before `until`, on the monotonic clock: at most two calls."""
        standing = asked.standing
        if standing is not None:
            return standing
        answer = Answer(failure=DraftFailure.TIMEOUT)
        for call in range(CALLS_PER_PROVIDER):
            left = until - time.monotonic()
            if left < SHORTEST_CALL * self.deadline_seconds:
                break
            answer = await self._call(asked, left, again=call > 0)
            if answer.failure is not DraftFailure.CUT_OFF:
                break
        asked.learn(answer)
        return answer

    async def _call(self, asked: Asked, seconds: float, *, again: bool) -> Answer:
        self.tally.calls += 1
        budget = larger_budget(self.budget) if again else self.budget
        try:
            async with asyncio.timeout(seconds):
                answer = await asked.provider.ask(self.prompt, budget=budget, again=again)
        except TimeoutError:
            return Answer(failure=DraftFailure.TIMEOUT)
        self.tally.add(asked.provider.model, answer)
        return _checked(answer, self.prompt, self.offer)


def _checked(answer: Answer, prompt: Prompt, offer: Offer) -> Answer:
    if answer.text is None:
        return answer
    text = tidy(answer.text)
    failure = unusable(text, prompt.channel, offer)
    return Answer(text=text) if failure is None else Answer(failure=failure)


def _written(asked: Asked, answer: Answer, tally: Tally, began: float) -> Written:
    return Written(
        body=answer.text,
        failure=None,
        failure_text=None,
        passes=False,
        is_outage=False,
        provider=asked.provider.name,
        model=asked.provider.model,
        tally=tally,
        retry_after=None,
        seconds=time.monotonic() - began,
    )


def _failed(failed: Sequence[tuple[Asked, Answer]], tally: Tally, began: float) -> Written:
    """The reason is the last one that passes by itself, else the last one: it says whether waiting helps."""
    passing = [each for each in failed if each[1].failure and each[1].failure.passes]
    asked, answer = (passing or failed)[-1]
    waits = [answer.retry_after for _, answer in failed if answer.retry_after is not None]
    return Written(
        body=None,
        failure=answer.failure,
        failure_text="; ".join(asked.sentence(answer) for asked, answer in failed),
        passes=bool(passing),
        is_outage=any(answer.failure.is_outage for _, answer in passing if answer.failure),
        provider=asked.provider.name,
        model=asked.provider.model,
        tally=tally,
        # The one that is free first is enough.
        retry_after=min(waits) if waits and len(waits) == len(failed) else None,
        seconds=time.monotonic() - began,
    )
