"""Events without a person: the sensor, the run it asks for, the hourly looks, and that none of it says who."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._utils.tags import TagConcurrencyLimitsCounter
from sqlalchemy import URL, Engine, create_engine, text

from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.locations.clients import deactivate_client
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.build import build_event_handling
from ghl_pipeline.webhooks.handling import many_inboxes
from ghl_pipeline.webhooks.handling.many_inboxes import handle_inboxes
from ghl_pipeline.webhooks.inbox.claims import HANDLING
from ghl_pipeline.webhooks.schedules import changed_contacts_schedule, reconcile_schedule
from ghl_pipeline.webhooks.sensors import webhook_inbox_sensor
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.handling_tools import Inbox, bison, contact_deleted, sms


@pytest.fixture
def place(agency: Agency, project: Settings) -> Place:
    agency.cipher = agency.cipher.from_settings(project)
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


def tick(engine: Engine, instance: DagsterInstance) -> dg.RunRequest | None:
    sensor = webhook_inbox_sensor(dg.DefaultSensorStatus.STOPPED)
    result = sensor(dg.build_sensor_context(instance=instance, resources={"engine": engine}))
    return result if isinstance(result, dg.RunRequest) else None


def locations_of(request: dg.RunRequest | None) -> list[str]:
    assert request is not None
    found: list[str] = request.run_config["ops"]["event_handling"]["config"]["locations"]
    return found


def start(instance: DagsterInstance, request: dg.RunRequest) -> dg.DagsterRun:
    """The run as it is while its process starts."""
    return instance.create_run_for_job(
        build_defs().resolve_job_def("handle_events"),
        run_config=dict(request.run_config),
        tags=dict(request.tags),
        status=dg.DagsterRunStatus.STARTING,
    )


def run(instance: DagsterInstance, locations: list[str]) -> dg.ExecuteInProcessResult:
    return build_defs().resolve_job_def("handle_events").execute_in_process(
        instance=instance,
        run_config={"ops": {"event_handling": {"config": {"locations": locations, "linger_seconds": 0.0}}}},
        raise_on_error=False,
    )  # fmt: skip


def test_an_idle_inbox_asks_for_nothing(engine: Engine, instance: DagsterInstance, place: Place) -> None:
    assert tick(engine, instance) is None


def test_a_burst_is_one_urgent_run_for_all_its_locations(
    agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox
) -> None:
    other, idle = agency.place("Other"), agency.place("Idle")
    inbox.deliver(place, *(sms(place, "A" * 20) for _ in range(10)))
    inbox.deliver(other, sms(other, "B" * 20))
    request = tick(agency.engine, instance)
    assert locations_of(request) == [place.id, other.id]
    assert request is not None
    assert request.tags["dagster/priority"] == "10"
    start(instance, request)
    inbox.deliver(place, sms(place, "A" * 20))
    assert tick(agency.engine, instance) is None, "the run that is about to start will see it"
    inbox.deliver(idle, sms(idle, "C" * 20))
    assert locations_of(tick(agency.engine, instance)) == [idle.id]


def test_a_location_that_its_run_is_done_with_is_asked_for_again(
    agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox
) -> None:
    """Another location may keep the run alive for minutes."""
    inbox.deliver(place, sms(place, "A" * 20))
    request = tick(agency.engine, instance)
    assert request is not None
    started = start(instance, request)
    agency.sql(
        """INSERT INTO location_attempts (location_id, capability, run_id, state, ended_at)
           VALUES (:place, 'webhooks', :run, 'succeeded', now())""",
        place=place.id, run=started.run_id,
    )  # fmt: skip
    assert locations_of(tick(agency.engine, instance)) == [place.id]


def test_a_run_handles_events_and_tells_it_of_their_locations_only(
    agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox
) -> None:
    quiet = agency.place("Quiet")
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    inbox.deliver(place, sms(place, contact.id), contact_deleted(place, "D" * 20))
    assert run(instance, [place.id, quiet.id]).success
    assert agency.rows()[0]["first_name"] == "Ada"
    (record,) = instance.fetch_materializations(dg.AssetKey("handled_events"), limit=10).records
    event = record.asset_materialization
    assert event is not None
    assert event.partition == place.id
    told = {name: value.value for name, value in event.metadata.items()}
    assert (told["events_handled"], told["lead_updated"], told["no_lead"], told["dead_letters"]) == (2, 1, 1, 0)
    assert told["requests"] == 1
    assert tick(agency.engine, instance) is None


def test_a_backfill_turns_every_partition_green_that_did_not_fail(
    agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox
) -> None:
    """Dagster counts a partition without an event as failed, and nothing to do is no failure."""
    places = [place, agency.place("Idle"), agency.place("Busy"), agency.place("Broken")]
    for each in (place, places[3]):
        inbox.deliver(each, sms(each, "A" * 20))
    agency.sandbox.faults(places[3].id, token_revoked=True)
    sync_partitions(instance, [each.id for each in places])
    tags = {
        "dagster/backfill": "all",
        "dagster/asset_partition_range_start": places[0].id,
        "dagster/asset_partition_range_end": places[3].id,
    }
    defs = build_defs()
    with AdvisoryLocks(agency.engine).hold(f"{HANDLING} of location {places[2].id}") as held:
        assert held
        handled = defs.resolve_job_def("handle_events").execute_in_process(
            instance=instance, tags=tags, raise_on_error=False,
            run_config={"ops": {"event_handling": {"config": {"linger_seconds": 0.0}}}},
        )  # fmt: skip
    assert not handled.success
    asset = dg.AssetKey("handled_events")
    assert instance.get_materialized_partitions(asset) == {each.id for each in places[:3]}
    counts = {
        event.partition: event.metadata["events_handled"].value
        for record in instance.fetch_materializations(asset, limit=10).records
        if (event := record.asset_materialization)
    }
    assert counts == {places[0].id: 1, places[1].id: 0, places[2].id: 0}
    reconciled = defs.resolve_job_def("reconcile_events").execute_in_process(instance=instance, tags=tags)
    assert reconciled.success
    records = instance.fetch_materializations(dg.AssetKey("reconciled_events"), limit=10).records
    told = [record.asset_materialization for record in records if record.asset_materialization]
    assert {event.partition for event in told} == {each.id for each in places}
    assert {event.metadata["skipped"].value for event in told} == {"the client has no EmailBison workspace"}


def test_a_location_that_fails_is_named_and_stops_no_other(
    agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox
) -> None:
    other = agency.place("Other")
    contact = other.ghl.add(email="ada@example.com", first_name="Ada")
    agency.sandbox.faults(place.id, token_revoked=True)
    inbox.deliver(place, sms(place, "A" * 20))
    inbox.deliver(other, sms(other, contact.id))
    result = run(instance, [place.id, other.id])
    assert not result.success
    assert inbox.outcomes() == ["pending", "lead_updated"]
    (attempt,) = [row for row in agency.table("location_attempts") if row["state"] == "failed"]
    assert (attempt["location_id"], attempt["capability"], attempt["error_class"]) == (
        place.id, "webhooks", "TokenRejected"
    )  # fmt: skip
    inbox.deliver(place, sms(place, "A" * 20))
    assert tick(agency.engine, instance) is None, "a refused token is not tried with every new event"


def test_a_location_without_a_token_is_handled_as_far_as_that_goes_and_starts_no_run_for_each_event(
    agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox
) -> None:
    tokenless = agency.place("Tokenless", token=None)
    inbox.deliver(tokenless, bison("LEAD_REPLIED"))
    inbox.deliver(tokenless, bison("LEAD_UNSUBSCRIBED", reply_id=None))
    assert locations_of(tick(agency.engine, instance)) == [tokenless.id]
    assert not run(instance, [tokenless.id]).success
    assert inbox.outcomes() == ["pending", "lead_updated"]
    assert agency.rows()[0]["opted_out_at"] is not None
    inbox.deliver(tokenless, sms(tokenless, "A" * 20))
    assert tick(agency.engine, instance) is None, "it rests"
    agency.sql("UPDATE location_attempts SET ended_at = now() - interval '11 minutes'")
    assert locations_of(tick(agency.engine, instance)) == [tokenless.id]
    assert not run(instance, [tokenless.id]).success
    agency.sql("UPDATE location_attempts SET ended_at = now() - interval '11 minutes'")
    inbox.make_due()
    assert tick(agency.engine, instance) is None, "what is left needs the token"


async def test_a_run_lingers_for_what_comes_after(
    agency: Agency, project: Settings, place: Place, inbox: Inbox
) -> None:
    class Late:
        """Delivers one more message when the first was handled."""

        def __init__(self) -> None:
            self.inner = build_event_handling(project, agency.engine)
            self.engine = agency.engine
            self.rounds = 0

        async def handle_location(self, location_id: str) -> object:
            report = await self.inner.handle_location(location_id)
            self.rounds += 1
            if self.rounds == 1:
                inbox.deliver(place, contact_deleted(place, "E" * 20))
            return report

    inbox.deliver(place, contact_deleted(place, "D" * 20))
    late = Late()
    result = await handle_inboxes(late, [place.id], linger_seconds=1.5)  # type: ignore[arg-type]
    assert result.reports[place.id].handled == 2
    assert late.rounds >= 2


async def test_a_run_stops_lingering_when_others_wait(
    agency: Agency, project: Settings, place: Place, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few runs linger at a time, and one location that writes every few seconds would keep its place for minutes."""
    monkeypatch.setattr(many_inboxes, "LOOK_FOR_OTHERS_SECONDS", 0.2)
    other = agency.place("Other")
    inbox.deliver(place, contact_deleted(place, "D" * 20))
    inbox.deliver(other, contact_deleted(other, "D" * 20))
    handling = build_event_handling(project, agency.engine)
    async with asyncio.timeout(20):
        result = await handle_inboxes(handling, [place.id], linger_seconds=3600.0)
    assert (result.reports[place.id].handled, inbox.outcomes()) == (1, ["no_lead", "pending"])


