"""The materialization history as the log that work is resumed from: `reports.History` on Dagster's event log.

A materialization means that a step is done for a location and turns its partition green. Progress is an observation:
it is in the log, but the partition does not count as materialized by it.
"""

from collections.abc import Mapping

import dagster as dg
from dagster import AssetExecutionContext, AssetRecordsFilter

from ghl_pipeline.orchestration.reports import Report

BACKFILL_TAG = "dagster/backfill"
ROOT_RUN_TAG = "dagster/root_run_id"
RETRY_NUMBER_TAG = "dagster/retry_number"


class AssetHistory:
    """The history of asset partitions as one run sees and continues it.

    Events are written at once, not at the end of the run, so that progress is visible and survives a kill. Safe to use
    from threads: Dagster's event storage is.
    """

    def __init__(self, context: AssetExecutionContext) -> None:
        self._context = context
        tags = context.run.tags
        # An automatic retry goes on with the run it repeats. A person who re-executes a run wants it done again.
        retried = tags.get(ROOT_RUN_TAG) if RETRY_NUMBER_TAG in tags else None
        self.attempt: str = tags.get(BACKFILL_TAG) or retried or context.run.run_id
        self.run_id: str | None = context.run.run_id

    def last_done(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """The values of the partition's last materialization."""
        records = self._context.instance.fetch_materializations(_filter(asset, location_id), limit=1).records
        event = records[0].asset_materialization if records else None
        return _plain(event.metadata) if event else None

    def last_progress(self, asset: str, location_id: str) -> Mapping[str, object] | None:
        """The values of the partition's last observation."""
        records = self._context.instance.fetch_observations(_filter(asset, location_id), limit=1).records
        event = records[0].event_log_entry.asset_observation if records else None
        return _plain(event.metadata) if event else None

    def done(self, asset: str, location_id: str, report: Report) -> None:
        """Writes a materialization of the partition."""
        self._context.log_event(dg.AssetMaterialization(asset, partition=location_id, metadata=self._metadata(report)))

    def progress(self, asset: str, location_id: str, report: Report) -> None:
        """Writes an observation of the partition."""
        self._context.log_event(dg.AssetObservation(asset, partition=location_id, metadata=self._metadata(report)))

    def _metadata(self, report: Report) -> dict[str, dg.MetadataValue]:
        return report_metadata(report) | {"attempt": dg.MetadataValue.text(self.attempt)}


def report_metadata(report: Report) -> dict[str, dg.MetadataValue]:
    """A report as Dagster shows it. Charts first: what is looked at before it is read."""
    metadata: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.md(md) for name, md in report.charts.items()}
    metadata |= {name: _value(value) for name, value in report.values.items()}
    for name, rows in report.tables.items():
        if rows:
            metadata[name] = dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
    metadata |= {name: dg.MetadataValue.json(dict(data)) for name, data in report.data.items()}
    return metadata


def _filter(asset: str, location_id: str) -> AssetRecordsFilter:
    return AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[location_id])


def _value(value: float | str | bool) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    return dg.MetadataValue.text(value)


def _plain(metadata: Mapping[str, dg.MetadataValue]) -> Mapping[str, object]:
    return {name: value.value for name, value in metadata.items()}
