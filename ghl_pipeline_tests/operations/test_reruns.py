"""What failed, was stopped or never had its turn comes back by itself: the sensor, real runs, the sandbox as GHL."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.definitions import RERUNNABLES, build_defs
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.locations.clients import set_token
from ghl_pipeline.locations.opening import client_opener
from ghl_pipeline.operations.doctor import examine_locations
from ghl_pipeline.operations.sensors import RERUN_TAG, rerun_sensor
from ghl_pipeline.orchestration import asked_runs
from ghl_pipeline.orchestration.attempts import begin_attempt, record_refusal
from ghl_pipeline.orchestration.failures import FailedLocation
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import SampleAgency, SampleLocation
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.operations.test_choosing_reruns import Clinic

HYDRATED = dg.AssetKey("hydrated_leads")
STEPS = [dg.AssetKey(name) for name in ("eligible_leads", "resolved_contacts", "hydrated_leads")]


@pytest.fixture
def agency(engine: Engine, project: Settings, sandbox: Sandbox, instance: DagsterInstance) -> SampleAgency:
    """Three locations of 20 leads, with their partitions."""
    made = add_sample_agency(engine, project, sandbox, locations=3, leads=20)
    sync_partitions(instance, [location.id for location in made.locations])
    return made


class House:
    """Starts runs as the UI does and the sensor as the daemon does, which then starts what it asks for."""

    def __init__(self, engine: Engine, project: Settings, instance: DagsterInstance) -> None:
        self.engine, self.instance = engine, instance
        # One try a call: what fails has failed, and at once.
        quick = project.model_copy(update={"max_attempts": 1, "max_429_retries": 0})
        self.definitions = build_defs({"engine": engine, "hydration": build_hydration(quick, engine)})
        self.job = self.definitions.resolve_job_def("hydrate_leads")
        self._sensor = rerun_sensor(RERUNNABLES, [], dg.DefaultSensorStatus.STOPPED)
        self.clock = Clinic(engine)
        self.cursor: str | None = None
        self.said = ""

    def run(self, locations: Sequence[SampleLocation], **config: object) -> dg.ExecuteInProcessResult:
        return self._execute({"locations": [location.id for location in locations], **config}, {})

    def _execute(self, config: Mapping[str, object], tags: Mapping[str, str]) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            run_config={
                "ops": {"lead_hydration": {"config": dict(config)}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            tags=dict(tags),
            raise_on_error=False,
        )

    def look(self) -> list[dg.RunRequest]:
        """One tick; nothing is started."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources={"engine": self.engine})
        result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.said = str(result.skip_reason and result.skip_reason.skip_message)
        return list(result.run_requests or [])

    def tick(self, after: float = 0) -> list[str]:
        """One tick after so many seconds, with the runs that it starts; returns the locations asked for."""
        self._pass_time(after)
        asked: list[str] = []
        for request in self.look():
            assert request.tags[RERUN_TAG] == "true"
            assert request.job_name == "hydrate_leads"
            config: dict[str, Any] = request.run_config["ops"]["lead_hydration"]["config"]
            assert "fresh" not in config, "it goes on where it was"
            asked += config["locations"]
            self._execute(config | {"busy_wait_seconds": 0.0}, request.tags)
        return sorted(asked)

    def _pass_time(self, seconds: float) -> None:
        self.clock.pass_time(seconds)
        ago = "make_interval(secs => :seconds)"
        runs = (
            f"UPDATE runs SET create_timestamp = create_timestamp - {ago}, update_timestamp = update_timestamp - {ago}"
        )
        with self.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
            connection.execute(text(runs), {"seconds": seconds})

    def dead_run(
        self,
        locations: Sequence[SampleLocation],
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE,
        *,
        tags: Mapping[str, str] | None = None,
        **config: object,
    ) -> dg.DagsterRun:
        """A run that ended before it said anything."""
        run = self.instance.create_run_for_job(
            self.job,
            run_config={
                "ops": {"lead_hydration": {"config": {"locations": [each.id for each in locations], **config}}}
            },
            tags={"dagster/max_retries": "0", **(tags or {})},
            status=dg.DagsterRunStatus.STARTED,
        )
        self.end(run, status)
        return run

    def end(self, run: dg.DagsterRun, status: dg.DagsterRunStatus) -> None:
        if status is dg.DagsterRunStatus.FAILURE:
            self.instance.report_run_failed(run)
        else:
            self.instance.report_run_canceling(run)
            self.instance.report_run_canceled(run)

    def green(self) -> set[str]:
        return set(self.instance.get_materialized_partitions(HYDRATED))

    def standing(self, location: SampleLocation) -> dict[str, object]:
        return self.clock.standing(location.id)