def test_every_hour_lost_events_and_changed_contacts_are_fetched(
    agency: Agency, instance: DagsterInstance, place: Place
) -> None:
    at = datetime(2036, 5, 4, 2, 17, tzinfo=UTC)

    def requests(schedule: dg.ScheduleDefinition) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(instance, scheduled_execution_time=at, resources={"engine": agency.engine})
        return list(schedule.evaluate_tick(context).run_requests or [])

    reconcile, changes = (
        make(dg.DefaultScheduleStatus.STOPPED) for make in (reconcile_schedule, changed_contacts_schedule)
    )
    assert requests(reconcile) == []
    agency.sql(
        """INSERT INTO emailbison_workspaces (client_id, base_url, workspace_id, token_encrypted)
           VALUES (:client, 'https://bison.example.com', 7, 'x')""",
        client=place.client_id,
    )
    (request,) = requests(reconcile)
    assert request.run_config["ops"]["event_reconcile"]["config"]["locations"] == [place.id]
    (request,) = requests(changes)
    assert request.run_config["ops"]["lead_hydration"]["config"]["locations"] == [place.id]
    assert request.run_key == "hourly_changes-203605040217-0"
    with agency.engine.begin() as connection:
        deactivate_client(connection, place.id)
    assert (requests(reconcile), requests(changes)) == ([], [])


