"""The asset of free times as Dagster runs it, its checks, its schedule, and what is nowhere to be read."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from ghl_pipeline.availability.assets import SPEC, availability_refresh
from ghl_pipeline.availability.build import build_availability
from ghl_pipeline.availability.checks import evaluate
from ghl_pipeline.availability.client_calendars import set_calendar
from ghl_pipeline.availability.jobs import refresh_availability
from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.locations.clients import add_client, deactivate_client
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.privacy import redaction
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.availability.conftest import WIDGET
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

ASSET = "availability_slots"
CANARY = "quorvath"
LINK = f"{WIDGET}/bookings/{CANARY}-roof"


@pytest.fixture
def settings(project: Settings, sandbox: Sandbox) -> Settings:
    return project.model_copy(update={"calendly_api_url": f"{sandbox.url}/_calendly"})


@pytest.fixture
def locations(engine: Engine, settings: Settings, sandbox: Sandbox, instance: DagsterInstance) -> list[Location]:
    """Three clients with a calendar, a fourth without, and their partitions."""
    cipher = TokenCipher.from_settings(settings)
    made = [sandbox.add_location() for _ in range(4)]
    with engine.begin() as connection:
        for number, location in enumerate(made):
            location.calendars.add("Roof", widget_slug=f"{CANARY}-roof")
            token = SecretStr(location.token)
            add_client(connection, cipher, name=f"Client {number}", location_id=location.id, token=token)
            if number < 3:
                set_calendar(connection, cipher, location.id, link=LINK)
    sync_partitions(instance, [location.id for location in made])
    return made


class Runner:
    """Starts the job as the UI or the schedule would, and reads the history."""

    def __init__(self, engine: Engine, settings: Settings, instance: DagsterInstance) -> None:
        self.instance = instance
        redaction.install()
        definitions = dg.Definitions(
            assets=[availability_refresh],
            jobs=[refresh_availability],
            resources={"engine": engine, "availability": build_availability(settings, engine)},
        )
        self._job = definitions.resolve_job_def("refresh_availability")

    def run(self, *, tags: Mapping[str, str] | None = None, **config: object) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            run_config={
                "ops": {"availability_refresh": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def materializations(self, location: Location) -> list[Mapping[str, object]]:
        records = self.instance.fetch_materializations(_of(location), limit=100).records
        return [_plain(r.asset_materialization.metadata) for r in records if r.asset_materialization]

    def observations(self, location: Location) -> list[Mapping[str, object]]:
        records = self.instance.fetch_observations(_of(location), limit=100).records
        events = [record.event_log_entry.asset_observation for record in records]
        return [_plain(event.metadata) for event in events if event]


def _of(location: Location) -> dg.AssetRecordsFilter:
    return dg.AssetRecordsFilter(asset_key=dg.AssetKey(ASSET), asset_partitions=[location.id])


def _plain(metadata: Mapping[str, dg.MetadataValue]) -> Mapping[str, object]:
    return {name: value.value for name, value in metadata.items()}


@pytest.fixture
def runner(engine: Engine, settings: Settings, instance: DagsterInstance) -> Runner:
    return Runner(engine, settings, instance)


def all_of(locations: list[Location]) -> dict[str, str]:
    return {
        "dagster/asset_partition_range_start": locations[0].id,
        "dagster/asset_partition_range_end": locations[-1].id,
    }


def test_the_asset_says_what_it_is() -> None:
    assert (SPEC.key, SPEC.group_name, list(SPEC.owners)) == (dg.AssetKey(ASSET), "availability", ["team:revops"])
    assert "Grain:" in (SPEC.description or "")
    assert "Unit" in (SPEC.description or "")
    assert SPEC.partitions_def is not None


def test_every_partition_has_its_event_also_one_without_a_calendar(locations: list[Location], runner: Runner) -> None:
    assert runner.run(tags=all_of(locations)).success
    for location in locations[:3]:
        (values,) = runner.materializations(location)
        assert (values["state"], values["resolved_by"], values["requests"]) == ("fresh", "slug", 3)
        assert isinstance(values["slots"], int)
        assert values["slots"] > 100
    (values,) = runner.materializations(locations[3])
    assert "no calendar" in str(values["skipped"])


def test_a_provider_that_fails_is_named_and_its_state_is_seen_and_stops_no_other(
    locations: list[Location], runner: Runner, sandbox: Sandbox
) -> None:
    first, broken, last, _ = locations
    sandbox.faults(broken.id, token_revoked=True)
    result = runner.run(tags=all_of(locations))
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "1 of 4 locations failed" in str(data.description)
    named = data.metadata["failed_locations"].value
    assert isinstance(named, dict)
    assert named[broken.id]["error"] == "TokenRejected"
    assert [len(runner.materializations(each)) for each in (first, broken, last)] == [1, 0, 1]
    (seen,) = runner.observations(broken)
    assert (seen["state"], seen["reason"]) == ("stale", "token_refused")
    assert "set-token" in str(seen["reason_in_words"])
    evaluations = {event.check_name: event.passed for event in result.get_asset_check_evaluations()}
    assert evaluations == {
        "slots_long_stale": True, "calendars_wait_for_somebody": False, "links_unsupported": True,
    }  # fmt: skip


def test_the_checks_name_whose_times_are_old_and_whose_link_cannot_be_used(
    locations: list[Location], engine: Engine, runner: Runner, settings: Settings
) -> None:
    old, wrong, off, _ = locations

    def as_of(ago: str | None, column: str = "refreshed_at") -> dict[str, dg.AssetCheckResult]:
        with engine.begin() as connection:
            connection.execute(
                text(f"UPDATE booking_calendars SET {column} = now() - CAST(:ago AS interval)"), {"ago": ago}
            )
        return {str(each.check_name): each for each in evaluate(engine)}

    assert runner.run(locations=[location.id for location in locations[:3]]).success
    with engine.begin() as connection:
        set_calendar(connection, TokenCipher.from_settings(settings), wrong.id, link="https://calendly.com/d/abc/intro")
    assert runner.run(locations=[wrong.id]).success
    assert [each.passed for each in as_of("110 minutes").values()] == [True, True, False]
    # Whatever the state says: one that is always left to other runs is called fresh for ever.
    warned = as_of("130 minutes")["slots_long_stale"]
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"2 of 3 have free times that are older than two hours, first {old.id}: no run" in str(warned.description)
    with engine.begin() as connection:
        deactivate_client(connection, off.id)
    failed = as_of("25 hours")["slots_long_stale"]
    assert (failed.passed, failed.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert f"1 of 2 have free times that are older than a day, first {old.id}" in str(failed.description)
    unsupported = as_of("1 minute")["links_unsupported"]
    assert "single booking" in str(unsupported.description)
    assert wrong.id in str(unsupported.metadata["worst"].value)
    as_of(None)
    assert as_of("3 hours", "created_at")["slots_long_stale"].severity is dg.AssetCheckSeverity.WARN
    assert as_of("3 days", "created_at")["slots_long_stale"].severity is dg.AssetCheckSeverity.ERROR


def test_a_calendar_that_waits_for_somebody_warns_at_once(
    locations: list[Location], engine: Engine, runner: Runner
) -> None:
    moved, late, _, _ = locations
    with engine.begin() as connection:
        connection.execute(text("UPDATE booking_calendars SET tried_at = now(), refreshed_at = now()"))
        for location, reason in ((moved, "link_not_found"), (late, "timeout")):
            connection.execute(
                text("""
                    UPDATE booking_calendars SET state = 'stale', stale_since = now(), reason = :reason FROM clients
                    WHERE clients.id = client_id AND location_id = :id
                """),
                {"id": location.id, "reason": reason},
            )
    check = {each.check_name: each for each in evaluate(engine)}["calendars_wait_for_somebody"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"1 of 3 have a calendar that waits for somebody, first {moved.id}: the booking link" in str(
        check.description
    )


def test_of_a_backfill_a_busy_partition_is_skipped_and_one_that_was_not_reached_is_a_failure(
    locations: list[Location], engine: Engine, runner: Runner, settings: Settings, instance: DagsterInstance
) -> None:
    busy = locations[0]
    with AdvisoryLocks(engine).hold(f"availability of location {busy.id}") as held:
        assert held
        assert runner.run(tags=all_of(locations)).success
    (values,) = runner.materializations(busy)
    assert "another run" in str(values["skipped"])

    rushed = Runner(engine, settings.model_copy(update={"availability_run_seconds": 1e-9}), instance)
    assert rushed.run(locations=[busy.id]).success, "the schedule's next run begins with it"
    result = rushed.run(tags=all_of(locations))
    failure = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "4 were not reached" in str(data.description)
    unreached = data.metadata["not_reached"].value
    assert isinstance(unreached, list)
    assert sorted(unreached) == sorted(each.id for each in locations)
    assert len(runner.materializations(busy)) == 1


def test_a_run_of_neither_partitions_nor_locations_fails_and_looks_at_none(
    locations: list[Location], engine: Engine, runner: Runner
) -> None:
    """As one that succeeded it would look as if there was nothing to do anywhere."""
    assert not runner.run().success
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM location_attempts")).scalar_one() == 0


def test_no_link_and_no_token_is_in_dagsters_tables_files_or_logs(
    locations: list[Location],
    engine: Engine,
    runner: Runner,
    sandbox: Sandbox,
    dagster_url: URL,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cipher = TokenCipher.from_settings(settings)
    host = sandbox.world.calendly.add(f"{CANARY}-host", token=f"eyJ{CANARY}0123456789abcdef0123456789abcdef")
    host.add_event_type("Intro")
    with engine.begin() as connection:
        link = f"https://calendly.com/{host.slug}/intro"
        for location in locations[1:3]:
            set_calendar(connection, cipher, location.id, link=link, calendly_token=SecretStr(host.token))
        set_calendar(connection, cipher, locations[3].id, link=f"https://{CANARY}.example.com/book")
    runner.run(tags=all_of(locations))
    for faults in ({"error_rate": 1.0}, {"garbage_rate": 1.0}, {"token_revoked": True}, {"drop_rate": 1.0}):
        sandbox.faults(locations[0].id, **faults)
        sandbox.faults(host.faults_key, **faults)
        runner.run(tags=all_of(locations))
    storage = sqlalchemy.create_engine(dagster_url.set(drivername="postgresql+psycopg"))
    try:
        rows = _rows(storage)
    finally:
        storage.dispose()
    with engine.connect() as connection:
        attempts = list(connection.execute(text("SELECT a::text FROM location_attempts AS a")).scalars())
    files = [path.read_text(errors="replace") for path in Path(settings.home).rglob("*") if path.is_file()]
    assert any(ASSET in row for row in rows)
    assert any("failed" in row for row in attempts)
    assert [told for told in (*rows, *attempts, *files, caplog.text) if CANARY in told] == []


def _rows(storage: Engine) -> list[str]:
    with storage.connect() as connection:
        names = connection.execute(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        ).scalars()
        return [
            row for name in names.all() for row in connection.execute(text(f'SELECT r::text FROM "{name}" r')).scalars()
        ]
