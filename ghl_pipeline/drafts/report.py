"""What a run says of a location's drafts: how many, why not, what they cost. Counts only."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal

from ghl_pipeline.drafts.draft import Tally, Written
from ghl_pipeline.drafts.outcomes import SkipReason
from ghl_pipeline.drafts.prices import Price
from ghl_pipeline.drafts.wanting import ALL_REFUSED, SETUP_REFUSED
from ghl_pipeline.orchestration.reports import Report, bar_chart


@dataclass(slots=True)
class DraftCounts:
    """Counted while a location is worked on. `setup_refused`: a draft failed because of key, model or address."""

    drafted: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    by_model: dict[str, tuple[int, int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    calls: int = 0
    setup_refused: bool = False

    def skip(self, reason: SkipReason) -> None:
        """Counts a message that gets no draft."""
        self.skipped[reason.value] += 1

    def spent(self, tally: Tally) -> None:
        """Counts calls and tokens of a draft that was written, whether or not it could be stored."""
        self.calls += tally.calls
        for model, (tokens_in, tokens_out) in tally.by_model.items():
            before = self.by_model.get(model, (0, 0))
            self.by_model[model] = (before[0] + tokens_in, before[1] + tokens_out)

    def ended(self, channel: str, written: Written) -> None:
        """Counts a draft that was stored, or why there is none."""
        if written.failure is None:
            self.drafted[channel] += 1
            self.seconds.append(written.seconds)
            return
        self.failed[written.failure.value] += 1
        self.setup_refused |= written.failure.concerns_setup


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftsReport:
    """One run at one location.

    Attributes:
        location: its id.
        drafted: drafts by channel.
        failed: messages without one, by reason (`DraftFailure`).
        skipped: messages that want none, by reason (`SkipReason`).
        calls: requests to providers.
        tokens_in, tokens_out: as they counted them.
        cost_usd: US dollars by model, of models whose price is set.
        unpriced: models that took part and have no price; with any, the sum of `cost_usd` is less than was spent.
        p50_seconds, p95_seconds: of the drafts that there are now; 0 without any.
        seconds: how long the location took.
        setup_refused: the set-up with which drafts failed because of it, this time or before; in the record only.
        all_refused: the set-up, when every provider refused it in this run; in the record only.
    """

    location: str
    drafted: Mapping[str, int]
    failed: Mapping[str, int]
    skipped: Mapping[str, int]
    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: Mapping[str, float]
    p50_seconds: float
    p95_seconds: float
    seconds: float
    unpriced: Sequence[str] = ()
    setup_refused: str | None = None
    all_refused: str | None = None

    @property
    def did_something(self) -> bool:
        """Whether a draft was written, or failed to be."""
        return bool(self.drafted or self.failed)

    def as_dict(self) -> dict[str, object]:
        """As JSON-ready values."""
        values = asdict(self)
        del values[SETUP_REFUSED], values[ALL_REFUSED]
        values["unpriced"] = list(self.unpriced)
        return values

    def as_record(self) -> dict[str, object]:
        """As `location_attempts` keeps it: what the next look for messages reads of it included."""
        return {**self.as_dict(), SETUP_REFUSED: self.setup_refused, ALL_REFUSED: self.all_refused}

    def as_report(self) -> Report:
        """For the materialization of `reply_drafts`."""
        outcomes = {
            **{f"drafted: {channel}": count for channel, count in self.drafted.items()},
            **{f"failed: {reason}": count for reason, count in self.failed.items()},
            **{f"skipped: {reason}": count for reason, count in self.skipped.items()},
        }
        return Report(
            values={
                "drafted": sum(self.drafted.values()),
                "failed": sum(self.failed.values()),
                "skipped": sum(self.skipped.values()),
                "calls": self.calls,
                "tokens_in": self.tokens_in,
                "tokens_out": self.tokens_out,
                "cost_usd": round(sum(self.cost_usd.values()), 6),
                # Without any price there is no sum that could be believed.
                **({"cost_is_incomplete": True} if self.unpriced and self.cost_usd else {}),
                "p50_seconds": self.p50_seconds,
                "p95_seconds": self.p95_seconds,
                "seconds": self.seconds,
            },
            tables={
                "by_outcome": [{"outcome": name, "messages": count} for name, count in outcomes.items()],
                "cost_by_model": [{"model": model, "usd": cost} for model, cost in self.cost_usd.items()],
            },
            data={"location_report": self.as_dict()},
            charts={"outcomes": bar_chart(outcomes, unit="messages")},
        )


def busy_report(location_id: str) -> Report:
    """Of a partition that another run is at work on: nothing was done by this one, and why."""
    nothing = report_of(location_id, DraftCounts(), {}, seconds=0.0, setup_refused=None).as_report()
    return replace(nothing, values={**nothing.values, "left_alone": "another run is at work there"})


def report_of(
    location_id: str,
    counts: DraftCounts,
    prices: Mapping[str, Price],
    *,
    seconds: float,
    setup_refused: str | None,
    all_refused: str | None = None,
) -> DraftsReport:
    """The report from the counts of a location."""
    return DraftsReport(
        location=location_id,
        drafted=dict(sorted(counts.drafted.items())),
        failed=dict(sorted(counts.failed.items())),
        skipped=dict(sorted(counts.skipped.items())),
        calls=counts.calls,
        tokens_in=sum(tokens for tokens, _ in counts.by_model.values()),
        tokens_out=sum(tokens for _, tokens in counts.by_model.values()),
        cost_usd={
            model: float(prices[model].of(*tokens))
            for model, tokens in sorted(counts.by_model.items())
            if model in prices
        },
        p50_seconds=percentile(counts.seconds, 0.5),
        p95_seconds=percentile(counts.seconds, 0.95),
        seconds=round(seconds, 3),
        unpriced=sorted(model for model, tokens in counts.by_model.items() if any(tokens) and model not in prices),
        setup_refused=setup_refused,
        all_refused=all_refused,
    )


def percentile(seconds: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 without any."""
    ranked = sorted(seconds)
    return round(ranked[math.ceil(share * len(ranked)) - 1], 3) if ranked else 0.0


def cost_of(tally: Tally, prices: Mapping[str, Price]) -> Decimal | None:
    """US dollars of one draft; None when a model that took part has no price: too low a sum would be believed."""
    used = {model: tokens for model, tokens in tally.by_model.items() if any(tokens)}
    if not prices or any(model not in prices for model in used):
        return None
    return sum((prices[model].of(*tokens) for model, tokens in used.items()), Decimal(0))