def test_whatever_fills_the_queue_leaves_a_place_for_events(instance: DagsterInstance) -> None:
    """The limits that the daemon reads from `dagster.yaml`, counted as the daemon counts."""
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    definition = build_defs().resolve_job_def("hydrate_leads")

    def queued(*, rerun: bool = False, **tags: str) -> dg.DagsterRun:
        named = {f"dagster/{name}": value for name, value in tags.items()}
        named |= {"ghl_pipeline/rerun": "true"} if rerun else {}
        return instance.create_run_for_job(definition, tags=named, status=dg.DagsterRunStatus.STARTING)

    bulk = [
        *(queued(backfill=f"backfill-{n}") for n in range(20)),
        *(queued(schedule_name=name) for name in ("nightly_hydration", "hourly_changes") for _ in range(10)),
        *(queued(sensor_name="new_leads") for _ in range(20)),
        *(queued(sensor_name="rerun_failed", rerun=True) for _ in range(20)),
    ]
    counter = TagConcurrencyLimitsCounter(queue.tag_concurrency_limits, [])
    started = 0
    for each in bulk:
        if not counter.is_blocked(each):
            counter.update_counters_with_launched_item(each)
            started += 1
    assert started == queue.max_concurrent_runs - 1
    urgent = queued(sensor_name="webhook_inbox", priority="10")
    assert not counter.is_blocked(urgent)
    for _ in range(3):
        counter.update_counters_with_launched_item(queued(sensor_name="webhook_inbox"))
    assert counter.is_blocked(urgent), "runs that linger must not take every place either"


