"""After a failed backfill from the UI the checks of its assets are evaluated, soon and not again and again."""

import asyncio

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus as Status
from sqlalchemy import Engine

from ghl_pipeline.definitions import build_defs
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.operations.checks import SPECS
from ghl_pipeline.operations.sensors import report_after_failure_sensor
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

HYDRATION = ["eligible_leads", "resolved_contacts", "hydrated_leads"]
CHECKS = [spec.key for spec in SPECS if spec.asset_key.to_user_string() in HYDRATION]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def definitions(engine: Engine, project: Settings) -> dg.Definitions:
    return build_defs({"engine": engine, "hydration": build_hydration(project, engine)})


@pytest.fixture
def locations(engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance) -> list[str]:
    """Two; the second one's token is refused."""
    ids = sorted(
        location.id for location in add_sample_agency(engine, project, sandbox, locations=2, leads=20).locations
    )
    sandbox.faults(ids[1], token_revoked=True)
    sync_partitions(instance, ids)
    return ids


def backfill(definitions: dg.Definitions, instance: DagsterInstance, locations: list[str]) -> bool:
    """A run as the UI's backfill launches it; whether it succeeded."""
    every = definitions.resolve_implicit_global_asset_job_def()
    selected = every.get_subset(asset_selection={dg.AssetKey(name) for name in HYDRATION})
    tags = {"dagster/asset_partition_range_start": locations[0], "dagster/asset_partition_range_end": locations[-1]}
    return selected.execute_in_process(instance=instance, tags=tags, run_config=QUIET, raise_on_error=False).success


def tick(instance: DagsterInstance) -> str:
    """What the sensor says, or "asked for a page"."""
    context = dg.build_sensor_context(instance=instance)
    answer = report_after_failure_sensor(dg.DefaultSensorStatus.STOPPED)(context)
    return str(answer.skip_message) if isinstance(answer, dg.SkipReason) else "asked for a page"


def shown(instance: DagsterInstance) -> set[Status]:
    """How the UI shows the checks of hydration."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(CHECKS)
    assert set(records) == set(CHECKS)

    async def statuses() -> set[Status]:
        context = LoadingContextForTest(instance)
        return {await record.resolve_status(context) for record in records.values()}

    return asyncio.run(statuses())


def test_the_checks_that_a_failed_backfill_left_are_evaluated_once(
    definitions: dg.Definitions, instance: DagsterInstance, locations: list[str]
) -> None:
    assert tick(instance) == "no run of the UI failed since the last page"
    assert not backfill(definitions, instance, locations)
    assert shown(instance) <= {Status.EXECUTION_FAILED, Status.SKIPPED}
    assert tick(instance) == "asked for a page"
    page = definitions.resolve_job_def("report_operations")
    assert page.execute_in_process(instance=instance, run_config=QUIET).success
    assert shown(instance) <= {Status.SUCCEEDED, Status.FAILED}
    assert tick(instance) == "no run of the UI failed since the last page"


def test_one_page_at_a_time_and_none_after_a_page_that_failed_itself(instance: DagsterInstance) -> None:
    assets, page = dg.job(name="__ASSET_JOB")(lambda: None), dg.job(name="report_operations")(lambda: None)
    instance.create_run_for_job(assets, status=dg.DagsterRunStatus.FAILURE)
    under_way = instance.create_run_for_job(page, status=dg.DagsterRunStatus.STARTED)
    assert tick(instance) == "a page is being made"
    instance.report_run_failed(under_way)
    assert tick(instance) == "no run of the UI failed since the last page"
    instance.create_run_for_job(assets, status=dg.DagsterRunStatus.CANCELED)
    assert tick(instance) == "asked for a page"


def test_runs_that_took_no_checks_along_need_no_page(instance: DagsterInstance) -> None:
    for job in ("hydrate_leads", "report_operations"):
        instance.create_run_for_job(dg.job(name=job)(lambda: None), status=dg.DagsterRunStatus.FAILURE)
    assert tick(instance) == "no run of the UI failed since the last page"
