"""The operator's page as an asset: each materialization is a look at everything, so that Dagster plots it over time."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Engine

from ghl_pipeline.operations.looking import look_at
from ghl_pipeline.operations.report import operators_page
from ghl_pipeline.orchestration.history import report_metadata

# Of the 15 minutes between two pages. What this leaves uncounted is counted by the next ones, the oldest first: 100
# million leads within some hours, while nobody waits.
COUNTING_SECONDS = 60.0
# Leads that nobody worked on change little; work on a location has it counted anew at once.
COUNT_AGAIN_AFTER = timedelta(hours=6)


@dg.asset(
    name="operations_report",
    group_name="operations",
    owners=["team:revops"],
    kinds={"postgres"},
    description="The operator's page: leads repaired over time and what they still lack, requests against the limit, "
    "failures by reason, events that wait, and the locations that are worst off. Grain: one look at all locations; "
    "its charts and tables are in the metadata. Units: leads, locations, requests, events.",
)
def operations_report(engine: dg.ResourceParam[Engine]) -> dg.MaterializeResult[None]:
    """Counts what is due to be counted, and shows how everything stands."""
    look = look_at(engine, seconds=COUNTING_SECONDS, older_than=COUNT_AGAIN_AFTER)
    page = operators_page(look.locations, look.days, look.judgements, look.at)
    return dg.MaterializeResult(metadata=report_metadata(page))
