"""The messages asset as Dagster runs it, and the schedule that starts it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, insert, text

from ghl_pipeline.conversations.assets import SPEC
from ghl_pipeline.conversations.schedules import message_import_schedule
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.database.tables import leads
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline.orchestration import scheduled_runs
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.build import build_message_import
from ghl_pipeline_tests.conversations.conftest import ago, contact_ids
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

ASSET = "sms_messages"
CANARY = "quorvath zyxwinda"


@pytest.fixture
def locations(engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance) -> list[Location]:
    """Three clients with two leads and five messages each, and their partitions."""
    made = []
    cipher = TokenCipher.from_settings(project)
    people = contact_ids(2)
    for number in range(3):
        location = sandbox.add_location()
        with engine.begin() as connection:
            client = add_client(
                connection, cipher, name=f"Client {number}", location_id=location.id, token=SecretStr(location.token)
            )
            connection.execute(insert(leads), [{"client_id": client.id, "ghl_contact_id": each} for each in people])
        for message in range(5):
            location.add_message(people[message % 2], f"{CANARY} {message}", at=ago(hours=10 - message))
        location.add_message("Stranger000000000001", CANARY, at=ago(hours=1))
        made.append(location)
    sync_partitions(instance, [location.id for location in made])
    return made


class Runner:
    """Starts the job as the UI or the schedule would, and reads the history."""

    def __init__(self, engine: Engine, project: Settings, instance: DagsterInstance) -> None:
        self.instance = instance
        resources = {"engine": engine, "conversations": build_message_import(project, engine)}
        self._job = build_defs(resources).resolve_job_def("import_messages")

    def run(self, *, tags: Mapping[str, str] | None = None, **config: object) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            run_config={
                "ops": {"message_import": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def materializations(self, location: Location) -> list[Mapping[str, object]]:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(ASSET), asset_partitions=[location.id])
        records = self.instance.fetch_materializations(wanted, limit=100).records
        return [
            {name: value.value for name, value in record.asset_materialization.metadata.items()}
            for record in records
            if record.asset_materialization
        ]


@pytest.fixture
def runner(engine: Engine, project: Settings, instance: DagsterInstance) -> Runner:
    return Runner(engine, project, instance)


def all_of(locations: list[Location]) -> dict[str, str]:
    return {
        "dagster/asset_partition_range_start": locations[0].id,
        "dagster/asset_partition_range_end": locations[-1].id,
    }


def test_the_asset_says_what_it_is() -> None:
    assert SPEC.key == dg.AssetKey(ASSET)
    assert (SPEC.group_name, list(SPEC.owners), SPEC.kinds) == (
        "conversations", ["team:revops"], {"gohighlevel", "postgres"},
    )  # fmt: skip
    assert "Grain:" in (SPEC.description or "")
    assert "Unit" in (SPEC.description or "")
    assert SPEC.partitions_def is not None


def test_every_location_is_materialized_once_with_its_counts(locations: list[Location], runner: Runner) -> None:
    result = runner.run(tags=all_of(locations))
    assert result.success
    for location in locations:
        (values,) = runner.materializations(location)
        assert values["attempt"] == result.run_id
        assert (values["messages_imported"], values["messages_seen"], values["requests"]) == (5, 6, 1)
        report = values["location_report"]
        assert isinstance(report, dict)
        assert report["outcomes"]["skipped_no_lead"] == 1
    assert runner.run(tags=all_of(locations)).success
    assert [runner.materializations(location)[0]["messages_imported"] for location in locations] == [0, 0, 0]


def test_a_run_for_no_location_fails_and_says_how_to_name_some(locations: list[Location], runner: Runner) -> None:
    result = runner.run()
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "launch it for partitions" in str(data.description)


def test_a_location_that_fails_is_named_with_the_scope_it_lacks_and_stops_no_other(
    locations: list[Location], runner: Runner, sandbox: Sandbox, engine: Engine
) -> None:
    first, broken, last = locations
    sandbox.faults(broken.id, missing_scopes=("conversations/message.readonly",))
    result = runner.run(tags=all_of(locations))
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "1 of 3 locations failed" in str(data.description)
    named = data.metadata["failed_locations"].value
    assert isinstance(named, dict)
    assert list(named) == [broken.id]
    assert "conversations/message.readonly" in named[broken.id]["text"]
    assert named[broken.id]["permanent"] is True
    assert [len(runner.materializations(each)) for each in (first, broken, last)] == [1, 0, 1]
    with engine.connect() as connection:
        states = connection.execute(text("SELECT location_id, state FROM location_attempts")).all()
    assert {tuple(row) for row in states} == {
        (first.id, "succeeded"), (broken.id, "failed"), (last.id, "succeeded"),
    }  # fmt: skip


def test_the_retry_of_a_crashed_run_leaves_out_what_was_done(
    locations: list[Location], runner: Runner, sandbox: Sandbox
) -> None:
    _, broken, _ = locations
    sandbox.faults(broken.id, token_revoked=True)
    first = runner.run(tags=all_of(locations))
    sandbox.faults()
    sandbox.world.reset_statistics()
    again = runner.run(tags={**all_of(locations), "dagster/root_run_id": first.run_id, "dagster/retry_number": "1"})
    assert again.success
    assert [sandbox.stats(location.id)["requests"] for location in locations] == [0, 1, 0]


def test_a_location_that_another_import_is_at_is_no_failure(
    locations: list[Location], runner: Runner, engine: Engine
) -> None:
    busy = locations[1]
    with AdvisoryLocks(engine).hold(f"conversations of location {busy.id}") as held:
        assert held
        result = runner.run(locations=[location.id for location in locations])
    assert result.success
    assert [len(runner.materializations(location)) for location in locations] == [1, 0, 1]


def test_no_word_of_a_message_is_in_dagsters_tables_or_files(
    locations: list[Location], runner: Runner, sandbox: Sandbox, dagster_url: URL, project: Settings
) -> None:
    sandbox.faults(locations[0].id, garbage_rate=0.5, seed=2)
    sandbox.faults(locations[1].id, missing_scopes=("conversations/message.readonly",))
    runner.run(tags=all_of(locations))
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
    assert any(ASSET in row for row in rows)
    assert [told for told in (*rows, *files) if "quorvath" in told] == []


def due(engine: Engine, instance: DagsterInstance) -> list[dg.RunRequest]:
    schedule = message_import_schedule(dg.DefaultScheduleStatus.STOPPED)
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=datetime(2026, 5, 4, 2, 15, tzinfo=UTC), resources={"engine": engine}
    )
    return list(schedule.evaluate_tick(context).run_requests or [])


def test_every_quarter_of_an_hour_all_locations_are_asked_for_in_few_runs(
    locations: list[Location], engine: Engine, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        deactivate_client(connection, locations[2].id)
    (request,) = due(engine, instance)
    assert request.run_config["ops"]["message_import"]["config"]["locations"] == [each.id for each in locations[:2]]
    assert request.run_key == "message_import-202605040215-0"
    monkeypatch.setattr(scheduled_runs, "LOCATIONS_PER_RUN", 1)
    assert [each.run_key for each in due(engine, instance)] == [
        "message_import-202605040215-0",
        "message_import-202605040215-1",
    ]


def test_without_active_clients_nothing_is_started(engine: Engine, instance: DagsterInstance) -> None:
    assert due(engine, instance) == []
