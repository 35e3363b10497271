"""The same partition wanted twice at the same moment, by Dagster and by the command line: one works on it.

Dagster's run is executed by Dagster's own command, in a process of its own and on the same instance, as one that was
started in the UI.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from sqlalchemy import Engine, text

from ghl_pipeline.hydration.options import Step
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.partitions import location_partitions
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.settings import Settings, project_root
from ghl_pipeline_tests.cli.conftest import PROGRAM
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import Agency, Place

WAIT_SECONDS = 90
PAGE = 20
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Wanted:
    """A location that two processes want, and what is told of it."""

    agency: Agency
    place: Place
    instance: DagsterInstance

    def command_line(self) -> list[str]:
        return [str(PROGRAM), "backfill", "--location", self.place.id, "--json"]

    def dagster(self) -> list[str]:
        steps = ",".join(Step)
        config = '{"ops": {"lead_hydration": {"config": {"busy_wait_seconds": 0.0}}}}'
        chosen = ["--select", steps, "--partition", self.place.id, "-m", "ghl_pipeline.definitions"]
        chosen += ["--config-json", config]
        return [str(Path(sys.executable).with_name("dagster")), "asset", "materialize", *chosen]

    def holder(self) -> str | None:
        """Who works on the location, as the lease says."""
        with self.agency.engine.connect() as connection:
            return connection.execute(text("SELECT holder FROM location_leases")).scalar_one_or_none()

    def run_of_dagster(self) -> dg.DagsterRun:
        (run,) = [run for run in self.instance.get_runs() if "ghl_pipeline/started_by" not in run.tags]
        return run

    def red(self) -> set[str]:
        """Assets of which the UI shows the location's partition as failed."""
        found = set()
        for step in Step:
            value = get_and_update_asset_status_cache_value(self.instance, dg.AssetKey(step), location_partitions)
            assert value is not None
            failed = value.deserialize_failed_partition_subsets(location_partitions)
            found |= {step.value} if self.place.id in failed.get_partition_keys() else set()
        return found

    def attempts(self) -> list[tuple[str, str | None]]:
        """How each attempt at the location ended, in the order in which they began."""
        rows = sorted(self.agency.table("location_attempts"), key=lambda row: row["id"])
        return [(row["state"], row["error_class"]) for row in rows]

    def assert_worked_on_once(self) -> None:
        """The winner repaired the location as if it had been alone, and the loser is on record."""
        assert sorted(self.attempts(), key=str) == [("failed", "LocationBusy"), ("succeeded", None)]
        stats = self.agency.sandbox.stats(self.place.id)
        assert stats["lookups"]["email"]["repeated"] == stats["lookups"]["id"]["repeated"] == 0
        outcomes = [row["outcome"] for row in self.agency.table("lead_lookups")]
        assert len(outcomes) == len(self.agency.table("work_items"))
        for step in Step:
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(step), asset_partitions=[self.place.id])
            told = self.instance.fetch_materializations(wanted, limit=10).records
            # The list is told once more at the end, because the loser has planned it meanwhile: Dagster would count the
            # partition as failed.
            assert len(told) == (2 if step is Step.ELIGIBLE_LEADS else 1)
            assert len({record.run_id for record in told}) == 1


@pytest.fixture
def wanted(
    engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Wanted:
    """A location of 150 leads that is looked up slowly."""
    monkeypatch.setenv("HYDRATION_PAGE_SIZE", str(PAGE))
    monkeypatch.setenv("DAGSTER_HOME", str(project_root()))
    agency = Agency(engine, sandbox, TokenCipher.from_settings(project))
    (place,) = agency.sample(*sample_agency(locations=1, leads=150, seed=9).locations)
    agency.prefer_lookups(place, group_size=10)
    sync_partitions(instance, [place.id])
    sandbox.faults(latency_seconds=0.7)
    return Wanted(agency, place, instance)


@contextmanager
def started(words: list[str]) -> Iterator[Process]:
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=project_root(), env=os.environ
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < give_up_at, "never got there"
        time.sleep(0.01)


def ended(process: Process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_SECONDS)
    return process.returncode, out, err


@pytest.mark.slow
def test_the_command_line_leaves_a_location_to_the_run_that_works_on_it_and_says_which(wanted: Wanted) -> None:
    with started(wanted.dagster()) as run:
        wait_until(wanted.holder)
        with started(wanted.command_line()) as command:
            code, out, err = ended(command)
        wanted.agency.sandbox.faults()
        assert ended(run)[0] == 0
    winner = wanted.run_of_dagster()
    assert winner.is_success
    assert code == 5
    assert f"Location {wanted.place.id} is being worked on by run {winner.run_id} (process {run.pid} on " in err
    assert [failure["error"] for failure in json.loads(out)["failed"]] == ["LocationBusy"]
    wanted.assert_worked_on_once()
    assert wanted.red() == set()


@pytest.mark.slow
def test_a_run_that_finds_its_location_taken_fails_with_the_holders_name_and_succeeds_when_run_again(
    wanted: Wanted,
) -> None:
    with started(wanted.command_line()) as command:
        wait_until(wanted.holder)
        with started(wanted.dagster()) as run:
            assert ended(run)[0] == 1
        loser = wanted.run_of_dagster()
        wanted.agency.sandbox.faults()
        code, _, err = ended(command)
    assert (code, err) == (0, "")
    assert loser.status is dg.DagsterRunStatus.FAILURE
    assert loser.tags["dagster/partition"] == wanted.place.id
    (failure,) = wanted.instance.all_logs(loser.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    data = failure.get_dagster_event().step_failure_data.user_failure_data
    assert data is not None
    named = data.metadata["failed_locations"].value
    assert isinstance(named, dict)
    assert (named[wanted.place.id]["error"], named[wanted.place.id]["permanent"]) == ("LocationBusy", False)
    assert f"(process {command.pid} on " in named[wanted.place.id]["text"]
    wanted.assert_worked_on_once()
    assert wanted.red() == set()
    calls = wanted.agency.requests(wanted.place)
    with started(wanted.dagster()) as again:
        assert ended(again)[0] == 0
    # Nothing is left but to ask what has changed since.
    assert wanted.agency.requests(wanted.place) == calls + 1
    assert wanted.attempts()[-1] == ("succeeded", None)


@pytest.mark.slow
def test_of_two_that_start_at_the_same_moment_one_works(wanted: Wanted) -> None:
    with started(wanted.dagster()) as run, started(wanted.command_line()) as command:
        wait_until(lambda: run.poll() is not None or command.poll() is not None)
        wanted.agency.sandbox.faults()
        codes = ended(run)[0], ended(command)[0]
    assert codes in {(0, 5), (1, 0)}
    wanted.assert_worked_on_once()
    assert wanted.red() == set()
