"""The agency that the runbook's commands are run against: the names and numbers of the document are real here.

"Acme Roofing" has the location C6HxU0gdMY76stvsY7nT, the lead, the event and the draft 4711, the vendor 17, the
EmailBison workspace 12, a calendar behind the link of the document, and vendors and leads in step. "Granite Solar"
stands beside it, so that what must not touch others can be seen not to.
"""

import os
import pty
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import URL, Engine, insert, text

from ghl_pipeline.availability.client_calendars import set_calendar
from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.database.embedded.machine import find_binaries
from ghl_pipeline.database.tables import leads, messages
from ghl_pipeline.drafts.client_settings import set_drafts
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.locations.emailbison import set_workspace
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent, BisonLead
from ghl_pipeline.sandbox.marketplace import marketplace
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.docs.manual import Ended, Kind, Typed
from ghl_pipeline_tests.docs.serving import is_serving, serve, served
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

ACME, OTHER = "C6HxU0gdMY76stvsY7nT", "lV93BH73k8xMVQTHZ1du"
PEOPLE = 30
NUMBER = 4711
VENDOR = 17
WORKSPACE = 12
LINK = "https://book.example.com/widget/bookings/roof"
# pg_dump, psql and their like, of the version that the embedded server has.
POSTGRES_PROGRAMS = find_binaries() / "bin"


