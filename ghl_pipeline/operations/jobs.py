"""Jobs of operation: what its schedules and people start."""

import dagster as dg

from ghl_pipeline.operations.assets import operations_report
from ghl_pipeline.operations.checks import SPECS
from ghl_pipeline.operations.housekeeping import Housekeeping

report_operations = dg.define_asset_job(
    "report_operations",
    selection=dg.AssetSelection.assets(operations_report.key) | dg.AssetSelection.checks(*(each.key for each in SPECS)),
    description="The operator's page, and the checks of every stream over all locations.",
    executor_def=dg.in_process_executor,
)


@dg.op(description="Drops, of each kind, the rows that are kept no longer. Units: rows, folders.")
def housekeeping(context: dg.OpExecutionContext, housekeeping: dg.ResourceParam[Housekeeping]) -> None:
    """Drops what nobody reads any more; one kind that fails stops no other, and fails the run at the end."""
    counts = housekeeping.run(told=lambda name, rows: context.log.info("%s: %d dropped", name, rows))
    context.add_output_metadata({name: dg.MetadataValue.int(rows) for name, rows in counts.items()})


@dg.job(
    name="keep_house",
    description="Drops old attempts, alerts, bodies of events and what runs printed; thins Dagster's history.",
    executor_def=dg.in_process_executor,
)
def keep_house() -> None:
    """One op."""
    housekeeping()
