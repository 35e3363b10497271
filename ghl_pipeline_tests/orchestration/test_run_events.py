"""What housekeeping drops of Dagster's event log, and that everything that is read from there stays as it was.

The tables are Dagster's own and undocumented; these tests are what an upgrade has to pass.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.orchestration import run_events
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.run_events import drop_old_run_events
from ghl_pipeline.partitions import location_partitions
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

ASSETS = ("eligible_leads", "resolved_contacts", "hydrated_leads")
MONTH = timedelta(days=30)


@pytest.fixture
def dagster_database(dagster_url: URL) -> Iterator[Engine]:
    engine = create_engine(dagster_url)
    yield engine
    engine.dispose()


class Hydration:
    """The job as Dagster runs it, and what it left in the event log."""

    def __init__(self, engine: Engine, project: Settings, instance: DagsterInstance, log: Engine) -> None:
        self.instance, self.log = instance, log
        resources = {"engine": engine, "hydration": build_hydration(project, engine)}
        self._job = build_defs(resources).resolve_job_def("hydrate_leads")

    def run(self, *, tags: Mapping[str, str] | None = None, **config: object) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            run_config={
                "ops": {"lead_hydration": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def ended(self, *run_ids: str, days_ago: int) -> None:
        """As if the runs had been then."""
        with self.log.begin() as connection:
            connection.execute(
                text("UPDATE runs SET end_time = end_time - :seconds WHERE run_id = ANY(:ids)"),
                {"seconds": days_ago * 86400, "ids": list(run_ids)},
            )

    def rows(self) -> dict[str, int]:
        query = "SELECT coalesce(dagster_event_type, 'LOG') AS type, count(*) AS n FROM event_logs GROUP BY 1"
        with self.log.connect() as connection:
            return {row.type: row.n for row in connection.execute(text(query))}

    def facts(self) -> object:
        """What the asset pages, backfills, resuming and a retry read."""
        wanted = [dg.AssetKey(asset) for asset in ASSETS]
        places = self.instance.get_dynamic_partitions("location")
        with self.log.begin() as connection:  # the UI keeps what it worked out; here it has to be worked out again
            connection.execute(text("UPDATE asset_keys SET cached_status_data = NULL"))
        return [
            [
                (
                    asset.to_user_string(),
                    sorted(self.instance.get_materialized_partitions(asset)),
                    get_and_update_asset_status_cache_value(self.instance, asset, location_partitions, self.instance),
                    self.instance.get_latest_materialization_event(asset),
                    self.instance.fetch_materializations(asset, limit=1000).records,
                    [
                        self.instance.fetch_observations(
                            dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[place]), limit=1
                        ).records
                        for place in places
                    ],
                )
                for asset in wanted
            ],
            self.instance.get_asset_records(wanted),
            [(run.run_id, run.status, run.tags) for run in self.instance.get_runs()],
            [(each.status, each.tags, each.title) for each in self.instance.get_backfills()],
            [self.instance.get_run_stats(run.run_id) for run in self.instance.get_runs()],
            [sorted(each.step_key for each in self.instance.get_run_step_stats(run.run_id))
             for run in self.instance.get_runs()],
        ]  # fmt: skip


@pytest.fixture
def hydration(engine: Engine, project: Settings, instance: DagsterInstance, dagster_database: Engine) -> Hydration:
    return Hydration(engine, project, instance, dagster_database)


def test_nothing_that_is_read_of_old_runs_changes(
    engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance, hydration: Hydration
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=4, leads=12)
    ids = [location.id for location in agency.locations]
    sync_partitions(instance, ids)
    backfill = PartitionBackfill(
        "a-backfill", BulkActionStatus.COMPLETED_FAILED, from_failure=False, tags={}, backfill_timestamp=1.0,
        title="All", asset_selection=[dg.AssetKey(asset) for asset in ASSETS], partition_names=ids,
    )  # fmt: skip
    instance.add_backfill(backfill)
    all_of_them = {
        "dagster/backfill": "a-backfill",
        "dagster/asset_partition_range_start": ids[0],
        "dagster/asset_partition_range_end": ids[-1],
    }
    sandbox.faults(ids[3], token_revoked=True)
    failed = hydration.run(tags=all_of_them, page_size=5)
    sandbox.faults(ids[2], error_rate=1.0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE leads SET phone = NULL, ghl_contact_id = NULL"))
    stopped = hydration.run(locations=ids[:3], page_size=5)
    assert not failed.success
    assert not stopped.success
    hydration.ended(failed.run_id, stopped.run_id, days_ago=40)

    before, rows = hydration.facts(), hydration.rows()
    foreseen = drop_old_run_events(hydration.log, MONTH, dry_run=True)
    assert hydration.rows() == rows, "it only counted"
    dropped = drop_old_run_events(hydration.log, MONTH)
    left = hydration.rows()

    assert dropped == foreseen
    assert dropped.runs == 2
    assert dropped.rows == sum(rows.values()) - sum(left.values()) > 0
    assert hydration.facts() == before
    assert left["ASSET_MATERIALIZATION"] == rows["ASSET_MATERIALIZATION"]
    assert left["ASSET_OBSERVATION"] == rows["ASSET_OBSERVATION"]
    # Of the location that never was materialized the plan stays: by it the partition is red.
    assert left["ASSET_MATERIALIZATION_PLANNED"] == len(ASSETS) * len(ids) + len(ASSETS)
    assert not {"LOG", "ENGINE_EVENT", "LOGS_CAPTURED", "RESOURCE_INIT_SUCCESS"} & set(left)
    assert left["STEP_FAILURE"] == rows["STEP_FAILURE"] == 2

    sandbox.faults()
    retried = {**all_of_them, "dagster/root_run_id": failed.run_id, "dagster/retry_number": "1"}
    again = hydration.run(tags=retried)
    assert again.success, "it goes on where the old run was"
    assert instance.get_materialized_partitions(dg.AssetKey(ASSETS[2])) == set(ids)


def test_young_runs_running_ones_and_those_gone_through_are_left_alone(
    engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance, hydration: Hydration
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=1, leads=3)
    place = agency.locations[0].id
    sync_partitions(instance, [place])
    runs = [hydration.run(locations=[place]).run_id for _ in range(3)]
    old, older = runs[0], runs[1]
    hydration.ended(old, days_ago=35)
    hydration.ended(older, days_ago=90)
    running = instance.create_run_for_job(
        build_defs().resolve_job_def("hydrate_leads"), status=dg.DagsterRunStatus.STARTED
    )
    instance.report_engine_event("it goes on", running)
    young = [entry for run_id in (runs[2], running.run_id) for entry in instance.all_logs(run_id)]
    assert drop_old_run_events(hydration.log, timedelta(days=60)).runs == 1
    assert drop_old_run_events(hydration.log, timedelta(days=60)) == run_events.RunEvents(1, 0), (
        "an hour is looked back"
    )
    assert drop_old_run_events(hydration.log, MONTH, dry_run=True).runs == 2
    second = drop_old_run_events(hydration.log, MONTH)
    assert second.runs == 2
    assert second.rows > 0
    assert drop_old_run_events(hydration.log, MONTH).rows == 0
    assert [entry for run_id in (runs[2], running.run_id) for entry in instance.all_logs(run_id)] == young


def test_the_newest_of_a_partition_is_found_by_an_index(hydration: Hydration) -> None:
    """Each planned one is compared with the newest of its partition; reading its whole past would take hours."""
    filler = text("""
        INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition)
        SELECT 'run-' || n / 500, '{}', 'ASSET_MATERIALIZATION_PLANNED', now(), 'an asset', 'location-' || n % 500
        FROM generate_series(1, 50000) AS n
    """)
    with hydration.log.connect() as connection:
        connection.execute(filler)
        connection.execute(text("ANALYZE event_logs"))
        explain = text(f"EXPLAIN {run_events._CHOSEN}")
        values = {"runs": '["run-7", "run-8"]', "dropped": "[]", "superseded": '["ASSET_MATERIALIZATION_PLANNED"]'}
        plan = "\n".join(connection.execute(explain, values).scalars())
    assert "idx_events_by_run_id" in plan
    assert "idx_events_by_asset_partition" in plan
    assert "Seq Scan on event_logs" not in plan
