"""The three assets as Dagster runs them: events per location, failures, resuming, what a run may be asked."""

from collections.abc import Mapping

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import Engine, text

from ghl_pipeline.definitions import build_defs
from ghl_pipeline.hydration.assets import SPECS
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.staggering import last_begun
from ghl_pipeline.partitions import LOCATION
from ghl_pipeline.sandbox.agency import SampleAgency
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency, lead_rows
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

STEPS = ["eligible_leads", "resolved_contacts", "hydrated_leads"]
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture
def agency(engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance) -> SampleAgency:
    """Three locations of 60 leads, with their partitions."""
    made = add_sample_agency(engine, project, sandbox, locations=3, leads=60)
    sync_partitions(instance, [location.id for location in made.locations])
    return made


class Runner:
    """Starts the job as the UI or a sensor would, and reads the history."""

    def __init__(self, engine: Engine, project: Settings, instance: DagsterInstance) -> None:
        self.instance = instance
        resources = {"engine": engine, "hydration": build_hydration(project, engine)}
        self._job = build_defs(resources).resolve_job_def("hydrate_leads")

    def run(
        self, *, tags: Mapping[str, str] | None = None, assets: list[str] | None = None, **config: object
    ) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            run_config={
                "ops": {"lead_hydration": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags or {}),
            asset_selection=[dg.AssetKey(name) for name in assets] if assets else None,
            raise_on_error=False,
        )

    def materializations(self, asset: str, location_id: str) -> list[Mapping[str, object]]:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[location_id])
        records = self.instance.fetch_materializations(wanted, limit=100).records
        return [
            {name: value.value for name, value in record.asset_materialization.metadata.items()}
            for record in records
            if record.asset_materialization
        ]

    def observations(self, asset: str, location_id: str) -> int:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[location_id])
        return len(self.instance.fetch_observations(wanted, limit=100).records)


@pytest.fixture
def runner(engine: Engine, project: Settings, instance: DagsterInstance) -> Runner:
    return Runner(engine, project, instance)


def all_of(agency: SampleAgency) -> dict[str, str]:
    return {RANGE[0]: agency.locations[0].id, RANGE[1]: agency.locations[-1].id}


def test_every_asset_says_what_it_is() -> None:
    for spec in SPECS:
        assert spec.group_name == "hydration"
        assert spec.owners
        assert spec.kinds
        assert "Grain:" in (spec.description or "")
        assert "Unit" in (spec.description or "")
        assert spec.partitions_def is not None


def test_a_backfill_of_all_partitions_materializes_each_step_once_per_location(
    agency: SampleAgency, runner: Runner, instance: DagsterInstance
) -> None:
    result = runner.run(tags=all_of(agency))
    assert result.success
    for location in agency.locations:
        for step in STEPS:
            (values,) = runner.materializations(step, location.id)
            assert values["attempt"] == result.run_id
        (hydrated,) = runner.materializations("hydrated_leads", location.id)
        report = hydrated["location_report"]
        assert isinstance(report, dict)
        expected = {name: count for name, count in location.outcomes.items() if count}
        assert {name: count for name, count in report["outcomes"].items() if count} == expected
        assert {name: n for name, n in report["fields"].items() if n and name != "contact_link"} == location.fills
        assert hydrated["leads"] == location.eligible
        assert isinstance(hydrated["requests"], int)
        assert hydrated["requests"] > 0
        (resolved,) = runner.materializations("resolved_contacts", location.id)
        assert resolved["complete"] is True
        assert "seconds_waited_on_limit" in resolved
        assert "█" in str(hydrated["outcomes"])
    assert set(instance.get_materialized_partitions(dg.AssetKey("hydrated_leads"))) == {
        location.id for location in agency.locations
    }


def test_a_failing_location_is_named_and_stops_no_other(
    agency: SampleAgency, runner: Runner, sandbox: Sandbox, engine: Engine
) -> None:
    first, broken, last = agency.locations
    sandbox.faults(broken.id, token_revoked=True)
    result = runner.run(tags=all_of(agency))
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "1 of 3 locations failed" in str(data.description)
    named = data.metadata["failed_locations"].value
    assert isinstance(named, dict)
    assert list(named) == [broken.id]
    assert named[broken.id]["error"] == "TokenRejected"
    assert named[broken.id]["permanent"] is True
    assert "clients set-token" in named[broken.id]["text"]
    for location in (first, last):
        assert len(runner.materializations("hydrated_leads", location.id)) == 1
    assert len(runner.materializations("eligible_leads", broken.id)) == 1
    assert runner.materializations("hydrated_leads", broken.id) == []
    with engine.connect() as connection:
        states = connection.execute(text("SELECT location_id, state, permanent FROM location_attempts")).all()
    assert {(row.location_id, row.state) for row in states} == {
        (first.id, "succeeded"), (broken.id, "failed"), (last.id, "succeeded"),
    }  # fmt: skip


