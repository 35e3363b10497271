"""Drafts without a person: the sensor, the run it asks for, the check, and that none of it says what anybody wrote."""

import contextlib
import logging
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterInstance
from sqlalchemy import URL, Engine, insert

from ghl_pipeline.database.locks import AdvisoryLocks
from ghl_pipeline.database.tables import booking_calendars
from ghl_pipeline.drafts.assets import draft_writing
from ghl_pipeline.drafts.build import build_drafts
from ghl_pipeline.drafts.checks import judged
from ghl_pipeline.drafts.jobs import write_drafts
from ghl_pipeline.drafts.sensors import reply_drafts_sensor
from ghl_pipeline.drafts.shares import FailedShare
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.privacy import redaction
from ghl_pipeline_tests.drafts.conftest import Agency, Place, llm_settings


def definitions(place: Place, **settings: object) -> dg.Definitions:
    """The part of the definitions that drafts are, on the test's database and models."""
    redaction.install()
    drafts = build_drafts(llm_settings(place.sandbox, **settings), place.engine)
    return dg.Definitions(
        assets=[draft_writing],
        jobs=[write_drafts],
        resources={"drafts": drafts, "engine": place.engine},
        executor=dg.in_process_executor,
    )


def tick(place: Place, instance: DagsterInstance, **settings: object) -> dg.RunRequest | dg.SkipReason:
    sensor = reply_drafts_sensor(dg.DefaultSensorStatus.STOPPED)
    drafts = build_drafts(llm_settings(place.sandbox, **settings), place.engine)
    resources = {"engine": place.engine, "drafts": drafts}
    result = sensor(dg.build_sensor_context(instance=instance, resources=resources))
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def locations_of(request: dg.RunRequest | dg.SkipReason) -> list[str]:
    assert isinstance(request, dg.RunRequest), request
    found: list[str] = request.run_config["ops"]["draft_writing"]["config"]["locations"]
    return found


def run(place: Place, instance: DagsterInstance, locations: list[str], **settings: object) -> dg.ExecuteInProcessResult:
    return definitions(place, **settings).resolve_job_def("write_drafts").execute_in_process(
        instance=instance,
        run_config={"ops": {"draft_writing": {"config": {"locations": locations}}}},
        raise_on_error=False,
    )  # fmt: skip


def test_nothing_wanted_asks_for_no_run(place: Place, instance: DagsterInstance) -> None:
    assert isinstance(tick(place, instance), dg.SkipReason)


def test_without_a_key_the_sensor_says_why_and_starts_nothing(place: Place, instance: DagsterInstance) -> None:
    place.sms()
    skipped = tick(place, instance, openai_api_key=None, anthropic_api_key=None)
    assert isinstance(skipped, dg.SkipReason)
    assert "OPENAI_API_KEY" in str(skipped.skip_message)


def test_all_locations_that_want_drafts_are_one_run_and_not_asked_for_twice(
    agency: Agency, instance: DagsterInstance
) -> None:
    place, other, idle = agency.place(), agency.place("Other"), agency.place("Idle")
    place.sms()
    other.sms()
    request = tick(place, instance)
    assert locations_of(request) == [place.id, other.id]
    assert isinstance(request, dg.RunRequest)
    started = instance.create_run_for_job(
        definitions(place).resolve_job_def("write_drafts"),
        run_config=dict(request.run_config),
        status=dg.DagsterRunStatus.STARTING,
    )
    assert isinstance(tick(place, instance), dg.SkipReason)
    idle.sms()
    assert locations_of(tick(place, instance)) == [idle.id]
    place.sql(
        """INSERT INTO location_attempts (location_id, capability, run_id, state, ended_at)
           VALUES (:place, 'drafts', :run, 'succeeded', now())""",
        place=place.id, run=started.run_id,
    )  # fmt: skip
    assert locations_of(tick(place, instance)) == [place.id, idle.id], "the run is done with it"


