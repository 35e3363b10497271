"""The asset of the accounts as Dagster runs it, its checks, and the schedule that starts it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.locations.clients import deactivate_client
from ghl_pipeline.orchestration import scheduled_runs
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.senders.assets import SPEC, sender_sync
from ghl_pipeline.senders.jobs import sync_senders
from ghl_pipeline.senders.report import LEFT_TO_ANOTHER
from ghl_pipeline.senders.schedules import senders_schedule
from ghl_pipeline.senders.senders import NO_TOKEN
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.senders.conftest import Agency, Client


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox, project: Settings) -> Agency:
    return Agency(engine, sandbox, TokenCipher.from_settings(project))


@pytest.fixture
def clients(agency: Agency, instance: DagsterInstance) -> list[Client]:
    """Three clients with a lead each, the last one without a token, and their partitions."""
    made = [agency.add_client(with_token=number < 2) for number in range(3)]
    for client in made:
        client.lead(None)
    sync_partitions(instance, [client.location_id for client in made])
    return made


class Runner:
    """Starts the job as the UI or the schedule would, and reads the history."""

    def __init__(self, agency: Agency, instance: DagsterInstance) -> None:
        self.instance = instance
        resources = {"engine": agency.engine, "senders": agency.senders()}
        definitions = dg.Definitions(assets=[sender_sync], jobs=[sync_senders], resources=resources)
        self._job = definitions.resolve_job_def("sync_senders")

    def run(self, *, tags: Mapping[str, str] | None = None, **config: object) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            run_config={
                "ops": {"sender_sync": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def materializations(self, client: Client) -> list[Mapping[str, object]]:
        wanted = dg.AssetRecordsFilter(asset_key=SPEC.key, asset_partitions=[client.location_id])
        return [
            {name: value.value for name, value in record.asset_materialization.metadata.items()}
            for record in self.instance.fetch_materializations(wanted, limit=100).records
            if record.asset_materialization
        ]


@pytest.fixture
def runner(agency: Agency, instance: DagsterInstance) -> Runner:
    return Runner(agency, instance)


def all_of(clients: list[Client]) -> dict[str, str]:
    return {
        "dagster/asset_partition_range_start": clients[0].location_id,
        "dagster/asset_partition_range_end": clients[-1].location_id,
    }


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_the_asset_says_what_it_is() -> None:
    assert SPEC.key == dg.AssetKey("sender_accounts")
    assert (SPEC.group_name, list(SPEC.owners), SPEC.kinds) == (
        "senders", ["team:revops"], {"emailbison", "postgres"},
    )  # fmt: skip
    assert "Grain:" in (SPEC.description or "")
    assert "Units:" in (SPEC.description or "")
    assert SPEC.partitions_def is not None


def test_every_partition_of_a_backfill_gets_its_event_with_counts_or_why_there_are_none(
    clients: list[Client], runner: Runner
) -> None:
    result = runner.run(tags=all_of(clients))

    assert result.success
    (values,) = runner.materializations(clients[0])
    names = ("accounts", "can_send", "gone", "leads_healed", "healed_missing", "left_without", "requests")
    assert [values[name] for name in names] == [3, 3, 0, 1, 1, 0, 2]
    assert "missing" in str(values["leads"])
    (skipped,) = runner.materializations(clients[2])
    assert skipped["skipped"] == NO_TOKEN
    assert all(check.passed for check in checks_of(result).values())


def test_a_location_that_fails_is_named_stops_no_other_and_shows_in_the_checks(
    clients: list[Client], runner: Runner, agency: Agency
) -> None:
    broken = clients[0]
    agency.sandbox.faults(broken.workspace.faults_key, token_revoked=True)

    result = runner.run(tags=all_of(clients))

    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "1 of 3 locations failed" in str(data.description)
    named = data.metadata["failed_locations"].value
    assert isinstance(named, dict)
    assert list(named) == [broken.location_id]
    assert "set-emailbison" in named[broken.location_id]["text"]
    assert [len(runner.materializations(client)) for client in clients] == [0, 1, 1]
    check = checks_of(result)["clients_can_send"]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert broken.location_id in str(check.description)


def test_checks_tell_clients_that_cannot_send_from_leads_that_wait_for_an_account(
    clients: list[Client], runner: Runner, agency: Agency
) -> None:
    for mailbox in (1, 2, 3):
        clients[0].workspace.mailboxes.change(mailbox, status="Disconnected")
    runner.run(locations=[clients[1].location_id])
    clients[1].lead(None)

    checks = checks_of(runner.run(locations=[clients[0].location_id]))

    silent, waiting = checks["clients_can_send"], checks["leads_have_senders"]
    assert (silent.passed, silent.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert clients[0].location_id in str(silent.description)
    assert (waiting.passed, waiting.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert clients[1].location_id in str(waiting.description)
    runner.run(locations=[clients[1].location_id])
    assert checks_of(runner.run(locations=[clients[1].location_id]))["leads_have_senders"].passed


def test_a_location_that_another_run_is_at_is_no_failure(clients: list[Client], runner: Runner, engine: Engine) -> None:
    with AdvisoryLocks(engine).hold(f"senders of location {clients[0].location_id}") as held:
        assert held
        result = runner.run(locations=[client.location_id for client in clients[:2]])
    assert result.success
    assert [len(runner.materializations(client)) for client in clients[:2]] == [0, 1]


def test_a_partition_of_a_backfill_that_another_run_is_at_has_its_event(
    clients: list[Client], runner: Runner, engine: Engine
) -> None:
    with AdvisoryLocks(engine).hold(f"senders of location {clients[0].location_id}") as held:
        assert held
        result = runner.run(tags=all_of(clients))
    assert result.success
    (values,) = runner.materializations(clients[0])
    assert values["skipped"] == LEFT_TO_ANOTHER


def test_no_address_name_or_token_is_in_dagsters_tables_or_files(
    clients: list[Client], runner: Runner, agency: Agency, dagster_url: URL, project: Settings
) -> None:
    canaries = ["zyxwinda", "brindlemoth", *(client.workspace.token.split("|")[1] for client in clients)]
    for client in clients:
        client.workspace.mailboxes.change(1, email="zyxwinda@example.com", name="Brindlemoth", status="Brindlemoth")
    agency.sandbox.faults(clients[0].workspace.faults_key, garbage_rate=1.0)
    runner.run(tags=all_of(clients))
    engine = sqlalchemy.create_engine(dagster_url.set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            names = connection.execute(
                text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            ).scalars()
            rows = [
                row
                for name in names.all()
                for row in connection.execute(text(f'SELECT r::text FROM "{name}" r')).scalars()
            ]
    finally:
        engine.dispose()
    files = [path.read_text(errors="replace") for path in Path(project.home).rglob("*") if path.is_file()]
    assert any("sender_accounts" in row for row in rows)
    assert [canary for canary in canaries if any(canary.lower() in told.lower() for told in (*rows, *files))] == []


# --- the schedule


def due(engine: Engine, instance: DagsterInstance) -> list[dg.RunRequest]:
    schedule = senders_schedule(dg.DefaultScheduleStatus.STOPPED)
    # Long after whatever the tests put on record: everybody's turn has come since.
    at = datetime(2036, 5, 4, 2, 4, tzinfo=UTC)
    context = dg.build_schedule_context(instance, scheduled_execution_time=at, resources={"engine": engine})
    return list(schedule.evaluate_tick(context).run_requests or [])


def asked_for(requests: list[dg.RunRequest]) -> list[list[str]]:
    return [request.run_config["ops"]["sender_sync"]["config"]["locations"] for request in requests]


def test_every_hour_all_workspaces_that_can_be_asked_are_asked_for(
    clients: list[Client], engine: Engine, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_for(due(engine, instance)) == [[client.location_id for client in clients[:2]]]
    assert [request.run_key for request in due(engine, instance)] == ["hourly_senders-203605040204-0"]
    monkeypatch.setattr(scheduled_runs, "LOCATIONS_PER_RUN", 1)
    assert [request.run_key for request in due(engine, instance)] == [
        "hourly_senders-203605040204-0",
        "hourly_senders-203605040204-1",
    ]
    with engine.begin() as connection:
        for client in clients:
            deactivate_client(connection, client.location_id)
    assert due(engine, instance) == []


def test_a_workspace_that_refused_its_token_is_left_out_until_it_has_another(
    clients: list[Client], engine: Engine, instance: DagsterInstance, runner: Runner, agency: Agency
) -> None:
    refused, well = clients[:2]
    agency.sandbox.faults(refused.workspace.faults_key, token_revoked=True)
    runner.run(locations=[refused.location_id, well.location_id])
    assert asked_for(due(engine, instance)) == [[well.location_id]]

    agency.use(refused, refused.workspace.id, refused.workspace.token)
    assert asked_for(due(engine, instance)) == [[refused.location_id, well.location_id]]