@dataclass
class World:
    """A working folder, an environment, the databases and the sandbox behind them."""

    folder: Path
    shelf: Path
    environment: dict[str, str]
    engine: Engine
    sandbox: Sandbox
    acme: Location
    other: Location
    workspace: Workspace
    settings: Settings
    elsewhere: dict[str, str] = field(
        default_factory=lambda: {
            "UI_PROXY_SECRET=...": "UI_PROXY_SECRET=of-sixteen-letters",
            "/var/lib/node_exporter/": "./",
        }
    )
    """What the document says -> what it is here, such as a port."""

    def run(self, typed: Typed, timeout: float = 120.0) -> Ended:
        """Runs a command as a shell does; what it reads is the client's token, or a person's "y"."""
        line = typed.text
        for said, here in self.elsewhere.items():
            line = line.replace(said, here)
        if line.startswith("export "):
            return self._export(line)
        if is_serving(line):
            return serve(line, self.folder, self.environment)
        words = ["bash", "-c", f"set -o pipefail; {line}"]
        if typed.asks:
            return self._at_a_terminal(words, timeout)
        done = subprocess.run(
            words,
            input=self.acme.token,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
        return Ended(done.returncode, done.stdout)

    def type(self, command: str, exits: int = 0) -> str:
        """Runs a command that is not in the document; returns what it printed."""
        ended = self.run(Typed(Kind.COMMAND, command, 0))
        assert ended.code == exits, f"{command} ended with {ended.code}:\n{ended.printed}"
        return ended.printed

    @contextmanager
    def receiver(self) -> Iterator[None]:
        """The receiver, at the address that the document gives it."""
        with served(["webhooks"], self.folder, self.environment) as serving:
            assert serving.is_well
            for host in ("127.0.0.1", "receiver"):
                self.elsewhere[f"{host}:8788"] = f"127.0.0.1:{serving.port}"
            yield

    def use_embedded_database(self) -> None:
        """From here on nothing names a database or a key, as on a machine that was just set up."""
        for name in ("GHL_PIPELINE_DATABASE_URL", "GHL_PIPELINE_DAGSTER_DATABASE_URL", "GHL_PIPELINE_TOKEN_KEYS"):
            del self.environment[name]
        self.environment["GHL_PIPELINE_HOME"] = str(self.folder / ".ghl_pipeline")

    def sql(self, statement: str, **values: object) -> list[dict[str, Any]]:
        """Runs a statement on the dashboard database; returns its rows."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    def value(self, statement: str, **values: object) -> Any:
        """The only value that a statement returns."""
        ((value,),) = [tuple(row.values()) for row in self.sql(statement, **values)]
        return value

    def _export(self, line: str) -> Ended:
        shown = subprocess.run(
            ["bash", "-c", f"{line}\nenv -0"], env=self.environment, cwd=self.folder, capture_output=True, check=True
        )
        pairs = (each.partition("=") for each in shown.stdout.decode().split("\0") if each)
        self.environment.update({name: value for name, _, value in pairs})
        return Ended(0, "")

    def _at_a_terminal(self, words: list[str], timeout: float) -> Ended:
        mine, theirs = pty.openpty()
        os.write(mine, b"y\n")
        process = subprocess.Popen(
            words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder,
            env=self.environment, encoding="utf-8",
        )  # fmt: skip
        with process:
            printed, _ = process.communicate(timeout=timeout)
        os.close(mine)
        os.close(theirs)
        return Ended(process.returncode, printed)


@contextmanager
def prepared_world(
    folder: Path, shelf: Path, database: URL, history: URL, engine: Engine, sandbox: Sandbox
) -> Iterator[World]:
    """The agency in fresh databases and a fresh sandbox."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    settings = Settings(
        home=home,
        database_url=SecretStr(plain(database)),
        dagster_database_url=SecretStr(plain(history)),
        token_keys=SecretStr(Fernet.generate_key().decode()),
        api_url=sandbox.url,
        calendly_api_url=f"{sandbox.url}/_calendly",
        openai_base_url=f"{sandbox.url}/_llm/openai/v1",
        openai_api_key=SecretStr(sandbox.world.llm.openai.key),
        anthropic_base_url=f"{sandbox.url}/_llm/anthropic",
        anthropic_api_key=SecretStr(sandbox.world.llm.anthropic.key),
        webhook_public_url="https://hooks.example.com",
    )
    acme, other = _location(sandbox, ACME, "acme", 0), _location(sandbox, OTHER, "granite", 50)
    workspace = sandbox.world.add_workspace(
        ACME, workspace_id=WORKSPACE, leads=[BisonLead(id=1, email=email("acme", 1))]
    )
    acme.calendars.add("Roof", slug="roof")
    with sandbox.world.lock:
        market = marketplace(acme, vendors=6, leads=4, seed=7)
        assert market is not None
    _fill(engine, settings, sandbox, acme, other, workspace)
    _write_files(folder, acme)
    path = os.pathsep.join([str(shelf), str(POSTGRES_PROGRAMS), os.environ["PATH"]])
    environment = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "COLUMNS": "200"}
    world = World(
        folder, shelf, environment | settings.as_environment(), engine, sandbox, acme, other, workspace, settings
    )
    world.elsewhere["https://services.leadconnectorhq.com"] = sandbox.url
    yield world


def plain(url: URL) -> str:
    """The URL as libpq takes it, and our settings."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def email(client: str, number: int) -> str:
    """The address of a lead."""
    return f"{client}.{number}@example.com"


def replied(world: World, kind: BisonEvent = BisonEvent.LEAD_INTERESTED, words: str = "Yes, tell me more.") -> str:
    """Somebody whom nobody here knows answers to an e-mail; EmailBison has it in its log. Returns the address."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    lead = world.workspace.new_lead(world.sandbox.world.stranger().email, now=now)
    world.workspace.happens(kind, lead, now=now, text=words)
    return lead.email


def _location(sandbox: Sandbox, location_id: str, name: str, first_phone: int) -> Location:
    place = sandbox.add_location(location_id, time_scale=0.1)
    for number in range(1, PEOPLE + 1):
        place.add(
            email=email(name, number),
            first_name="Ada",
            last_name=f"Sample{number}",
            company_name="Sample Inc",
            phone=f"+1305555{100 + first_phone + number:04}",
        )
    return place