def test_a_rerun_asks_only_for_what_failed(agency: SampleAgency, runner: Runner, sandbox: Sandbox) -> None:
    _, broken, _ = agency.locations
    sandbox.faults(broken.id, token_revoked=True)
    first = runner.run(tags=all_of(agency))
    sandbox.faults()
    sandbox.world.reset_statistics()
    # What Dagster puts on the automatic retry of a crashed run.
    second = runner.run(tags={**all_of(agency), "dagster/root_run_id": first.run_id, "dagster/retry_number": "1"})
    assert second.success
    asked = {location.id: sandbox.stats(location.id)["requests"] for location in agency.locations}
    assert asked[broken.id] > 0
    assert sum(asked.values()) == asked[broken.id]
    assert len(runner.materializations("hydrated_leads", broken.id)) == 1


def test_any_locations_can_be_run_by_config_and_land_on_their_partitions(
    agency: SampleAgency, runner: Runner, instance: DagsterInstance
) -> None:
    first, skipped, last = agency.locations
    assert runner.run(locations=[first.id, last.id]).success
    materialized = set(instance.get_materialized_partitions(dg.AssetKey("hydrated_leads")))
    assert materialized == {first.id, last.id}
    assert runner.materializations("eligible_leads", skipped.id) == []


def test_a_dry_run_writes_nothing_and_leaves_the_partition_unmaterialized(
    agency: SampleAgency, runner: Runner, engine: Engine
) -> None:
    before = lead_rows(engine)
    location = agency.locations[0]
    assert runner.run(locations=[location.id], dry_run=True).success
    assert lead_rows(engine) == before
    assert runner.materializations("hydrated_leads", location.id) == []
    assert runner.observations("hydrated_leads", location.id) == 1
    with engine.connect() as connection:
        for table in (
            "work_lists", "work_items", "resolved_contacts", "pulled_contacts", "lead_lookups", "location_learning",
        ):  # fmt: skip
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_one_step_can_be_materialized_alone(agency: SampleAgency, runner: Runner, sandbox: Sandbox) -> None:
    location = agency.locations[0]
    partition = {"dagster/partition": location.id}
    assert runner.run(tags=partition, assets=["eligible_leads"]).success
    assert sandbox.stats(location.id)["requests"] == 0
    assert runner.run(tags=partition, assets=["resolved_contacts"]).success
    assert runner.materializations("hydrated_leads", location.id) == []
    asked = sandbox.stats(location.id)["requests"]
    assert asked > 0
    assert runner.run(tags=partition, assets=["hydrated_leads"]).success
    assert sandbox.stats(location.id)["requests"] == asked
    (hydrated,) = runner.materializations("hydrated_leads", location.id)
    assert hydrated["leads"] == location.eligible


def test_running_again_changes_nothing(agency: SampleAgency, runner: Runner, engine: Engine) -> None:
    runner.run(tags=all_of(agency))
    once = lead_rows(engine)
    runner.run(tags=all_of(agency))
    assert lead_rows(engine) == once
    (latest, _) = runner.materializations("hydrated_leads", agency.locations[0].id)
    assert latest["repaired"] == 0


def test_no_run_creates_or_changes_a_contact(agency: SampleAgency, runner: Runner, sandbox: Sandbox) -> None:
    runner.run(tags=all_of(agency))
    for location in agency.locations:
        counts = sandbox.stats(location.id)
        assert (counts["creates"], counts["updates"], counts["deletes"]) == (0, 0, 0)


def test_partitions_are_the_active_locations(agency: SampleAgency, instance: DagsterInstance) -> None:
    assert list(instance.get_dynamic_partitions(LOCATION)) == [location.id for location in agency.locations]


def test_a_run_for_new_leads_takes_no_turn_of_the_locations(
    agency: SampleAgency, runner: Runner, engine: Engine
) -> None:
    """Otherwise a client with a new lead every few minutes would never have its other leads looked at."""
    first, second = (location.id for location in agency.locations[:2])
    assert runner.run(locations=[first], only_new=True).success
    assert runner.run(locations=[second]).success
    with engine.connect() as connection:
        assert set(last_begun(connection, "hydration", [first, second])) == {second}
