"""The asset check of drafts: how many failed lately. Evaluated by the op after each run, over all locations.

So it also speaks after a run of one location, and does not hide what is wrong at another. It names locations by id.
"""

from collections.abc import Iterator, Sequence

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.drafts.shares import RECENT_DAYS, FailedShare, failed_shares

MANY_FAILED, MOST_FAILED = 0.1, 0.5
# Shares of fewer are chance.
FEWEST = 5
MOST_LISTED = 50

DRAFTS_FAILED = dg.AssetCheckSpec(
    "drafts_failed",
    asset="reply_drafts",
    description=f"Messages of the last {RECENT_DAYS} days whose draft failed, of those that were tried, by location: a "
    f"warning from {MANY_FAILED:.0%} (of {FEWEST} and more), an error from {MOST_FAILED:.0%}, and where a key or model "
    "was refused.",
)
CHECKS = (DRAFTS_FAILED,)


def evaluate(engine: Engine) -> Iterator[dg.AssetCheckResult]:
    """The result of the check, as the database stands now."""
    with engine.connect() as connection:
        yield judged(failed_shares(connection))


def judged(shares: Sequence[FailedShare]) -> dg.AssetCheckResult:
    """The result over the shares of all locations: passed when none is amiss."""
    amiss = sorted((each for each in shares if _is_amiss(each)), key=lambda each: (each.for_setup, each.share))[::-1]
    is_error = any(each.for_setup or each.share >= MOST_FAILED for each in amiss)
    return dg.AssetCheckResult(
        asset_key=DRAFTS_FAILED.asset_key,
        check_name=DRAFTS_FAILED.name,
        passed=not amiss,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=_description(amiss) if amiss else f"{len(shares)} locations are well.",
        metadata={
            "locations": len(shares),
            "locations_amiss": len(amiss),
            "drafts": sum(each.drafts for each in shares),
            "failed": sum(each.failed for each in shares),
            **({"worst": dg.MetadataValue.table(_records(amiss[:MOST_LISTED]))} if amiss else {}),
        },
    )


def _is_amiss(each: FailedShare) -> bool:
    return each.for_setup > 0 or (each.drafts >= FEWEST and each.share >= MANY_FAILED)


def _description(amiss: Sequence[FailedShare]) -> str:
    worst = amiss[0]
    advice = (
        "A provider refused its key or does not know the model: correct OPENAI_API_KEY, OPENAI_MODEL, "
        "ANTHROPIC_API_KEY or ANTHROPIC_MODEL; what failed is then done by itself."
        if worst.for_setup
        else "What an outage caused is tried again by itself. See: ghl-pipeline drafts list --state failed"
    )
    return (
        f"{len(amiss)} locations are amiss, first {worst.location_id}: {worst.failed:,} of {worst.drafts:,} drafts "
        f"failed, most with {worst.main_reason}. {advice}"
    )


def _records(shares: Sequence[FailedShare]) -> list[dg.TableRecord]:
    return [
        dg.TableRecord(
            {
                "location": each.location_id,
                "share": round(each.share, 4),
                "failed": each.failed,
                "of": each.drafts,
                "for_setup": each.for_setup,
                "main_reason": each.main_reason,
            }
        )
        for each in shares
    ]
