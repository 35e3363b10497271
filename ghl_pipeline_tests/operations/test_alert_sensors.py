"""A run that Dagster saw fail becomes an alert: through the sensors, from the history to Slack."""

import json

import dagster as dg
import pytest
from dagster import DagsterInstance
from sqlalchemy import Engine
from typer.testing import CliRunner

from ghl_pipeline.cli.app import app
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.hydration.build import build_hydration
from ghl_pipeline.operations.alerting.alerting import Alerting
from ghl_pipeline.operations.sensors import RERUN_TAG, alert_delivery_sensor, alert_failures_sensor
from ghl_pipeline.orchestration.history import RETRY_NUMBER_TAG
from ghl_pipeline.sandbox.agency import SampleAgency
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.operations.alert_tools import SECRET_PATH, alerting_to, running_inbox

STOPPED = dg.DefaultSensorStatus.STOPPED


@pytest.fixture
def agency(engine: Engine, project: Settings, sandbox: Sandbox) -> SampleAgency:
    """Two locations; the second one's token is refused."""
    made = add_sample_agency(engine, project, sandbox, locations=2, leads=20)
    sandbox.faults(made.locations[1].id, token_revoked=True)
    return made


def run_fails(engine: Engine, project: Settings, instance: DagsterInstance, agency: SampleAgency, **tags: str) -> str:
    resources = {"engine": engine, "hydration": build_hydration(project, engine)}
    result = (
        build_defs(resources)
        .resolve_job_def("hydrate_leads")
        .execute_in_process(
            run_config={
                "ops": {"lead_hydration": {"config": {"locations": [each.id for each in agency.locations]}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=instance,
            tags=tags,
            raise_on_error=False,
        )
    )
    assert not result.success
    return result.run_id


def tick(instance: DagsterInstance, alerting: Alerting, run_id: str) -> None:
    """As the daemon does for a run that failed."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    [failure] = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failure.dagster_event is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_failures",
        dagster_event=failure.dagster_event,
        dagster_instance=instance,
        dagster_run=run,
        resources={"alerting": alerting},
    ).for_run_failure()
    alert_failures_sensor(STOPPED)(context)


def deliver(alerting: Alerting) -> str:
    context = dg.build_sensor_context(resources={"alerting": alerting})
    skipped = alert_delivery_sensor(STOPPED)(context)
    assert isinstance(skipped, dg.SkipReason)
    return str(skipped.skip_message)


def test_a_failed_run_reaches_slack_and_its_repetitions_do_not(
    engine: Engine, project: Settings, instance: DagsterInstance, agency: SampleAgency
) -> None:
    with running_inbox() as inbox:
        alerting = alerting_to(engine, inbox)
        assert deliver(alerting) == "no alert is due"
        run_id = run_fails(engine, project, instance, agency)
        tick(instance, alerting, run_id)
        assert deliver(alerting) == "2 sent, 0 not taken, 0 of them given up"
        for tags in ({RETRY_NUMBER_TAG: "1"}, {RERUN_TAG: "true"}):
            tick(instance, alerting, run_fails(engine, project, instance, agency, **tags))
        assert deliver(alerting) == "no alert is due"
        [message] = inbox.texts()
    refused = agency.locations[1].id
    assert message.splitlines()[:2] == [
        "*hydration is held at 1 location until somebody acts: TokenRejected*", f"Where: {refused}",
    ]  # fmt: skip
    assert f"<https://dagster.example.com/runs/{run_id}|The run>" in message
    assert agency.locations[1].token not in message


def test_the_commands_list_alerts_and_try_the_channels(
    engine: Engine, project: Settings, instance: DagsterInstance, agency: SampleAgency, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_inbox() as inbox:
        alerting = alerting_to(engine, inbox)
        tick(instance, alerting, run_fails(engine, project, instance, agency))
        inbox.status, inbox.word = 404, b"no_service"
        deliver(alerting)
        [listed] = json.loads(CliRunner().invoke(app, ["alerts", "list", "--json"]).stdout)["alerts"]
        assert listed["error_class"] == "TokenRejected"
        assert listed["deliveries"]["slack"] == {"state": "waiting", "attempts": 1, "reason": "HTTP 404 (no_service)"}
        assert "held at 1 location" in CliRunner().invoke(app, ["alerts", "list"]).stdout

        monkeypatch.setenv("ALERT_SLACK_URL", inbox.url + SECRET_PATH)
        failed = CliRunner().invoke(app, ["alerts", "test"])
        assert failed.exit_code == 1
        assert failed.stdout.splitlines() == ["log: taken"]
        assert "slack: not taken: HTTP 404 (no_service)" in failed.stderr
        assert "xoxCanaryPath" not in failed.output
        inbox.status, inbox.word = 200, b"ok"
        tried = CliRunner().invoke(app, ["alerts", "test", "--json"])
        assert (tried.exit_code, json.loads(tried.stdout)) == (0, {"channels": {"log": None, "slack": None}})


def test_an_address_that_is_none_is_refused_without_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "file:///etc/xoxCanaryPath")
    result = CliRunner().invoke(app, ["alerts", "test"])
    assert "ALERT_WEBHOOK_URL" in str(result.exception)
    assert "xoxCanaryPath" not in str(result.exception)