@pytest.fixture
def house(engine: Engine, project: Settings, instance: DagsterInstance) -> House:
    return House(engine, project, instance)


def ids(locations: Sequence[SampleLocation]) -> list[str]:
    return sorted(location.id for location in locations)


def test_a_location_that_ghl_failed_comes_back_and_is_green(
    agency: SampleAgency, house: House, sandbox: Sandbox
) -> None:
    first, broken, last = agency.locations
    sandbox.faults(broken.id, error_rate=1.0)
    assert not house.run(agency.locations).success
    assert house.green() == {first.id, last.id}
    assert house.tick() == []
    assert "hydration: 1 wait after a failure, the next until" in house.said
    assert house.tick(after=130) == [broken.id]
    assert house.standing(broken)["failures"] == 2
    sandbox.faults(broken.id)
    assert house.tick(after=60) == [], "the second pause is longer"
    assert house.tick(after=180) == [broken.id]
    assert house.green() == {first.id, broken.id, last.id}
    assert (house.tick(after=9999), house.said) == ([], "nothing failed")


def test_many_that_fail_while_ghl_is_down_are_all_green_soon_after(
    house: House, engine: Engine, project: Settings, sandbox: Sandbox
) -> None:
    many = add_sample_agency(engine, project, sandbox, locations=30, leads=6, seed=7).locations
    sync_partitions(house.instance, [location.id for location in many])
    sandbox.faults(error_rate=1.0)
    house.run(many)
    sandbox.world.reset_statistics()
    asked = [len(house.tick(after=130)) for _ in range(3)]
    assert asked == [5, 2, 1]
    assert sum(sandbox.stats(location.id)["requests"] for location in many) <= 6 * sum(asked)
    assert house.tick() == []
    assert "wait for a few that find out whether GHL is back" in house.said
    sandbox.faults()
    again = [len(house.tick(after=61)), *(len(house.tick()) for _ in range(3))]
    assert again == [1, 4, 16, 9]
    assert house.green() == set(ids(many))


