"""Runs started from outside Dagster, for the command line: the instance, a run in this process, its reports."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef

from ghl_pipeline.database.connection import database_urls
from ghl_pipeline.errors import Interrupted
from ghl_pipeline.orchestration.partition_sync import IN_PROGRESS, PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from ghl_pipeline.orchestration.processes import COMMAND_LINE, PROCESS_TAG, STARTED_BY_TAG, is_gone, this_process
from ghl_pipeline.partitions import LOCATION
from ghl_pipeline.settings import Settings, project_root

LOCATION_REPORT = "location_report"
# The daemon cannot start a command line's run again; its person can.
MAX_RETRIES_TAG = "dagster/max_retries"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended, and the `location_report` of each location it wrote, as the history has it."""

    run_id: str
    succeeded: bool
    reports: Mapping[str, Mapping[str, object]]


@contextmanager
def open_instance(settings: Settings) -> Iterator[DagsterInstance]:
    """The instance that `dagster.yaml` describes, whatever the working folder.

    Raises:
        ConfigurationError, DatabaseUnavailable: from the storage, with what to do.
    """
    urls = database_urls(settings)
    ref = InstanceRef.from_dir(
        str(settings.home),
        config_dir=str(project_root()),
        overrides={
            "compute_logs": {
                "module": "dagster._core.storage.local_compute_log_manager",
                "class": "LocalComputeLogManager",
                "config": {"base_dir": str(settings.home / "compute_logs")},
            }
        },
    )
    # Dagster builds the storage from its configuration alone, which leaves only the environment to tell it where. Both
    # addresses are given whole: what another setting, or `.env`, says of them must not matter.
    where = {
        "GHL_PIPELINE_DATABASE_URL": urls.app.render_as_string(hide_password=False),
        "GHL_PIPELINE_DAGSTER_DATABASE_URL": urls.dagster.render_as_string(hide_password=False),
    }
    with _environment(where):
        opened = DagsterInstance.from_ref(ref)
    with opened as instance:
        yield instance


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a while, in place of those that differ in case only: settings take either."""
    before = {name: value for name, value in os.environ.items() if name.upper() in variables}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def run_locations(
    definitions: dg.Definitions,
    *,
    job: str,
    op: str,
    instance: DagsterInstance,
    locations: Sequence[str],
    config: Mapping[str, object],
) -> RunSummary:
    """Runs a job for locations in this process, as one run on the given instance.

    Neighbouring partitions are run as partitions, so that failed ones show red; scattered ones by the op's `locations`
    config, whose events land on the same partitions.

    Raises:
        Interrupted: Ctrl-C; the run is marked as canceled and its resume points are in the history.
    """
    _close_killed_runs(instance)
    tags, chosen = _as_partitions(instance, locations)
    tags |= {STARTED_BY_TAG: COMMAND_LINE, PROCESS_TAG: this_process(), MAX_RETRIES_TAG: "0"}
    run_config = {
        "ops": {op: {"config": {**config, **chosen}}},
        # A failed run is told by its locations' texts; Dagster would print the whole event as well.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    result = definitions.resolve_job_def(job).execute_in_process(
        run_config=run_config, instance=instance, tags=tags, raise_on_error=False
    )
    run = instance.get_run_by_id(result.run_id)
    if run and run.status is dg.DagsterRunStatus.CANCELED:
        raise Interrupted("Stopped. What was done is kept; run the same command again to go on from there.")
    return RunSummary(result.run_id, result.success, _reports(instance, result.run_id))


def _close_killed_runs(instance: DagsterInstance) -> None:
    """Ends runs of command lines that were killed: nobody else would, and they would count as running for ever."""
    own = dg.RunsFilter(statuses=IN_PROGRESS, tags={STARTED_BY_TAG: COMMAND_LINE})
    for run in instance.get_runs(filters=own):
        if is_gone(run.tags.get(PROCESS_TAG, "")):
            instance.report_run_failed(run, "The process of this run was killed; the next goes on from there.")


def _as_partitions(instance: DagsterInstance, locations: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    present = list(instance.get_dynamic_partitions(LOCATION))
    places = sorted(present.index(location) for location in locations)
    if len(locations) == 1:
        return {PARTITION_TAG: locations[0]}, {}
    if places and places == list(range(places[0], places[-1] + 1)):
        return {RANGE_START_TAG: present[places[0]], RANGE_END_TAG: present[places[-1]]}, {}
    return {}, {"locations": list(locations)}


def _reports(instance: DagsterInstance, run_id: str) -> dict[str, Mapping[str, object]]:
    """Each location's last report. From the history: the result of a failed run lacks what its op had logged."""
    reports: dict[str, Mapping[str, object]] = {}
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION}
    for entry in instance.all_logs(run_id, of_type=kinds):
        told = entry.asset_materialization or entry.asset_observation
        if told is None:
            continue
        value = told.metadata.get(LOCATION_REPORT)
        if told.partition and isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, dict):
            reports[told.partition] = value.data
    return reports