def test_housekeeping_drops_old_bodies(agency: Agency, instance: DagsterInstance, place: Place, inbox: Inbox) -> None:
    inbox.deliver(place, contact_deleted(place, "D" * 20))
    agency.sql("UPDATE webhook_events SET state = 'done', received_at = now() - interval '31 days'")
    job = build_defs().resolve_job_def("keep_house")
    assert job.execute_in_process(instance=instance).success
    assert inbox.events()[0]["body"] is None


def test_nobody_is_found_in_dagsters_tables_or_in_the_log(
    agency: Agency,
    instance: DagsterInstance,
    place: Place,
    inbox: Inbox,
    project: Settings,
    dagster_url: URL,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Canaries in every field, a body that cannot be read, a failing location, GHL in trouble."""
    canaries = ("zyxwinda", "quorvath", "5550187", "555-0187", "brindlemoth", place.ghl.token)
    contact = place.ghl.add(email="zyxwinda@example.com", first_name="Quorvath", phone="(305) 555-0187")
    with caplog.at_level(logging.DEBUG):
        inbox.deliver(
            place,
            sms(place, contact.id, "Brindlemoth, call 305-555-0187"),
            bison("LEAD_INTERESTED", email="zyxwinda.two@example.com", text_body="Brindlemoth"),
        )
        (odd,) = inbox.deliver(place, sms(place, "A" * 20))
        agency.sql("UPDATE webhook_events SET body = 'zyxwinda@example.com' WHERE id = :id", id=odd)
        agency.sandbox.faults(place.id, error_rate=1.0, times=40)
        run(instance, [place.id])
        agency.sandbox.faults(place.id, token_revoked=True)
        inbox.make_due()
        run(instance, [place.id])
        agency.sandbox.faults(place.id)
        inbox.make_due()
        run(instance, [place.id])
    assert sorted(inbox.outcomes()) == ["contact_created", "lead_updated", "pending"]
    said = caplog.text + "".join(capfd.readouterr())
    said += "".join(file.read_text(errors="replace") for file in Path(project.home).rglob("*") if file.is_file())
    said += every_row(dagster_url)
    agency.sql("UPDATE webhook_events SET body = NULL")
    said += "".join(
        repr(agency.table(name)) for name in ("webhook_events", "location_attempts", "location_learning")
    )  # fmt: skip
    assert len(said) > 10_000, "nothing was looked at"
    assert [canary for canary in canaries if canary.lower() in said.lower()] == []


def every_row(url: URL) -> str:
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        found = [str(row) for name in tables for row in connection.execute(text(f'SELECT t::text FROM "{name}" AS t'))]
    engine.dispose()
    return "".join(found)
