"""What an answer costs, where the model's price is set: DRAFT_PRICES. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from ghl_pipeline.errors import ConfigurationError

_MILLION = Decimal(1_000_000)
_MOST = Decimal(10_000)  # dearer than that is a price for a token


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens that go in, and that come out."""

    tokens_in: Decimal
    tokens_out: Decimal

    def of(self, tokens_in: int, tokens_out: int) -> Decimal:
        """US dollars of an answer, to a millionth."""
        cost = (self.tokens_in * tokens_in + self.tokens_out * tokens_out) / _MILLION
        return cost.quantize(Decimal("0.000001"))


class _Entry(msgspec.Struct, rename={"tokens_in": "in", "tokens_out": "out"}, forbid_unknown_fields=True):
    tokens_in: Decimal
    tokens_out: Decimal


def read_prices(setting: str | None) -> Mapping[str, Price]:
    """Prices by model from JSON such as `{"a-model": {"in": 0.25, "out": 2}}`.

    Raises:
        ConfigurationError: it is something else.
    """
    if setting is None:
        return {}
    try:
        entries = msgspec.json.decode(setting, type=dict[str, _Entry])
    except msgspec.MsgspecError:
        entries = None
    if entries is None or not all(0 <= each.tokens_in <= _MOST >= each.tokens_out >= 0 for each in entries.values()):
        raise ConfigurationError(
            "DRAFT_PRICES cannot be used: it has to be JSON with US dollars for a million tokens by model, such as "
            '{"a-model": {"in": 0.25, "out": 2}}.'
        )
    return {model: Price(entry.tokens_in, entry.tokens_out) for model, entry in entries.items()}
