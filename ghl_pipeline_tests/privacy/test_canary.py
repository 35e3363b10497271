"""Canary people go through everything, the failure paths included, and must not be found anywhere but in their tables.

Here are the stories of hydration and of events; that of vendors, drafts, free times and accounts is in
`test_canary_replies.py`. Where is searched says `canaries.py`. The secrets by which webhooks come in, and the tokens of
GHL and EmailBison, are looked for as well.
"""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, insert, text

from ghl_pipeline.database.tables import leads
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.hydration.hydration import Hydration
from ghl_pipeline.hydration.sync import sync_lead
from ghl_pipeline.locations.clients import LocationAccess, add_client
from ghl_pipeline.locations.learning import record_survey
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import RunSummary, run_locations
from ghl_pipeline.privacy.redaction import safe_error_text
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.emailbison_payloads import BisonLead
from ghl_pipeline.sandbox.webhook_orders import SendOrder
from ghl_pipeline.sandbox.webhook_sender import WebhookSender
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.ensuring.ensure import build_ensurer
from ghl_pipeline.webhooks.handling.event_work import EventWork
from ghl_pipeline.webhooks.handling.handle_events import EventHandling
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.privacy.canaries import CANARIES, EMAIL, TOKEN, assert_found_nowhere, command, tried

PEOPLE = 40
BISON_TOKEN = "7|zyxToken0000000000000000000000000000c0de"


@pytest.fixture
def location_id(engine: Engine, project: Settings, sandbox: Sandbox) -> str:
    """A client whose people are canaries, on both sides, in every state that hydration knows."""
    location = sandbox.world.add_location(token=TOKEN)
    rows: list[dict[str, object]] = []
    for number in range(PEOPLE):
        email = EMAIL.format(number)
        person = {"first_name": "Quorvath", "last_name": "Brindlemoth", "phone": "(305) 555-0187", "email": email}
        if number % 5:
            location.add(**person)
        rows.append({"email": email.upper() if number % 2 else email})
    rows.append({"email": "zyxwinda." + "x" * 290 + "@example.com"})
    rows.append({"email": EMAIL.format("junk"), "ghl_contact_id": "Quorvath Brindlemoth"})
    with engine.begin() as connection:
        cipher = TokenCipher.from_settings(project)
        client = add_client(connection, cipher, name="Acme", location_id=location.id, token=SecretStr(TOKEN))
        connection.execute(insert(leads), [{"client_id": client.id, "ghl_contact_id": None, **row} for row in rows])
    # Small groups make pulling all contacts the cheaper way for a backfill; Sync All looks them up.
    record_survey(engine, location.id, Survey(None, {10: GroupAnswer.RIGHT}))
    return location.id


def everything_it_knows(access: LocationAccess) -> str:
    return f"{EMAIL.format(1)} Quorvath Brindlemoth 305-555-0187 {access.token.get_secret_value()}"


class Leaky:
    """A client opener with a bug whose text quotes everything it can lay its hands on."""

    def __call__(self, access: LocationAccess) -> AbstractAsyncContextManager[LocationClient]:
        # Made elsewhere: the logged stack quotes this line of code, as it may.
        raise ValueError(everything_it_knows(access))


def buggy(engine: Engine, project: Settings) -> Hydration:
    cipher = TokenCipher.from_settings(project)
    return Hydration(engine=engine, cipher=cipher, open_client=Leaky(), default_group_size=50)


def run_with_a_bug(engine: Engine, project: Settings, instance: DagsterInstance, location_id: str) -> None:
    definitions = build_defs({"engine": engine, "hydration": buggy(engine, project)})
    sync_partitions(instance, [location_id])
    summary = run_locations(
        definitions, job="hydrate_leads", op="lead_hydration", instance=instance, locations=[location_id], config={}
    )
    assert not summary.succeeded


