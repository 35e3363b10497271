"""Which runs go: those that nobody asked for, went well and made nothing that is the newest of a location."""

from datetime import timedelta

import dagster as dg
from dagster import DagsterInstance
from sqlalchemy import Engine, text

from ghl_pipeline.orchestration.old_runs import drop_old_runs
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.orchestration.test_run_events import Hydration
from ghl_pipeline_tests.orchestration.test_run_events import dagster_database as dagster_database  # noqa: PLC0414
from ghl_pipeline_tests.orchestration.test_run_events import hydration as hydration  # noqa: PLC0414 - fixtures
from ghl_pipeline_tests.orchestration.test_thinning import facts

MONTH = timedelta(days=30)
OF_SCHEDULE = {"dagster/schedule_name": "hourly_changes"}


def test_only_runs_go_that_nobody_asked_for_and_nothing_refers_to(
    engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance, hydration: Hydration
) -> None:
    agency = add_sample_agency(engine, project, sandbox, locations=2, leads=6)
    here, there = (location.id for location in agency.locations)
    sync_partitions(instance, [here, there])

    def run(*places: str, **tags: str) -> str:
        return hydration.run(locations=list(places), tags=tags and {**tags}).run_id

    both = run(here, there, **OF_SCHEDULE)
    gone = [run(here, **OF_SCHEDULE), run(here, **{"dagster/sensor_name": "new_leads"})]
    of_person = run(here)
    of_backfill = run(here, **OF_SCHEDULE, **{"dagster/backfill": "a-backfill"})
    root = run(here, **OF_SCHEDULE)
    repeated = run(here, **OF_SCHEDULE, **{"dagster/root_run_id": root, "dagster/parent_run_id": root})
    sandbox.faults(here, token_revoked=True)
    failed = run(here, **OF_SCHEDULE)
    sandbox.faults()
    old = [both, *gone, of_person, of_backfill, root, repeated, failed]
    newest = run(here, **OF_SCHEDULE)
    hydration.ended(*old, newest, days_ago=40)
    young = run(here, **OF_SCHEDULE)
    before = facts(hydration)[:-2]  # the list of runs apart

    assert drop_old_runs(hydration.log, "", MONTH, dry_run=True) == 3
    assert len(instance.get_runs()) == len(old) + 2, "it only counted"
    assert drop_old_runs(hydration.log, "", MONTH) == 3

    left = {each.run_id for each in instance.get_runs()}
    assert left == {both, of_person, of_backfill, root, repeated, failed, young}, "`both` made the newest of one place"
    assert facts(hydration)[:-2] == before
    with hydration.log.connect() as connection:
        for table in ("event_logs", "run_tags"):
            known = set(connection.execute(text(f"SELECT DISTINCT run_id FROM {table}")).scalars())
            assert known <= left, "nothing of a run that is gone"
    status = instance.get_run_by_id(failed)
    assert status is not None
    assert status.status is dg.DagsterRunStatus.FAILURE
    assert drop_old_runs(hydration.log, "", MONTH) == 0