def test_a_location_that_failed_by_itself_rests(place: Place, instance: DagsterInstance) -> None:
    place.sms()
    attempt = """INSERT INTO location_attempts (location_id, capability, state, error_class, ended_at)
                 VALUES (:place, 'drafts', 'failed', :error, now() - CAST(:ago AS interval))"""
    place.sql(attempt, place=place.id, error="LocationBusy", ago="0")
    assert locations_of(tick(place, instance)) == [place.id], "somebody else at work there is no failure of it"
    place.sql(attempt, place=place.id, error="ValueError", ago="5 minutes")
    assert isinstance(tick(place, instance), dg.SkipReason)
    place.sql("UPDATE location_attempts SET ended_at = now() - interval '11 minutes'")
    assert locations_of(tick(place, instance)) == [place.id]


def test_a_run_tells_counts_of_what_it_did_and_the_check_passes(agency: Agency, instance: DagsterInstance) -> None:
    place, idle = agency.place(), agency.place("Idle")
    place.sms()
    place.sms(status="unsubscribed")
    result = run(place, instance, [place.id, idle.id])
    assert result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("drafts_failed", True)
    (record,) = instance.fetch_materializations(dg.AssetKey("reply_drafts"), limit=9).records
    event = record.asset_materialization
    assert event is not None
    assert event.partition == place.id, "an idle location that the sensor named says nothing"
    told = {name: value.value for name, value in event.metadata.items()}
    assert (told["drafted"], told["failed"], told["skipped"], told["calls"]) == (1, 0, 1, 1)
    report = told["location_report"]
    assert isinstance(report, dict)
    assert report["skipped"] == {"opted_out": 1}


def test_every_partition_of_a_backfill_gets_its_event(agency: Agency, instance: DagsterInstance) -> None:
    place, idle, off = agency.place(), agency.place("Idle"), agency.place("Off", on=False)
    place.sms()
    sync_partitions(instance, [place.id, idle.id, off.id])
    result = definitions(place).resolve_job_def("write_drafts").execute_in_process(
        instance=instance,
        tags={"dagster/asset_partition_range_start": place.id, "dagster/asset_partition_range_end": off.id},
    )  # fmt: skip
    assert result.success
    assert set(instance.get_materialized_partitions(dg.AssetKey("reply_drafts"))) == {place.id, idle.id, off.id}


def test_failed_drafts_make_the_check_speak_and_no_run_fail(place: Place, instance: DagsterInstance) -> None:
    place.sms()
    place.always("401", "401")
    result = run(place, instance, [place.id])
    assert result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "OPENAI_API_KEY" in str(evaluation.description)


@pytest.mark.parametrize(
    ("failed", "drafts", "for_setup", "passed", "severity"),
    [
        (0, 100, 0, True, dg.AssetCheckSeverity.WARN),
        (4, 4, 0, True, dg.AssetCheckSeverity.WARN),
        (1, 100, 0, True, dg.AssetCheckSeverity.WARN),
        (10, 100, 0, False, dg.AssetCheckSeverity.WARN),
        (50, 100, 0, False, dg.AssetCheckSeverity.ERROR),
        (1, 100, 1, False, dg.AssetCheckSeverity.ERROR),
    ],
)
def test_which_share_of_failed_drafts_is_too_many(
    failed: int, drafts: int, for_setup: int, passed: bool, severity: dg.AssetCheckSeverity
) -> None:
    result = judged([FailedShare("A" * 20, failed, drafts, for_setup, "timeout")])
    assert (result.passed, result.severity) == (passed, severity)