@pytest.mark.slow
def test_nobody_is_found_outside_the_leads(
    location_id: str,
    engine: Engine,
    dagster_url: URL,
    project: Settings,
    sandbox: Sandbox,
    instance: DagsterInstance,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GHL_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("GHL_CALL_DEADLINE_SECONDS", "2")
    printed: list[str] = []
    with caplog.at_level(logging.DEBUG):
        run_with_a_bug(engine, project, instance, location_id)
        with pytest.raises(ValueError, match="zyxwinda") as bug:
            asyncio.run(sync_lead(buggy(engine, project), 1))
        printed.append(safe_error_text(bug.value))
    sandbox.faults(location_id, garbage_rate=1.0)
    printed.append(command("backfill", expect=1))
    sandbox.faults(location_id, error_rate=0.7, seed=3, drop_rate=0.3)
    printed.append(command("backfill", "--dry-run", expect=1))
    sandbox.faults(location_id, token_revoked=True)
    printed.append(command("backfill", expect=1))
    sandbox.faults()
    printed.append(command("sync-lead", "2"))
    printed.append(command("backfill"))
    printed.append(command("sync-all"))
    printed.append(command("status"))
    printed.append(command("clients", "list"))

    with engine.connect() as connection:
        # The canaries did go through: what was found was written.
        assert connection.execute(text("SELECT count(*) FROM leads WHERE last_name = 'Brindlemoth'")).scalar() == 32
        assert connection.execute(text("SELECT plan ->> 'way' FROM work_lists")).scalars().all() == ["scan"]
    printed.append(caplog.text)
    streams = capfd.readouterr()
    assert_found_nowhere([*printed, streams.out, streams.err], CANARIES, engine, dagster_url, project)


@dataclass
class Senders:
    """GHL and EmailBison, as they reach the client's receiver; the secrets are canaries too."""

    sandbox: Sandbox
    url: str
    location_id: str
    workflow_secret: str
    emailbison_secret: str

    def send(self, event: str, **order: object) -> dict[str, int]:
        """Lets an event happen and delivers it; returns how many deliveries were answered how."""
        secrets = {"workflow": self.workflow_secret, "custom": self.workflow_secret}
        secret = secrets.get(event.split("_", 1)[0], self.emailbison_secret)
        whole = {"url": self.url, "location": self.location_id, "event": event, "secret": secret, **order}
        return asyncio.run(WebhookSender(self.sandbox.world).send(SendOrder(**whole))).statuses  # type: ignore[arg-type]

    def send_trash(self) -> set[int]:
        """Posts what nobody can read, or may send; returns the statuses."""
        with httpx.Client(base_url=self.url, timeout=20) as http:
            workflow = f"/webhooks/ghl/workflow/{self.location_id}"
            bison = f"/webhooks/emailbison/{self.location_id}"
            person = {"first_name": "Quorvath", "email": EMAIL.format(1), "phone": "305-555-0187"}
            known = {"event": {"type": "LEAD_REPLIED", "workspace_id": 999_999}, "data": {"lead": person}}
            nested = b"[" * 100_000 + b'"Quorvath Brindlemoth"'
            posts: list[tuple[str, bytes, dict[str, str]]] = [
                (f"{workflow}/{self.workflow_secret}", b'{"email": "zyxwinda.1@example.com", "first_name": "Quor', {}),
                (f"{workflow}/{self.workflow_secret}", b"\xff\xfe Quorvath Brindlemoth", {}),
                (f"{workflow}/{self.workflow_secret}", nested, {}),
                (f"{workflow}/{self.workflow_secret}", json.dumps(person).encode(), {}),
                (f"{bison}/{self.emailbison_secret}", json.dumps(known).encode(), {}),
                (f"{bison}/{self.emailbison_secret}", b'{"event": {"type": ["Quorvath"]}, "data": "zyxwinda"}', {}),
                (f"{bison}/{self.emailbison_secret[:-4]}", json.dumps(known).encode(), {}),
                (f"{workflow}/Quorvath-Brindlemoth?email={EMAIL.format(1)}", json.dumps(person).encode(), {}),
                (f"{workflow}/{self.emailbison_secret}", json.dumps(person).encode(), {}),
                ("/webhooks/ghl", json.dumps({"type": "ContactUpdate", **person}).encode(), {}),
                ("/webhooks/ghl", json.dumps(person).encode(), {"x-ghl-signature": "Quorvath Brindlemoth"}),
                ("/Quorvath/Brindlemoth?zyxwinda", b"", {}),
                (f"{workflow}/{self.workflow_secret}", b"Quorvath " * 1_000_000, {}),
            ]
            return {http.post(path, content=body, headers=headers).status_code for path, body, headers in posts}


@contextmanager
def talkative_receiver(printed: list[str], folder: Path) -> Iterator[str]:
    """`ghl-pipeline --verbose webhooks` as a process; all that it said is among the printed when it has ended."""
    line = [sys.executable, "-m", "ghl_pipeline.cli.app", "--verbose", "webhooks", "--port", "0"]
    said = folder / "receiver.txt"
    with said.open("w") as errors:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ)
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), said.read_text()
        try:
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
    printed.append(said.read_text())


