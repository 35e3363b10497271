"""The asset checks of operation: each rule of `rules.py` as a check of the asset that it is about.

One op evaluates them all over all locations, apart from the assets' own runs, so that they also speak of work that does
not run any more. Their tables name locations by id.
"""

from collections.abc import Iterator

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.operations.judging import Judgement, judge
from ghl_pipeline.operations.report import MOST_LISTED
from ghl_pipeline.operations.rules import rules
from ghl_pipeline.operations.status_report import read_status

# After the page, which counts the leads anew as far as its time lasts.
SPECS = [
    dg.AssetCheckSpec(
        rule.name, asset=rule.asset, description=rule.description, additional_deps=[dg.AssetKey("operations_report")]
    )
    for rule in rules()
]


@dg.multi_asset_check(
    name="location_checks",
    specs=SPECS,
    description="Whether every location of every stream is well, each by itself.",
    can_subset=True,
)
def location_checks(
    context: dg.AssetCheckExecutionContext, engine: dg.ResourceParam[Engine]
) -> Iterator[dg.AssetCheckResult]:
    """Judges every location by the rules asked for, as the database stands now."""
    selected = context.selected_asset_check_keys
    asked = [rule for rule in rules() if dg.AssetCheckKey(dg.AssetKey(rule.asset), rule.name) in selected]
    for judgement in judge(asked, read_status(engine)):
        yield check_result(judgement)


def check_result(judgement: Judgement) -> dg.AssetCheckResult:
    """A judgement as Dagster shows it: the first and what to do as text, the worst as a table."""
    worst = [dg.TableRecord(dict(each.row)) for each in judgement.amiss[:MOST_LISTED]]
    return dg.AssetCheckResult(
        asset_key=judgement.rule.asset,
        check_name=judgement.rule.name,
        passed=judgement.passed,
        severity=dg.AssetCheckSeverity.ERROR if judgement.is_serious else dg.AssetCheckSeverity.WARN,
        description=judgement.description,
        metadata={
            "locations": judgement.looked_at,
            "locations_amiss": len(judgement.amiss),
            "locations_with_errors": sum(each.serious for each in judgement.amiss),
            **({"worst": dg.MetadataValue.table(worst)} if worst else {}),
        },
    )
