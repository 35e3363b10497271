"""The real receiver and a real run, each under its own login and nothing more."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from ghl_pipeline.database.connection import DAGSTER_DRIVER, DatabaseUrls
from ghl_pipeline.database.granting import apply_roles, plan_roles
from ghl_pipeline.database.logins import add_login, new_password
from ghl_pipeline.database.roles import RECEIVER, WORKER
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import open_instance
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.receiving.receiver import HEALTH_PATH
from ghl_pipeline_tests.fixtures.names import own_name
from ghl_pipeline_tests.fixtures.project import add_sample_agency
from ghl_pipeline_tests.fixtures.receiver import (
    SenderKeys,
    add_receiver_client,
    inbound_sms,
    lead_replied,
    receiver_process,
    running_receiver,
    sender_keys,
    workflow_reply,
)
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

__all__ = ["sender_keys"]  # a fixture

AddLogin = Callable[[str], tuple[str, str]]


@pytest.fixture
def login(engine: Engine, database_url: URL, dagster_url: URL) -> Iterator[AddLogin]:
    """Gives the roles their rights and makes logins: name and password; dropped at the end."""
    apply_roles(plan_roles(DatabaseUrls(app=database_url, dagster=dagster_url.set(drivername=DAGSTER_DRIVER))))
    made = []

    def add(role: str) -> tuple[str, str]:
        name, password = f"test_{own_name()}", new_password()
        with engine.begin() as connection:
            add_login(connection, name, role, password)
        made.append(name)
        return name, password.get_secret_value()

    yield add
    with engine.begin() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP ROLE {name}")


def test_a_receiver_without_other_rights_stores_leads_messages_and_events(
    login: AddLogin,
    engine: Engine,
    database_url: URL,
    sender_keys: SenderKeys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name, password = login(RECEIVER)
    own = database_url.set(username=name, password=password)
    client = add_receiver_client(engine)
    with running_receiver(Settings(), own, engine, sender_keys) as receiver:
        sms = inbound_sms(client.location_id)
        assert receiver.app(sms) == (200, "stored")
        assert receiver.app(sms) == (200, "duplicate")
        again = inbound_sms(client.location_id, contactId=sms["contactId"])
        assert receiver.app(again) == (200, "stored")
        assert receiver.workflow(client, workflow_reply()) == (200, "stored")
        assert receiver.emailbison(client, lead_replied(client.workspace_id)) == (200, "stored")
        assert receiver.app(inbound_sms("SomebodyElsesLocation")).status == 200
        assert receiver.get(HEALTH_PATH).status_code == 200
        assert receiver.get("/metrics").status_code == 200
        assert receiver.count("leads") == 3
        assert receiver.count("messages") == 4
    assert "could not be read" not in caplog.text  # the counts that `/metrics` takes from the database


@pytest.mark.slow
def test_the_receivers_command_starts_under_its_own_login(
    login: AddLogin, engine: Engine, project: Settings, database_url: URL
) -> None:
    name, password = login(RECEIVER)
    own = database_url.set(username=name, password=password).render_as_string(hide_password=False)
    settings = project.model_copy(update={"database_url": SecretStr(own)})
    with receiver_process(settings) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        # What anybody on the machine may see of it: no password, no key.
        shown = Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8")
        assert password not in shown
        assert "postgresql" not in shown


def test_a_run_under_the_workers_login_repairs_the_leads(
    login: AddLogin,
    engine: Engine,
    project: Settings,
    sandbox: Sandbox,
    database_url: URL,
    dagster_url: URL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both databases as the worker: run, lease, throttle, work list, write-back and history need no table's owner."""
    agency = add_sample_agency(engine, project, sandbox, locations=2, leads=40)
    name, password = login(WORKER)
    worker = project.model_copy(
        update={
            "database_url": _secret(database_url, name, password),
            "dagster_database_url": _secret(dagster_url.set(drivername=DAGSTER_DRIVER), name, password),
        }
    )
    for variable, value in worker.as_environment().items():
        monkeypatch.setenv(variable, value)
    assert name in os.environ["GHL_PIPELINE_DATABASE_URL"]
    with open_instance(worker) as instance:
        sync_partitions(instance, [location.id for location in agency.locations])
        result = (
            build_defs()
            .resolve_job_def("hydrate_leads")
            .execute_in_process(
                run_config={
                    "ops": {"lead_hydration": {"config": {"locations": [each.id for each in agency.locations]}}}
                },
                instance=instance,
                raise_on_error=False,
            )
        )
        assert result.success
    with engine.connect() as connection:
        states = connection.execute(text("SELECT DISTINCT state FROM location_attempts")).scalars().all()
        linked = connection.execute(text("SELECT count(*) FROM leads WHERE ghl_contact_id <> ''")).scalar_one()
    assert states == ["succeeded"]
    assert linked > 0


def _secret(url: URL, name: str, password: str) -> SecretStr:
    return SecretStr(url.set(username=name, password=password).render_as_string(hide_password=False))
