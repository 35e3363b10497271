"""Adds and removes `location` partitions.

Removing waits until nothing works on them: Dagster fails a run whose partition is deleted under it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from ghl_pipeline.partitions import LOCATION

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


@dataclass(frozen=True, slots=True)
class PartitionChange:
    """Location ids whose partitions were added, removed, or kept although their client is inactive."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept_busy: tuple[str, ...]


def sync_partitions(instance: dg.DagsterInstance, active: Sequence[str]) -> PartitionChange:
    """Makes the partitions those of the active locations.

    All new ones are added in one call: through a sensor's requests each key would cost 23 ms of everybody's tick.
    """
    present = instance.get_dynamic_partitions(LOCATION)
    wanted = set(active)
    known = set(present)
    added = [key for key in active if key not in known]
    if added:
        instance.add_dynamic_partitions(LOCATION, added)
    surplus = [key for key in present if key not in wanted]
    busy = busy_partitions(instance, present) if surplus else set[str]()
    removed = [key for key in surplus if key not in busy]
    for key in removed:
        instance.delete_dynamic_partition(LOCATION, key)
    return PartitionChange(tuple(added), tuple(removed), tuple(key for key in surplus if key in busy))


def busy_partitions(instance: dg.DagsterInstance, present: Sequence[str]) -> set[str]:
    """Partitions that a queued or running run works on, or all of them while a backfill is under way."""
    open_backfills = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING])
    if instance.get_backfills(filters=open_backfills, limit=1):
        return set(present)
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=IN_PROGRESS))
    return {key for run in runs for key in partitions_of(run, present)}


def locations_of_runs(instance: dg.DagsterInstance, job: str) -> dict[str, set[str]]:
    """The queued and running runs of a job by id, each with the locations that it was given."""
    runs = instance.get_runs(filters=dg.RunsFilter(job_name=job, statuses=IN_PROGRESS))
    present = list(instance.get_dynamic_partitions(LOCATION)) if runs else []
    return {run.run_id: set(partitions_of(run, present)) for run in runs}


def partitions_of(run: dg.DagsterRun, present: Sequence[str]) -> Iterable[str]:
    """The locations that a run was given: as its partition, as a range of `present` ones, or in its config."""
    if key := run.tags.get(PARTITION_TAG):
        yield key
    first, last = run.tags.get(RANGE_START_TAG), run.tags.get(RANGE_END_TAG)
    if first in present and last in present:
        yield from present[present.index(first) : present.index(last) + 1]
    yield from _configured_locations(run)


def _configured_locations(run: dg.DagsterRun) -> Collection[str]:
    """The `locations` that a run was given in its config, whatever the op."""
    found: list[str] = []
    ops = run.run_config.get("ops")
    for op in ops.values() if isinstance(ops, dict) else ():
        config = op.get("config") if isinstance(op, dict) else None
        locations = config.get("locations") if isinstance(config, dict) else None
        if isinstance(locations, list):
            found.extend(str(location) for location in locations)
    return found
