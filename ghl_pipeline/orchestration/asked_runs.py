"""What Dagster's runs and backfills were asked for: by location, and how those ended that cannot tell any more.

A run tells of each location itself while it lives. One that was killed, could not be launched or was stopped leaves
locations whose turn never came, and only Dagster's own records name them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import dagster as dg
from dagster import DagsterInstance, RunRecord
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

from ghl_pipeline.orchestration.history import BACKFILL_TAG, RETRY_NUMBER_TAG, ROOT_RUN_TAG
from ghl_pipeline.orchestration.partition_sync import IN_PROGRESS, partitions_of
from ghl_pipeline.partitions import LOCATION

# Dagster's own, on a run that failed: whether it starts it again, and then as which run.
WILL_RETRY_TAG: Final = "dagster/will_retry"
RETRIED_AS_TAG: Final = "dagster/auto_retry_run_id"
# The daemon starts such a run some seconds after the crash. When it did not for this long, nobody will.
RETRY_WITHIN: Final = timedelta(minutes=10)
# A run carries the time that its own host gave its end, and is stored a moment later: it may come to light after one
# that ended later. So each look goes back as far as clocks and writes may differ.
CLOCKS_DIFFER: Final = timedelta(minutes=1)
# A tick has a minute; what is left is looked at in the next.
RUNS_AT_ONCE: Final = 200
BACKFILLS_OF: Final = timedelta(days=7)
# Options of a run that tries something out; see `attempts.TRIAL`.
TRIAL_OPTIONS: Final = ("dry_run", "max_leads")


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work as Dagster knows it: its job, and the assets that a run of the UI selects instead."""

    job: str
    assets: frozenset[str]


@dataclass(frozen=True, slots=True)
class AskedFor:
    """What a run or backfill that has ended was asked for.

    Attributes:
        run_id: of the run; None of a backfill, for the locations for which it never launched one.
        name: of run or backfill, as a person looks for it.
        capabilities: the kinds of work.
        locations: their ids.
        stopped: whether a person ended it.
        since: when it was first asked for: the backfill, or the run that this one repeats. What succeeded after that is
            done.
    """

    run_id: str | None
    name: str
    capabilities: frozenset[str]
    locations: frozenset[str]
    stopped: bool
    since: datetime


def at_work(instance: DagsterInstance, works: Mapping[str, Work]) -> dict[str, dict[str, set[str]]]:
    """By capability: the queued and running runs, and open backfills, each with the locations it was given.

    Of a backfill only those for which no run exists yet; its runs are there themselves.
    """
    found: dict[str, dict[str, set[str]]] = {capability: {} for capability in works}
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=IN_PROGRESS))
    present = list(instance.get_dynamic_partitions(LOCATION)) if runs else []
    for run in runs:
        for capability in _capabilities(run, works):
            found[capability][run.run_id] = set(partitions_of(run, present))
    open_ones = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
    for backfill in instance.get_backfills(filters=open_ones):
        for capability, locations in _unlaunched(backfill, works).items():
            found[capability][backfill.backfill_id] = locations
    return found


def ended_runs(
    instance: DagsterInstance, works: Mapping[str, Work], after: datetime
) -> tuple[list[AskedFor], datetime]:
    """Runs that were stopped or failed since, oldest first, but trials and those that Dagster itself starts again.

    Returns:
        The runs, and until when was looked: the next look begins there.
    """
    records = instance.get_run_records(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED], updated_after=after
        ),
        order_by="update_timestamp",
        ascending=True,
        limit=RUNS_AT_ONCE,
    )
    waits = [record for record in records if _may_be_retried(record)]
    if len(records) == RUNS_AT_ONCE:
        until = records[-1].update_timestamp  # there may be more, and going back would find these again
    else:
        until = max(after, datetime.now(UTC) - CLOCKS_DIFFER)
    if waits:
        # Whether it really is started again shows later.
        until = min(until, *(record.update_timestamp - timedelta(microseconds=1) for record in waits))
    return _all_asked_for(instance, records, works), until


def runs_by_id(instance: DagsterInstance, works: Mapping[str, Work], run_ids: Collection[str]) -> list[AskedFor]:
    """Those of the runs that have ended badly, as `ended_runs` gives them."""
    if not run_ids:
        return []
    records = instance.get_run_records(
        filters=dg.RunsFilter(
            run_ids=sorted(run_ids), statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
        )
    )
    return _all_asked_for(instance, records, works)


def unknown_runs(instance: DagsterInstance, run_ids: Collection[str]) -> set[str]:
    """Those of the runs that Dagster does not know (any more): deleted in the UI."""
    if not run_ids:
        return set()
    known = instance.get_run_records(filters=dg.RunsFilter(run_ids=sorted(run_ids)))
    return set(run_ids) - {record.dagster_run.run_id for record in known}


