"""What the sandbox's language models do with a request, in a word: `ok`, `hang`, `429:2`, `cut_off_unless:400`."""

from dataclasses import dataclass
from typing import Final

from ghl_pipeline.errors import InvalidInput

PLAIN: Final = frozenset(
    {
        "ok",  # a whole answer, or a cut-off one when the request's token limit is too low for it
        "cut_off",  # half of the answer, stopped at the token limit
        "cut_off_thinking",  # the same, with all tokens spent before the first word
        "filtered",  # half of the answer, stopped by a content filter; Anthropic calls that a refusal
        "refusal",
        "reasoning_only",  # complete, and there is no text in it
        "empty",  # complete, and the text has no letter
        "failed",  # OpenAI: 200 with the status `failed`; Anthropic, which has no such thing: 500
        "garbage",  # 200, said to be JSON, and is none
        "disconnect",  # the connection ends in the middle of the answer
    }
)
_LONGEST: Final = 600.0
_WITH_NUMBER: Final[dict[str, float | None]] = {
    "slow": None,  # a whole answer, so many seconds late
    "drip": None,  # a whole answer whose body takes so many seconds, a byte now and then: no read ever times out
    "hang": _LONGEST,  # nothing for so many seconds, or until the client gives up
    "cut_off_unless": None,  # cut off while the request allows fewer tokens than that
    "429": 1.0,  # Retry-After in seconds
    "html": 200.0,  # a page of something that is in between, with this status
}
"""Words that take a number after a colon, and what it is when it is not given; None: it must be."""
STATUSES: Final = frozenset({"400", "401", "403", "404", "408", "500", "502", "503", "529"})


@dataclass(frozen=True)
class Behaviour:
    """What becomes of one request. `number` is 0 and `text` empty for words that have none."""

    word: str
    number: float = 0.0
    text: str = ""


def read_behaviour(text: str) -> Behaviour:
    """The behaviour that a text names; `says:` is followed by what the whole answer is to be.

    Raises:
        InvalidInput: it names none.
    """
    word, colon, value = text.partition(":")
    if word == "says" and value:
        return Behaviour(word, text=value)
    if not colon and (word in PLAIN or word in STATUSES):
        return Behaviour(word)
    if word in _WITH_NUMBER:
        usual = _WITH_NUMBER[word]
        try:
            number = usual if not colon and usual is not None else float(value)
        except ValueError:
            number = -1.0
        if 0 <= number <= (_LONGEST if word != "cut_off_unless" else 1e9):
            return Behaviour(word, number)
    known = sorted(PLAIN | STATUSES) + [f"{each}:<number>" for each in _WITH_NUMBER] + ["says:<text>"]
    raise InvalidInput(f"The sandbox's language models know no such behaviour. They know: {', '.join(known)}.")
