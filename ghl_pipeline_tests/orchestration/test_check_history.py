"""How long evaluations of checks and the runs of the operator's page are kept, on a real instance.

The tables are Dagster's own and undocumented; these tests are what an upgrade has to pass.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.connection import create_engine
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.operations.checks import SPECS
from ghl_pipeline.orchestration import check_history, old_runs
from ghl_pipeline.orchestration.check_history import drop_old_evaluations
from ghl_pipeline.orchestration.old_runs import drop_old_runs
from ghl_pipeline_tests.operations.agency import Agency

MONTH = timedelta(days=30)
PAGE = dg.AssetKey("operations_report")
JOB = "report_operations"
KEYS = [spec.key for spec in SPECS]


class Pages:
    """Runs of the operator's page, and what the UI reads of them."""

    def __init__(self, engine: Engine, instance: DagsterInstance, log: Engine) -> None:
        self.instance, self.log = instance, log
        self._job = build_defs({"engine": engine}).resolve_job_def(JOB)

    def run(self, days_ago: int) -> str:
        """One page with its checks, as if it had been made then; the run's id."""
        result = self._job.execute_in_process(
            instance=self.instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
        assert result.success
        self.ended(result.run_id, days_ago)
        return result.run_id

    def ended(self, run_id: str, days_ago: int) -> None:
        """As if the run had been then."""
        values = {"id": run_id, "ago": days_ago * 86400}
        self.sql("UPDATE runs SET end_time = extract(epoch FROM now()) - :ago WHERE run_id = :id", **values)
        self.sql(
            "UPDATE asset_check_executions SET create_timestamp = create_timestamp - make_interval(secs => :ago) "
            "WHERE run_id = :id",
            **values,
        )

    def sql(self, statement: str, **values: object) -> None:
        with self.log.begin() as connection:
            connection.execute(text(statement), values)

    def count(self, table: str) -> int:
        with self.log.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    def runs(self) -> set[str]:
        return {run.run_id for run in self.instance.get_runs()}

    def facts(self) -> object:
        """What the page of the asset, and those of all checks, show first."""
        storage = self.instance.event_log_storage
        return [
            storage.get_asset_check_summary_records(KEYS),
            storage.get_latest_asset_check_execution_by_key(KEYS),
            self.instance.get_latest_materialization_event(PAGE),
            self.instance.get_asset_records([PAGE]),
            self.instance.fetch_materializations(PAGE, limit=1).records,
        ]

    def drop(self, *, dry_run: bool = False) -> tuple[int, int]:
        evaluations = drop_old_evaluations(self.log, MONTH, dry_run=dry_run)
        return evaluations, drop_old_runs(self.log, JOB, MONTH, dry_run=dry_run)


@pytest.fixture
def pages(engine: Engine, instance: DagsterInstance, dagster_url: URL) -> Iterator[Pages]:
    Agency(engine).client("Here", age="9 days")
    log = create_engine(dagster_url)
    yield Pages(engine, instance, log)
    log.dispose()


def everything(pages: Pages) -> Sequence[int]:
    return [pages.count(table) for table in ("runs", "run_tags", "event_logs", "asset_check_executions")]


def test_old_pages_and_evaluations_go_and_what_the_ui_shows_stays(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_history, "EVALUATIONS_PER_STATEMENT", 10)
    monkeypatch.setattr(old_runs, "RUNS_PER_STATEMENT", 1)
    old = [pages.run(days_ago) for days_ago in (90, 60, 40)]
    young = [pages.run(days_ago) for days_ago in (20, 0)]
    facts, rows = pages.facts(), everything(pages)
    foreseen = pages.drop(dry_run=True)
    assert everything(pages) == rows, "it only counted"
    assert foreseen == (3 * len(KEYS), 3)
    young_events = [entry for run_id in young for entry in pages.instance.all_logs(run_id)]

    assert pages.drop() == foreseen

    assert pages.facts() == facts
    assert pages.runs() == set(young)
    assert all(not pages.instance.all_logs(run_id) for run_id in old)
    assert [entry for run_id in young for entry in pages.instance.all_logs(run_id)] == young_events
    assert pages.count("asset_check_executions") == 2 * len(KEYS)
    assert pages.drop() == (0, 0)


def test_the_latest_page_is_kept_however_old_it_is(pages: Pages) -> None:
    runs = [pages.run(days_ago) for days_ago in (90, 60)]
    facts = pages.facts()
    assert pages.drop() == (len(KEYS), 1)
    assert pages.facts() == facts
    assert pages.runs() == {runs[1]}


def test_a_run_with_the_latest_evaluation_of_some_check_is_kept(pages: Pages) -> None:
    first, second, third = (pages.run(days_ago) for days_ago in (90, 60, 0))
    pages.sql(
        "DELETE FROM asset_check_executions WHERE check_name = 'quota_used' AND run_id IN (:second, :third)",
        second=second, third=third,
    )  # fmt: skip
    facts = pages.facts()
    foreseen = pages.drop(dry_run=True)
    assert pages.drop() == foreseen == (2 * (len(KEYS) - 1), 1)
    assert pages.facts() == facts
    assert pages.runs() == {first, third}


def test_what_was_planned_last_and_runs_that_go_on_or_are_of_other_jobs_are_left_alone(pages: Pages) -> None:
    def planned(job: str, status: dg.DagsterRunStatus) -> str:
        return pages.instance.create_run_for_job(build_defs().resolve_job_def(job), status=status).run_id

    stopped = planned(JOB, dg.DagsterRunStatus.CANCELED)
    made = [pages.run(90), pages.run(90)]
    other, goes_on = planned("keep_house", dg.DagsterRunStatus.SUCCESS), planned(JOB, dg.DagsterRunStatus.STARTED)
    for run_id in (stopped, other, goes_on):
        pages.ended(run_id, 90)
    facts = pages.facts()
    foreseen = pages.drop(dry_run=True)
    assert pages.drop() == foreseen
    assert pages.runs() == {made[1], other, goes_on}, "one that was stopped before it began has gone"
    assert pages.facts() == facts