def ended_backfills(
    instance: DagsterInstance, works: Mapping[str, Work], *, but: Collection[str]
) -> tuple[list[AskedFor], list[str]]:
    """Backfills of the last days that were canceled or failed, with the locations for which they launched no run.

    Args:
        instance: Dagster's.
        works: the kinds of work.
        but: ids of those that were looked at.

    Returns:
        What they were asked for, and the ids of all that were looked at now or before and may come again.
    """
    created_after = datetime.now(UTC) - BACKFILLS_OF
    ended = BulkActionsFilter(
        statuses=[BulkActionStatus.CANCELED, BulkActionStatus.FAILED], created_after=created_after
    )
    backfills = instance.get_backfills(filters=ended, limit=RUNS_AT_ONCE)
    found = [
        AskedFor(
            None,
            f"backfill {backfill.backfill_id}",
            frozenset([capability]),
            frozenset(locations),
            backfill.status is BulkActionStatus.CANCELED,
            datetime.fromtimestamp(backfill.backfill_timestamp, UTC),
        )
        for backfill in backfills
        if backfill.backfill_id not in but
        for capability, locations in _unlaunched(backfill, works).items()
    ]
    return found, [backfill.backfill_id for backfill in backfills]


def _capabilities(run: dg.DagsterRun, works: Mapping[str, Work]) -> set[str]:
    selected = {key.to_user_string() for key in run.asset_selection or ()}
    return {name for name, work in works.items() if run.job_name == work.job or selected & work.assets}


def _unlaunched(backfill: PartitionBackfill, works: Mapping[str, Work]) -> dict[str, set[str]]:
    data = backfill.asset_backfill_data
    if data is None or _is_trial(backfill.run_config or {}):
        return {}
    found: dict[str, set[str]] = {}
    for key, targeted in data.target_subset.partitions_subsets_by_asset_key.items():
        requested = data.requested_subset.partitions_subsets_by_asset_key.get(key)
        locations = set(targeted.get_partition_keys()) - set(requested.get_partition_keys() if requested else ())
        for name, work in works.items():
            if key.to_user_string() in work.assets and locations:
                found.setdefault(name, set()).update(locations)
    return found


def _all_asked_for(
    instance: DagsterInstance, records: Sequence[RunRecord], works: Mapping[str, Work]
) -> list[AskedFor]:
    # All runs of a backfill that was canceled end at once, and reading it anew for each takes the tick's minute.
    backfill_began = cache(lambda backfill_id: _backfill_began(instance, backfill_id))
    present = list(instance.get_dynamic_partitions(LOCATION)) if records else []
    found = []
    for record in records:
        run = record.dagster_run
        capabilities = _capabilities(run, works)
        if not capabilities or _is_trial(run.run_config) or _is_retried(record):
            continue
        backfill_id = run.tags.get(BACKFILL_TAG)
        found.append(
            AskedFor(
                run.run_id,
                f"run {run.run_id[:8]}",
                frozenset(capabilities),
                frozenset(partitions_of(run, present)),
                run.status is dg.DagsterRunStatus.CANCELED,
                (backfill_began(backfill_id) if backfill_id else None) or _asked_since(instance, record),
            )
        )
    return found


def _is_trial(run_config: Mapping[str, object]) -> bool:
    ops = run_config.get("ops")
    configs: Iterable[object] = ops.values() if isinstance(ops, dict) else ()
    given: list[Mapping[str, object]] = [
        op["config"] for op in configs if isinstance(op, dict) and isinstance(op.get("config"), dict)
    ]
    return any(config.get(name) for config in given for name in TRIAL_OPTIONS)


def _is_retried(record: RunRecord) -> bool:
    """Whether Dagster starts the run again, which goes on with the locations that are not done."""
    tags = record.dagster_run.tags
    return RETRIED_AS_TAG in tags or _may_be_retried(record)


def _may_be_retried(record: RunRecord) -> bool:
    tags = record.dagster_run.tags
    promised = tags.get(WILL_RETRY_TAG) == "true" and RETRIED_AS_TAG not in tags
    # Nobody has said yet: the tag is written a moment after the status.
    unsaid = WILL_RETRY_TAG not in tags and record.dagster_run.status is dg.DagsterRunStatus.FAILURE
    age = datetime.now(UTC) - _aware(record.update_timestamp)
    return (promised and age < RETRY_WITHIN) or (unsaid and age < timedelta(seconds=2))


def _backfill_began(instance: DagsterInstance, backfill_id: str) -> datetime | None:
    backfill = instance.get_backfill(backfill_id)
    return datetime.fromtimestamp(backfill.backfill_timestamp, UTC) if backfill else None


def _asked_since(instance: DagsterInstance, record: RunRecord) -> datetime:
    tags = record.dagster_run.tags
    if RETRY_NUMBER_TAG in tags and (root := tags.get(ROOT_RUN_TAG)):
        roots: Sequence[RunRecord] = instance.get_run_records(filters=dg.RunsFilter(run_ids=[root]), limit=1)
        if roots:
            return _aware(roots[0].create_timestamp)
    return _aware(record.create_timestamp)


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