def run_events(engine: Engine, instance: DagsterInstance, location_id: str, **resources: object) -> RunSummary:
    """The job of the events sensor, as one run."""
    return run_locations(
        build_defs({"engine": engine, **resources}), job="handle_events", op="event_handling", instance=instance,
        locations=[location_id], config={"linger_seconds": 0},
    )  # fmt: skip


def secret_of(provider: str, location_id: str) -> str:
    """A new secret, read off the URL that is shown once, when it is made."""
    shown = command("clients", "webhook-url", location_id, "--provider", provider)
    found = re.search(rf"/{location_id}/(\S+)", shown)
    assert found is not None
    return found[1]


def received(engine: Engine, expected: int) -> list[int]:
    """The numbers of all events."""
    with engine.connect() as connection:
        numbers = list(connection.execute(text("SELECT id FROM webhook_events ORDER BY id")).scalars())
    assert len(numbers) >= expected
    return numbers


@pytest.mark.slow
def test_nobody_who_writes_to_us_is_found_outside_the_tables_for_it(
    location_id: str,
    engine: Engine,
    dagster_url: URL,
    project: Settings,
    sandbox: Sandbox,
    instance: DagsterInstance,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    keys = sandbox.world.webhook_keys.public()
    for name, value in {
        "GHL_MAX_ATTEMPTS": "2",
        "GHL_CALL_DEADLINE_SECONDS": "2",
        "GHL_WEBHOOK_ED25519_KEYS": keys["ed25519"],
        "GHL_WEBHOOK_RSA_KEYS": keys["rsa"],
    }.items():
        monkeypatch.setenv(name, value)
    people = [
        BisonLead(id=number, email=EMAIL.format(100 + number), first_name="Quorvath", last_name="Brindlemoth")
        for number in range(1, 9)
    ]
    workspace = sandbox.world.add_workspace(location_id, token=BISON_TOKEN, leads=people)
    secrets = [secret_of(provider, location_id) for provider in ("ghl-workflow", "emailbison")]
    bison = ("clients", "set-emailbison", location_id, "--url", f"{sandbox.url}/emailbison")
    printed = [command(*bison, "--workspace", str(workspace.id), stdin=BISON_TOKEN + "\n")]
    printed.append(command("clients", "webhook-url", location_id))
    said = "Quorvath Brindlemoth here, call 305-555-0187 or write to zyxwinda.1@example.com"
    # The first import of all is before anybody wrote, so that whatever is imported later is news.
    printed.append(command("import-messages"))

    with talkative_receiver(printed, tmp_path) as url:
        senders = Senders(sandbox, url, location_id, *secrets)
        for event in ("inbound_sms", "inbound_email", "workflow_sms", "custom_workflow_sms", "contact_update"):
            assert senders.send(event, count=4, body=said, copies=2) == {"200": 8}
        for event in ("lead_replied", "lead_interested", "email_bounced", "lead_unsubscribed", "manual_email_sent"):
            order = {"lead": 3} if event == "lead_unsubscribed" else {"count": 2}
            assert set(senders.send(event, body=said, **order)) == {"200"}
        # Half of what is written is lost, to be found by the imports.
        senders.send("inbound_sms", count=4, body=said, deliver=False)
        senders.send("lead_replied", count=4, body=said, deliver=False)
        assert senders.send("inbound_sms", body=said, bad_signature=True) == {"401": 1}
        assert senders.send("inbound_sms", body=said, timestamp_shift_seconds=-3600) == {"401": 1}
        assert senders.send("lead_replied", body=said, secret="Quorvath-Brindlemoth") == {"401": 1}
        assert senders.send_trash() >= {200, 401, 404, 413}
    events = received(engine, 25)

    sync_partitions(instance, [location_id])
    with caplog.at_level(logging.DEBUG):
        # A bug that quotes whom it works on, then GHL in trouble, then all is well.
        broken = buggy(engine, project)
        work = EventWork(engine, broken, build_ensurer(project, engine, broken), frozenset())
        run_events(engine, instance, location_id, event_handling=EventHandling(engine, work))
        with engine.connect() as connection:
            failed = "SELECT count(*) FROM webhook_events WHERE error_class = 'ValueError'"
            assert connection.execute(text(failed)).scalar_one() > 0
        # EmailBison's client retries for minutes, so that it is given three bad answers and then a revoked token.
        trouble: list[tuple[dict[str, object], dict[str, object]]] = [
            ({"garbage_rate": 0.3, "error_rate": 0.4, "drop_rate": 0.3, "seed": 3}, {"garbage_rate": 1.0, "times": 3}),
            ({"token_revoked": True}, {"token_revoked": True}),
        ]
        for of_ghl, of_emailbison in trouble:
            sandbox.faults(location_id, **of_ghl)
            sandbox.faults(workspace.faults_key, **of_emailbison)
            printed.append(command("events", "replay", "--all"))
            printed.append(tried("events", "handle"))
            printed.append(tried("import-messages"))
            run_events(engine, instance, location_id)
            reconciled(engine, instance, location_id)
        printed.append(command("events", "list", "--json"))
        sandbox.faults()
        # A poison event: bytes that the inbox took and that nobody can read any more.
        with engine.begin() as connection:
            poison = text("UPDATE webhook_events SET body = :body WHERE id = :id")
            connection.execute(poison, {"id": events[0], "body": said.encode()})
        printed.append(command("events", "replay", "--all"))
        run_events(engine, instance, location_id)
        assert reconciled(engine, instance, location_id).succeeded
    printed.append(tried("events", "handle"))
    first, second, last = (str(events[at]) for at in (0, 1, -1))
    commands: list[tuple[str, ...]] = [
        ("import-messages",), ("import-messages", "--json"), ("events", "handle", "--json"), ("sync-lead", "2"),
        ("sync-all",), ("events", "list"), ("events", "list", "--json"), ("events", "list", "--state", "dead"),
        ("events", "show", first), ("events", "show", last), ("events", "show", second, "--json"), ("status",),
        ("status", "--json"), ("clients", "list"), ("events", "purge"),
        ("clients", "webhook-url", location_id, "--provider", "emailbison"),
    ]  # fmt: skip
    printed += [command(*words) for words in commands]

    with engine.connect() as connection:
        # The canaries did go through: they wrote, were interested, and got a contact.
        def number(query: str) -> int:
            return int(connection.execute(text(query)).scalar_one())

        assert number("SELECT count(*) FROM messages WHERE body LIKE '%Brindlemoth%' AND source = 'import'") >= 4
        assert number("SELECT count(*) FROM messages WHERE body LIKE '%Brindlemoth%' AND source = 'reconcile'") >= 4
        assert number("SELECT count(*) FROM contact_creations WHERE address LIKE 'zyxwinda%'") >= 1
        assert number("SELECT count(*) FROM leads WHERE opted_out_at IS NOT NULL") >= 1
        assert number("SELECT count(*) FROM webhook_events WHERE state = 'done'") > 20
        assert number("SELECT count(*) FROM webhook_events WHERE error_class IS NOT NULL") >= 1
    printed.append(caplog.text)
    streams = capfd.readouterr()
    canaries = (*CANARIES, BISON_TOKEN, *secrets)
    assert_found_nowhere([*printed, streams.out, streams.err], canaries, engine, dagster_url, project)


def reconciled(engine: Engine, instance: DagsterInstance, location_id: str) -> RunSummary:
    """The look for lost events, as a run of the schedule's job."""
    return run_locations(
        build_defs({"engine": engine}), job="reconcile_events", op="event_reconcile", instance=instance,
        locations=[location_id], config={},
    )  # fmt: skip
