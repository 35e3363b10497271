"""The two language model providers of the sandbox: their keys, what they are told to do, and what they were asked.

world.llm.openai.plan("500", "cut_off")     # the next two requests, in the order in which they arrive
world.llm.openai.always("hang")             # all others
world.llm.anthropic.when("needle", "401")   # those whose prompt holds the text, before anything else
"""

import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.llm_plans import Behaviour, read_behaviour
from ghl_pipeline.sandbox.people import seeded

ProviderName = Literal["openai", "anthropic"]
_KEPT: Final = 2000
_OK: Final = Behaviour("ok")
# Without a digit and without a link: whoever checks drafts for such finds none that nobody put in.
_OPENINGS: Final = ("Thanks for getting back to us.", "Good to hear from you.", "Thank you for your message.")
_MIDDLES: Final = (
    "We would be glad to help.",
    "That is something we do every week.",
    "A short call would answer most of it.",
    "Happy to go through the details with you.",
)
_CLOSINGS: Final = (
    "Which day suits you best?",
    "Would a quick call this week work?",
    "When is a good time to reach you?",
)


@dataclass(frozen=True)
class LlmRequest:
    """One request with a valid key. Its `repr` shows no prompt."""

    number: int
    """From 1, of this provider."""
    model: str
    prompt: str = field(repr=False)
    """All of its texts, instructions first, parted by line breaks."""
    max_tokens: int | None
    effort: str | None
    body: Mapping[str, object] = field(repr=False)
    behaviour: Behaviour = field(repr=False)
    arrived_at: float
    """Epoch seconds."""


class LlmProvider:
    """One provider. Its key opens nothing but the sandbox, and yet stays out of the `repr`."""

    def __init__(self, name: ProviderName, seed: int, clock: Callable[[], float]) -> None:
        self.name = name
        prefix = "sk-proj-" if name == "openai" else "sk-ant-api03-"
        self.key = prefix + f"{seeded('llm key', name, seed).getrandbits(160):040x}"
        self.thinking_tokens = 0
        """Spent on every answer before its first word, and counted against the request's limit."""
        self.requests: deque[LlmRequest] = deque(maxlen=_KEPT)
        """The last ones, oldest first."""
        self.calls = 0
        """Requests of any kind, those with a wrong key or a wrong body included."""
        self.highest_at_once = 0
        self.tokens_in = self.tokens_out = 0
        self.statuses: Counter[int] = Counter()
        self._clock = clock
        self._open = 0
        self._plan: deque[Behaviour] = deque()
        self._always = _OK
        self._when: dict[str, Behaviour] = {}

    def __repr__(self) -> str:
        return f"LlmProvider({self.name}, {self.calls} calls)"

    def plan(self, *behaviours: str) -> None:
        """What the next requests meet, one each, instead of what was planned before."""
        self._plan = deque(read_behaviour(each) for each in behaviours)

    def always(self, behaviour: str) -> None:
        """What requests meet for which nothing is planned."""
        self._always = read_behaviour(behaviour)

    def when(self, text: str, behaviour: str) -> None:
        """What a request meets whose prompt holds the text, whatever else is planned; the plan stays as it is."""
        self._when[text] = read_behaviour(behaviour)

    def be_well(self) -> None:
        """Forgets all that was planned."""
        self._plan.clear()
        self._when.clear()
        self._always = _OK
        self.thinking_tokens = 0

    def reset_counts(self) -> None:
        """Starts counting anew and forgets the requests."""
        self.requests.clear()
        self.statuses.clear()
        self.calls = self.tokens_in = self.tokens_out = 0
        self.highest_at_once = self._open

    def as_counts(self) -> dict[str, object]:
        """The counts as plain values for JSON: nothing that was asked."""
        behaviours = Counter(each.behaviour.word for each in self.requests)
        return {
            "calls": self.calls,
            "by_status": {str(status): count for status, count in sorted(self.statuses.items())},
            "by_behaviour": dict(sorted(behaviours.items())),
            "highest_at_once": self.highest_at_once,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
        }

    def arrives(self) -> None:
        """Counts a request whose answer begins."""
        self.calls += 1
        self._open += 1
        self.highest_at_once = max(self.highest_at_once, self._open)

    def leaves(self) -> None:
        """Counts the end of one that arrived."""
        self._open -= 1

    def accept(self, body: Mapping[str, object], *, max_tokens: int | None, effort: str | None) -> LlmRequest:
        """Takes a request with a valid key and body: from now on it is known what becomes of it."""
        prompt = "\n".join(_texts(body))
        behaviour = next((each for text, each in self._when.items() if text in prompt), None)
        if behaviour is None:
            behaviour = self._plan.popleft() if self._plan else self._always
        request = LlmRequest(
            self.calls, str(body.get("model")), prompt, max_tokens, effort, body, behaviour, self._clock()
        )
        self.requests.append(request)
        return request


class LlmProviders:
    """Both providers."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self.openai = LlmProvider("openai", seed, clock)
        self.anthropic = LlmProvider("anthropic", seed, clock)

    def __iter__(self) -> Iterator[LlmProvider]:
        return iter((self.openai, self.anthropic))

    def known(self, name: object) -> LlmProvider:
        """The provider of this name.

        Raises:
            InvalidInput: there is none.
        """
        for provider in self:
            if provider.name == name:
                return provider
        raise InvalidInput("The sandbox's language model providers are openai and anthropic.")


def draft_for(prompt: str) -> str:
    """The answer to a prompt: always the same to the same one, without a digit, a link or a word of the prompt."""
    digest = hashlib.sha256(prompt.encode(errors="replace")).digest()
    parts = zip((_OPENINGS, _MIDDLES, _CLOSINGS), digest, strict=False)
    return " ".join(sentences[number % len(sentences)] for sentences, number in parts)


def token_count(text: str) -> int:
    """Tokens of a text, as the sandbox counts them: one for four characters."""
    return math.ceil(len(text) / 4)


def _texts(value: object, key: str = "") -> Iterator[str]:
    """The texts of a body of either provider: instructions, then the messages in their order."""
    if isinstance(value, str):
        if key in {"text", "content", "input", "system", "instructions"}:
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, key)
    elif isinstance(value, Mapping):
        # Both providers read their instructions before the messages, wherever these stand in the body.
        for name in sorted(value, key=lambda each: each not in {"instructions", "system"}):
            if name not in {"tools", "metadata", "text"} or isinstance(value[name], str):
                yield from _texts(value[name], name)