def _fill(
    engine: Engine, settings: Settings, sandbox: Sandbox, acme: Location, other: Location, workspace: Workspace
) -> None:
    cipher = TokenCipher.from_settings(settings)
    with engine.begin() as connection:
        clients = {
            name: add_client(
                connection,
                cipher,
                name=name,
                location_id=place.id,
                token=SecretStr(place.token),
                time_zone="America/New_York",
            ).id
            for name, place in (("Acme Roofing", acme), ("Granite Solar", other))
        }
        ours = clients["Acme Roofing"]
        for client_id, name in ((ours, "acme"), (clients["Granite Solar"], "granite")):
            rows = [{"client_id": client_id, "email": email(name, number)} for number in range(2, PEOPLE + 1)]
            connection.execute(insert(leads), rows)
        connection.execute(
            text("INSERT INTO leads (id, client_id, email) OVERRIDING SYSTEM VALUE VALUES (:id, :client, :email)"),
            {"id": NUMBER, "client": ours, "email": email("acme", 1)},
        )
        connection.execute(text("SELECT setval(pg_get_serial_sequence('leads', 'id'), 5000)"))
        set_workspace(
            connection,
            cipher,
            acme.id,
            base_url=f"{sandbox.url}/emailbison",
            workspace_id=workspace.id,
            token=SecretStr(workspace.token),
        )
        set_calendar(connection, cipher, acme.id, link=LINK)
        set_crm(connection, acme.id, enabled=True)
        set_drafts(connection, acme.id, tone="Friendly and short.")
        connection.execute(
            text(
                "INSERT INTO vendors (id, client_id, name, email, status, status_before_missing) "
                "OVERRIDING SYSTEM VALUE VALUES "
                "(:id, :client, 'Sample Vendor', 'vendor.17@example.com', 'inactive_ghl_deleted', 'active')"
            ),
            {"id": VENDOR, "client": ours},
        )
        _add_draft(connection_values := {"client": ours, "lead": NUMBER}, connection)
        _add_dead_event(connection_values | {"location": acme.id}, connection)


def _add_draft(values: Mapping[str, object], connection: Any) -> None:
    message = connection.execute(
        insert(messages)
        .values(
            client_id=values["client"],
            lead_id=values["lead"],
            provider="ghl",
            external_id="message-of-the-draft",
            channel="sms",
            direction="inbound",
            body="Can you come on Tuesday?",
            source="webhook",
            sent_at=datetime.now(UTC) - timedelta(hours=1),
        )
        .returning(messages.c.id)
    ).scalar_one()
    connection.execute(
        text(
            "INSERT INTO reply_drafts (id, client_id, lead_id, message_id, channel, state, body) "
            "OVERRIDING SYSTEM VALUE VALUES (:number, :client, :lead, :message, 'sms', 'pending', 'Tuesday suits us.')"
        ),
        {**values, "number": NUMBER, "message": message},
    )


def _add_dead_event(values: Mapping[str, object], connection: Any) -> None:
    now = datetime.now(UTC).isoformat()
    body = {
        "type": "ContactUpdate", "locationId": values["location"], "id": "ContactOfTheDeadEvent",
        "email": email("acme", 1), "firstName": "Ada", "lastName": "Sample1", "dateAdded": now, "timestamp": now,
    }  # fmt: skip
    connection.execute(
        text(
            "INSERT INTO webhook_events (id, provider, dedupe_key, client_id, location_id, event_type, body, state, "
            "attempts, error_class, error_text) OVERRIDING SYSTEM VALUE VALUES (:number, 'ghl', 'the dead event', "
            ":client, :location, 'ContactUpdate', :body, 'dead', 8, 'HandlerDied', 'The process that handled it died.')"
        ),
        {**values, "number": NUMBER, "body": msgspec.json.encode(body)},
    )


def _write_files(folder: Path, acme: Location) -> None:
    (folder / "token.txt").write_text(acme.token)
    (folder / "tone.txt").write_text("Friendly and short.")
    (folder / "clients.csv").write_text(
        "name,location_id,token,default_region,time_zone,active\n"
        f"Acme Roofing,{acme.id},{acme.token},US,America/New_York,yes\n"
    )