def test_a_revoked_token_is_told_once_and_taken_up_after_a_new_one(
    agency: SampleAgency, house: House, sandbox: Sandbox, project: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    location = agency.locations[0]
    house.tick()
    sandbox.faults(location.id, token_revoked=True)
    house.run(agency.locations)
    capfd.readouterr()
    assert house.tick(after=9999) == []
    assert "1 are held until somebody acts" in house.said
    told = capfd.readouterr().err
    assert (told.count("hydration is held"), told.count("clients set-token")) == (1, 1)
    assert house.tick(after=30) == []
    assert "is held" not in capfd.readouterr().err
    sandbox.faults(location.id)
    with house.engine.begin() as connection:
        set_token(connection, TokenCipher.from_settings(project), location.id, SecretStr(location.token))
    assert house.tick() == [location.id]
    assert house.green() == set(ids(agency.locations))
    assert (house.tick(), house.said) == ([], "nothing failed")


async def test_a_pass_of_the_doctor_takes_up_what_ghl_itself_put_right(
    agency: SampleAgency, house: House, sandbox: Sandbox, project: Settings
) -> None:
    location, *_ = agency.locations
    sandbox.faults(location.id, token_revoked=True)
    settings = project.model_copy(update={"max_attempts": 1})

    async def doctor() -> str:
        await examine_locations(
            [location.id],
            settings=settings,
            engine=house.engine,
            cipher=TokenCipher.from_settings(project),
            open_client=client_opener(settings, house.engine, interactive=True),
        )
        with house.engine.connect() as connection:
            query = text("SELECT state FROM location_attempts WHERE capability = 'doctor' ORDER BY id DESC LIMIT 1")
            return str(connection.execute(query).scalar_one())

    for capability, error_class in (
        ("hydration", "TokenRejected"), ("availability", "CalendlyAccessDenied"), ("conversations", "ScopeMissing"),
    ):  # fmt: skip
        refused = FailedLocation(location.id, error_class, "a text", permanent=True)
        record_refusal(house.engine, refused, None, capability)
    assert await doctor() == "failed"
    assert house.clock.counted("rerun_at IS NOT NULL") == 0
    sandbox.faults(location.id)
    assert await doctor() == "succeeded"
    assert house.standing(location)["rerun_at"] is not None
    assert house.clock.counted("rerun_at IS NOT NULL") == 1, "Calendly and the scope for messages were not tried"


def test_a_run_that_was_killed_before_a_locations_turn_is_taken_up(agency: SampleAgency, house: House) -> None:
    done, cut_short, never = agency.locations
    house.tick()
    run = house.instance.create_run_for_job(
        house.job,
        run_config={"ops": {"lead_hydration": {"config": {"locations": ids(agency.locations)}}}},
        tags={"dagster/max_retries": "0"},
        status=dg.DagsterRunStatus.STARTED,
    )
    house.clock.work(done.id)
    begin_attempt(house.engine, cut_short.id, run.run_id)
    assert house.tick() == [], "it may live"
    house.end(run, dg.DagsterRunStatus.FAILURE)
    assert house.tick() == []
    assert [house.standing(each)["state"] for each in agency.locations] == ["succeeded", "interrupted", "interrupted"]
    assert [house.standing(each)["failures"] for each in agency.locations] == [0, 1, 0]
    assert house.tick(after=130) == ids([cut_short, never])
    assert house.green() == {cut_short.id, never.id}
    assert house.tick(after=9999) == []


def test_new_leads_that_went_well_do_not_make_up_for_the_whole_that_failed(
    agency: SampleAgency, house: House, sandbox: Sandbox
) -> None:
    location = agency.locations[0]
    house.tick()
    sandbox.faults(location.id, error_rate=1.0)
    house.run([location])
    sandbox.faults(location.id)
    assert house.run([location], only_new=True).success
    assert house.tick(after=130) == [location.id]
    assert house.standing(location)["state"] == "succeeded"


def test_a_run_whose_end_came_to_light_after_that_of_a_later_one_is_taken_up(
    agency: SampleAgency, house: House
) -> None:
    late, *others = agency.locations
    house.tick()
    house.dead_run(others)
    house.tick()
    run = house.dead_run([late])
    with house.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        # By the clock of another host.
        earlier = "UPDATE runs SET update_timestamp = update_timestamp - interval '30 s' WHERE run_id = :id"
        connection.execute(text(earlier), {"id": run.run_id})
    house.tick()
    assert house.standing(late)["cause"] == "killed"
    assert house.tick(after=130) == ids(agency.locations)
    assert house.tick(after=9999) == [], "it was looked at more than once and asked for once"


def test_more_runs_than_a_look_takes_are_looked_at_in_the_next(
    agency: SampleAgency, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_runs, "RUNS_AT_ONCE", 1)
    house.tick()
    for location in agency.locations:
        house.dead_run([location])
    told = []
    for _ in agency.locations:
        house.tick()
        told.append(house.clock.counted("cause = 'killed'"))
    assert told == [1, 2, 3]


def test_a_run_that_dagster_starts_again_is_left_to_it_until_that_ends_too(agency: SampleAgency, house: House) -> None:
    location = agency.locations[0]
    first = house.dead_run([location], tags={"dagster/max_retries": "1"})
    assert house.tick() == []
    assert house.clock.counted("true") == 0, "the daemon will start it again"
    again = house.dead_run([location], tags={"dagster/root_run_id": first.run_id, "dagster/retry_number": "1"})
    house.instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": again.run_id})
    assert house.tick() == []
    assert house.tick(after=130) == [location.id]


def test_what_an_earlier_run_of_the_same_attempt_finished_is_not_asked_for_again(
    agency: SampleAgency, house: House
) -> None:
    done, open_one, _ = agency.locations
    house.tick()
    first = house.dead_run([done, open_one], tags={"dagster/max_retries": "1"})
    house.clock.work(done.id)
    again = house.dead_run([done, open_one], tags={"dagster/root_run_id": first.run_id, "dagster/retry_number": "1"})
    house.instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": again.run_id})
    house.tick()
    assert house.tick(after=130) == [open_one.id]


def test_what_a_person_stopped_waits_longer_and_says_so(agency: SampleAgency, house: House) -> None:
    cut_short, never, _ = agency.locations
    house.tick()
    run = house.instance.create_run_for_job(
        house.job,
        run_config={"ops": {"lead_hydration": {"config": {"locations": ids([cut_short, never])}}}},
        status=dg.DagsterRunStatus.STARTED,
    )
    begin_attempt(house.engine, cut_short.id, run.run_id)
    house.end(run, dg.DagsterRunStatus.CANCELED)
    assert house.tick() == []
    assert "hydration: 2 wait because a person stopped them" in house.said
    assert "was stopped by a person before its turn came" in str(house.standing(never)["error_text"])
    assert house.tick(after=3500) == []
    assert house.tick(after=800) == ids([cut_short, never])


# Dagster's own call of what it has deprecated.
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`")
def test_a_backfill_that_was_canceled_before_its_runs_began_is_taken_up(agency: SampleAgency, house: House) -> None:
    house.tick()
    store = house.instance
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="a-backfill",
        asset_graph=house.definitions.resolve_asset_graph(),
        partition_names=ids(agency.locations[:2]),
        asset_selection=STEPS,
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=store,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    store.add_backfill(backfill)
    stored = store.get_backfill("a-backfill")
    assert stored is not None
    location = agency.locations[0]
    house.clock.work(location.id, None)
    house.clock.all_fail([location.id])
    assert house.tick(after=130) == [], "the backfill will ask for it in a moment"
    store.update_backfill(stored.with_status(BulkActionStatus.CANCELED))  # type: ignore[no-untyped-call] # there
    house.clock.work(location.id)
    assert house.tick() == []
    assert house.standing(agency.locations[1])["cause"] == "stopped"
    assert house.tick(after=4300) == [agency.locations[1].id]
    assert house.tick(after=4300) == []


@pytest.mark.parametrize("option", [{"dry_run": True}, {"max_leads": 5}], ids=str)
def test_what_somebody_only_tried_out_is_not_repeated_in_earnest(
    agency: SampleAgency, house: House, sandbox: Sandbox, option: dict[str, Any]
) -> None:
    house.tick()
    sandbox.faults(error_rate=1.0)
    assert not house.run(agency.locations[:1], **option).success
    house.dead_run(agency.locations[1:], **option)
    sandbox.faults()
    assert house.tick(after=9999) == []
    assert house.clock.counted("true") == 0


def test_a_location_of_a_deactivated_client_is_not_asked_for(agency: SampleAgency, house: House) -> None:
    gone, open_one, _ = agency.locations
    house.tick()
    house.dead_run([gone, open_one])
    with house.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET active = false WHERE location_id = :id"), {"id": gone.id})
    house.tick()
    assert house.tick(after=130) == [open_one.id]


def test_a_run_that_dagster_has_forgotten_leaves_nothing_running_for_ever(agency: SampleAgency, house: House) -> None:
    location = agency.locations[0]
    run = house.instance.create_run_for_job(house.job, status=dg.DagsterRunStatus.STARTED)
    begin_attempt(house.engine, location.id, run.run_id)
    house.tick()
    assert house.standing(location)["state"] == "running"
    house.instance.delete_run(run.run_id)
    house.tick()
    assert house.standing(location)["state"] == "interrupted"
    assert house.tick(after=130) == [location.id]


def test_the_first_look_ever_does_not_dig_up_the_past(agency: SampleAgency, house: House) -> None:
    run = house.dead_run(agency.locations)
    with house.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.execute(
            text("UPDATE runs SET update_timestamp = :then WHERE run_id = :id"),
            {"then": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None), "id": run.run_id},
        )
    house.tick()
    assert house.clock.counted("true") == 0
