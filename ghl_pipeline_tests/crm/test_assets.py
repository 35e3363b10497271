"""The CRM's assets as Dagster runs them: events by partition, failures by name, checks after every run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from ghl_pipeline.crm.assets import SPECS
from ghl_pipeline.crm.build import build_crm
from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.crm.crm import ASSETS
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.marketplace import Marketplace, marketplace
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

VENDORS, LEADS = 12, 16


@dataclass(frozen=True)
class Market:
    """A location of the sandbox, and who is there."""

    ghl: Location
    people: Marketplace

    @property
    def id(self) -> str:
        return self.ghl.id


@pytest.fixture
def locations(engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance) -> list[Market]:
    """Three clients that are switched on, each with a marketplace of which one vendor and one lead are known."""
    made = []
    cipher = TokenCipher.from_settings(project)
    for number in range(3):
        location = sandbox.add_location(requests=10_000)
        people = marketplace(location, vendors=VENDORS, leads=LEADS, seed=number)
        with engine.begin() as connection:
            client = add_client(
                connection, cipher, name=f"Client {number}", location_id=location.id, token=SecretStr(location.token)
            )
            set_crm(connection, location.id, enabled=True)
            known = {"client": client.id, "vendor": people.vendors[0].contact.id, "lead": people.leads[0].contact.id}
            connection.execute(
                text("INSERT INTO vendors (client_id, ghl_contact_id) VALUES (:client, :vendor)"), known
            )  # fmt: skip
            connection.execute(text("INSERT INTO leads (client_id, ghl_contact_id) VALUES (:client, :lead)"), known)
        made.append(Market(location, people))
    sync_partitions(instance, [location.id for location in made])
    return made


class Runner:
    """Starts the job as the UI or a schedule would, and reads the history."""

    def __init__(self, engine: Engine, project: Settings, instance: DagsterInstance) -> None:
        self.engine = engine
        self.instance = instance
        self._job = build_defs({"engine": engine, "crm": build_crm(project, engine)}).resolve_job_def("sync_crm")

    def run(self, *, tags: Mapping[str, str] | None = None, **config: object) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            run_config={
                "ops": {"crm_sync": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def told(self, asset: str, location: Market) -> list[Mapping[str, object]]:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[location.id])
        records = self.instance.fetch_materializations(wanted, limit=100).records
        return [
            {name: value.value for name, value in record.asset_materialization.metadata.items()}
            for record in records
            if record.asset_materialization
        ]

    def events(self, location: Market) -> list[int]:
        return [len(self.told(asset, location)) for asset in ASSETS]

    def observed(self, asset: str) -> int:
        return len(self.instance.fetch_observations(dg.AssetKey(asset), limit=100).records)

    def rows(self) -> list[tuple[object, ...]]:
        with self.engine.connect() as connection:
            return [
                tuple(row)
                for table in ("vendors", "leads", "crm_lookups")
                for row in connection.execute(text(f"SELECT t::text FROM {table} AS t ORDER BY 1"))
            ]


@pytest.fixture
def runner(engine: Engine, project: Settings, instance: DagsterInstance) -> Runner:
    return Runner(engine, project, instance)


def all_of(locations: list[Market]) -> dict[str, str]:
    return {
        "dagster/asset_partition_range_start": locations[0].id,
        "dagster/asset_partition_range_end": locations[-1].id,
    }


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def test_the_assets_say_what_they_are() -> None:
    assert [spec.key.to_user_string() for spec in SPECS] == list(ASSETS)
    for spec in SPECS:
        assert (spec.group_name, list(spec.owners)) == ("crm", ["team:revops"])
        assert spec.kinds
        assert "Grain:" in (spec.description or "")
        assert "Unit" in (spec.description or "")
        assert spec.partitions_def is not None


def test_every_location_is_told_once_for_each_asset_and_a_second_run_changes_nothing(
    locations: list[Market], runner: Runner, sandbox: Sandbox
) -> None:
    result = runner.run(tags=all_of(locations))
    assert result.success
    for location in locations:
        ((contacts,), (vendors,), (leads,)) = (runner.told(asset, location) for asset in ASSETS)
        assert contacts["attempt"] == result.run_id
        assert contacts["mode"] == "full"
        assert vendors["vendors_created"] == VENDORS - 1
        assert leads["leads_created"] == sum(lead.is_new for lead in location.people.leads[1:])
        assert contacts["requests"] == sandbox.stats(location.id)["requests"]
    before = runner.rows()
    assert runner.run(tags=all_of(locations)).success
    assert runner.rows() == before
    assert [runner.told("crm_vendors", location)[0]["vendors_updated"] for location in locations] == [0, 0, 0]


def test_a_location_that_fails_is_named_and_stops_no_other(
    locations: list[Market], runner: Runner, sandbox: Sandbox
) -> None:
    first, broken, last = locations
    sandbox.faults(broken.id, token_revoked=True)
    result = runner.run(tags=all_of(locations))
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "1 of 3 locations failed" in str(data.description)
    named = data.metadata["failed_locations"].value
    assert isinstance(named, dict)
    assert [*named, named[broken.id]["error"]] == [broken.id, "TokenRejected"]
    assert [runner.events(each) for each in (first, broken, last)] == [[1] * 3, [0] * 3, [1] * 3]
    assert len(checks_of(result)) == 4, "the checks speak after a failure, too"


def test_a_partition_that_is_not_switched_on_gets_its_events_and_costs_nothing(
    locations: list[Market], runner: Runner, engine: Engine, sandbox: Sandbox
) -> None:
    with engine.begin() as connection:
        set_crm(connection, locations[1].id, enabled=False)
    assert runner.run(tags=all_of(locations)).success
    assert [runner.events(each) for each in locations] == [[1] * 3] * 3
    (told,) = runner.told("crm_vendors", locations[1])
    assert f"clients set-crm {locations[1].id} --on" in str(told["skipped"])
    assert (told["vendors_created"], told["requests"]) == (0, 0)
    assert sandbox.stats(locations[1].id)["requests"] == 0
    with engine.connect() as connection:
        tried = set(connection.execute(text("SELECT location_id FROM location_attempts")).scalars())
    assert tried == {locations[0].id, locations[2].id}


def test_a_partition_of_a_deactivated_client_gets_its_events_and_costs_nothing(
    locations: list[Market], runner: Runner, engine: Engine, sandbox: Sandbox
) -> None:
    with engine.begin() as connection:
        deactivate_client(connection, locations[1].id)
    assert runner.run(tags=all_of(locations)).success
    assert [runner.events(each) for each in locations] == [[1] * 3] * 3
    (told,) = runner.told("crm_leads", locations[1])
    assert f"clients reactivate {locations[1].id}" in str(told["skipped"])
    assert sandbox.stats(locations[1].id)["requests"] == 0


def test_a_partition_that_another_run_is_at_gets_its_events_and_is_done_by_a_retry(
    locations: list[Market], runner: Runner, engine: Engine
) -> None:
    with AdvisoryLocks(engine).hold(f"crm of location {locations[1].id}") as held:
        assert held
        first = runner.run(tags=all_of(locations))
    assert first.success
    assert [runner.events(each) for each in locations] == [[1] * 3] * 3
    (told,) = runner.told("crm_vendors", locations[1])
    assert ("another run" in str(told["skipped"]), told["vendors_created"], told["requests"]) == (True, 0, 0)
    retry = {**all_of(locations), "dagster/root_run_id": first.run_id, "dagster/retry_number": "1"}
    assert runner.run(tags=retry).success
    assert runner.told("crm_vendors", locations[1])[0]["vendors_created"] == VENDORS - 1
    assert [runner.events(each) for each in locations] == [[1] * 3, [2] * 3, [1] * 3]


def test_a_run_for_no_location_fails_and_says_how_to_name_some(locations: list[Market], runner: Runner) -> None:
    result = runner.run()
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "launch it for partitions" in str(data.description)


def test_one_that_is_named_and_is_not_switched_on_is_a_failure(
    locations: list[Market], runner: Runner, engine: Engine
) -> None:
    with engine.begin() as connection:
        set_crm(connection, locations[1].id, enabled=False)
    result = runner.run(locations=[locations[1].id])
    assert not result.success
    assert runner.events(locations[1]) == [0, 0, 0]


def test_a_dry_run_writes_nothing_and_materializes_nothing_but_tells(locations: list[Market], runner: Runner) -> None:
    before = runner.rows()
    assert runner.run(tags=all_of(locations), dry_run=True).success
    assert runner.rows() == before
    assert [runner.events(location) for location in locations] == [[0] * 3] * 3
    assert [runner.observed(asset) for asset in ASSETS] == [3, 3, 3]


def test_too_many_missing_stop_the_location_and_show_in_the_checks_until_somebody_says_yes(
    locations: list[Market], runner: Runner
) -> None:
    first = checks_of(runner.run(tags=all_of(locations)))
    assert (first["vendors_missing"], first["leads_missing"]) == (True, True)
    assert not first["coverage_unreadable"], "some of the marketplace's cannot be"
    place = locations[0]
    for contact in place.people.contacts:
        place.ghl.remove(contact.id)
    before = runner.rows()
    stopped = runner.run(locations=[place.id], full=True)
    assert not stopped.success
    assert runner.rows() == before
    assert not checks_of(stopped)["vendors_missing"]
    # A pass by changes sees nobody who is gone; it ends well, and says nothing of them.
    assert not checks_of(runner.run(locations=[place.id]))["vendors_missing"]
    (evaluation,) = (each for each in stopped.get_asset_check_evaluations() if each.check_name == "vendors_missing")
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    table = evaluation.metadata["worst"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["location"] for record in table.records] == [place.id]
    assert runner.run(locations=[place.id], full=True, accept_missing=True).success
    assert runner.told("crm_vendors", place)[0]["vendors_missing_in_ghl"] == VENDORS


def test_a_run_that_stopped_for_the_vendors_is_no_error_of_the_leads(locations: list[Market], runner: Runner) -> None:
    place = locations[0]
    runner.run(locations=[place.id])
    for vendor in place.people.vendors:
        place.ghl.remove(vendor.contact.id)
    stopped = runner.run(locations=[place.id], full=True)
    assert not stopped.success
    checks = checks_of(stopped)
    assert (checks["vendors_missing"], checks["leads_missing"]) == (False, True)


def test_the_retry_of_a_crashed_run_leaves_out_what_was_done(
    locations: list[Market], runner: Runner, sandbox: Sandbox
) -> None:
    broken = locations[1]
    sandbox.faults(broken.id, token_revoked=True)
    first = runner.run(tags=all_of(locations))
    sandbox.faults()
    sandbox.world.reset_statistics()
    again = runner.run(tags={**all_of(locations), "dagster/root_run_id": first.run_id, "dagster/retry_number": "1"})
    assert again.success
    assert [sandbox.stats(location.id)["requests"] > 0 for location in locations] == [False, True, False]


def test_a_location_that_another_run_is_at_is_no_failure(
    locations: list[Market], runner: Runner, engine: Engine
) -> None:
    with AdvisoryLocks(engine).hold(f"crm of location {locations[1].id}") as held:
        assert held
        result = runner.run(locations=[location.id for location in locations])
    assert result.success
    assert [runner.events(location) for location in locations] == [[1] * 3, [0] * 3, [1] * 3]


def test_nobody_is_in_dagsters_tables_or_files(
    locations: list[Market], runner: Runner, sandbox: Sandbox, dagster_url: URL, project: Settings
) -> None:
    for location in locations:
        location.ghl.add(
            email="zyxwinda@example.com", first_name="Quorvath", tags=("new vendor",), phone="(305) 555-0187"
        )
    sandbox.faults(locations[0].id, garbage_rate=0.3, seed=2)
    sandbox.faults(locations[1].id, missing_scopes=("locations/customFields.readonly", "users.readonly"))
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
    assert any("crm_vendors" in row for row in rows)
    said = " ".join((*rows, *files)).lower()
    assert [word for word in ("quorvath", "zyxwinda", "5550187", "555-0187") if word in said] == []