def test_while_every_provider_refuses_its_key_new_messages_start_no_runs(
    agency: Agency, instance: DagsterInstance
) -> None:
    place, other = agency.place(), agency.place("Other")
    place.sms()
    place.always("401", "401")
    run(place, instance, [place.id])
    other.sms()
    skipped = tick(place, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "OPENAI_API_KEY" in str(skipped.skip_message)
    assert locations_of(tick(place, instance, openai_model="another")) == [place.id, other.id]
    place.sql("UPDATE location_attempts SET ended_at = now() - interval '61 minutes'")
    assert locations_of(tick(place, instance)) == [other.id], "after an hour it is tried again"
    place.always("ok")
    run(place, instance, [other.id])
    place.sms()
    assert locations_of(tick(place, instance)) == [place.id], "and goes on when it went well"


def test_one_refused_provider_of_two_holds_nothing_up(place: Place, instance: DagsterInstance) -> None:
    place.sms()
    place.always("401")
    run(place, instance, [place.id])
    place.sms()
    assert locations_of(tick(place, instance)) == [place.id]


def test_a_partition_that_another_run_is_at_has_its_event_and_why(agency: Agency, instance: DagsterInstance) -> None:
    place, busy = agency.place(), agency.place("Busy")
    sync_partitions(instance, [place.id, busy.id])
    with contextlib.ExitStack() as held:
        assert held.enter_context(AdvisoryLocks(place.engine).hold(f"drafts of location {busy.id}"))
        result = definitions(place).resolve_job_def("write_drafts").execute_in_process(
            instance=instance,
            tags={"dagster/asset_partition_range_start": place.id, "dagster/asset_partition_range_end": busy.id},
        )  # fmt: skip
    assert result.success
    assert set(instance.get_materialized_partitions(dg.AssetKey("reply_drafts"))) == {place.id, busy.id}
    records = instance.fetch_materializations(dg.AssetKey("reply_drafts"), limit=9).records
    told = {each.partition_key: each.asset_materialization for each in records}[busy.id]
    assert told is not None
    assert told.metadata["left_alone"].value == "another run is at work there"
    assert told.metadata["drafted"].value == 0


def test_a_run_without_partitions_or_locations_fails_and_does_nothing(place: Place, instance: DagsterInstance) -> None:
    """As one that succeeded it would look as if there was nothing to do anywhere."""
    place.sms()
    assert not run(place, instance, []).success
    assert place.rows() == []


# --- privacy

BODY, ANSWER, NAME = "Quorvath wants a purple roof", "says:Dear Zyxwinda, the roof is yours", "Zyxwinda"
LINK = "https://book.example.com/brindlemoth"
CANARIES = ("quorvath", "purple roof", "zyxwinda", "brindlemoth", "the roof is yours", "You write a text message")


def test_no_message_prompt_draft_link_or_key_is_in_a_log_or_a_table_of_dagsters(
    agency: Agency,
    instance: DagsterInstance,
    dagster_url: URL,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = agency.place(tone="Brindlemoth")
    with place.engine.begin() as connection:
        connection.execute(insert(booking_calendars).values(client_id=place.client_id, booking_link=LINK))
    # The sandbox's errors repeat the end of the prompt, which is what the lead wrote.
    faults = ["400", "401", "500", "429", "html", "garbage", "disconnect", "refusal", "filtered", "cut_off", "empty"]
    # What the SDKs' own switch for talking does.
    for name in ("openai", "anthropic", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        for fault in [*faults, "says:Go to https://evil.example.com/brindlemoth", "hang", ANSWER]:
            place.message(place.lead(first_name=NAME), BODY)
            place.always(fault, fault)
            place.openai.key = f"sk-canary{fault[:3]}0000c0de"
            run(place, instance, [place.id], draft_sms_deadline_seconds=0.6)
    assert place.rows()[-1]["body"] == ANSWER.removeprefix("says:")
    assert any(BODY in request.prompt for request in place.openai.requests), "the canaries did go through"

    streams = capfd.readouterr()
    texts = [caplog.text, streams.out, streams.err, _dump(dagster_url), _attempts(place.engine)]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    keys = [place.openai.key, "0000c0de", place.anthropic.key]
    for canary in (*CANARIES, *keys):
        assert not any(canary.lower() in text.lower() for text in texts), canary
    reasons = " ".join(str(row["failure_text"]) for row in place.rows()).lower()
    assert not any(canary.lower() in reasons for canary in (*CANARIES, *keys))


def _dump(url: URL) -> str:
    """Every row of every table of Dagster's, as text."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        rows = [connection.execute(sqlalchemy.text(f'SELECT t::text FROM "{name}" AS t')).scalars() for name in tables]
        found = "\n".join(row for each in rows for row in each)
    engine.dispose()
    assert "reply_drafts" in found
    return found


def _attempts(engine: Engine) -> str:
    with engine.connect() as connection:
        return "\n".join(connection.execute(sqlalchemy.text("SELECT a::text FROM location_attempts AS a")).scalars())


def test_loading_assets_and_commands_imports_no_sdk() -> None:
    """It would cost every command and every load of the definitions seconds of processor time."""
    program = (
        "import sys, ghl_pipeline.drafts.assets, ghl_pipeline.drafts.sensors, ghl_pipeline.drafts.build, "
        "ghl_pipeline.cli.drafts; print([n for n in ('pydantic_ai', 'openai', 'anthropic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
