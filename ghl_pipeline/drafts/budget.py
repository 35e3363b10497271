"""How many tokens an answer may take. Pure.

A reasoning model spends its budget on thinking first, so a budget is several times what the text itself needs; the
factor is DRAFT_TOKEN_BUDGET_MULTIPLIER. A long conversation is thought about longer.
"""

from dataclasses import dataclass
from typing import Final

from ghl_pipeline.drafts.outcomes import Channel

# English has some four characters to a token; other scripts have more bytes to a character and more tokens, too.
BYTES_PER_TOKEN: Final = 4
LARGER: Final = 2


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """Of one channel, in tokens.

    Attributes:
        text: what a reply of this channel takes.
        per_prompt_token: what each token of the prompt adds.
        least: never fewer, whatever the multiplier.
        most: never more at the first try; `LARGER` times as many after a cut-off.
    """

    text: int
    per_prompt_token: float
    least: int
    most: int


RULES: Final = {
    Channel.SMS: BudgetRule(text=120, per_prompt_token=0.1, least=256, most=4_000),
    Channel.EMAIL: BudgetRule(text=400, per_prompt_token=0.2, least=512, most=12_000),
}


def first_budget(channel: Channel, prompt: str, multiplier: float) -> int:
    """Tokens of the first call: from the channel and the prompt's size, times the multiplier, within bounds."""
    rule = RULES[channel]
    prompt_tokens = len(prompt.encode()) / BYTES_PER_TOKEN
    wanted = (rule.text + rule.per_prompt_token * prompt_tokens) * multiplier
    return int(min(max(wanted, rule.least), rule.most))


def larger_budget(first: int) -> int:
    """Tokens of the call after one that was cut off."""
    return LARGER * first
