"""Canaries go through the capabilities that came after hydration and events: vendors, drafts, free times, accounts.

As in `test_canary.py`, whose story this goes on: everything is done by the command line and as Dagster's ops, with bugs
that quote people, with providers that are down, refuse their tokens or repeat the prompt in their errors, and well.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, insert, text

from ghl_pipeline.crm.custom_fields import FieldName
from ghl_pipeline.database.tables import leads, messages, vendors
from ghl_pipeline.definitions import build_defs
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.orchestration.partition_sync import sync_partitions
from ghl_pipeline.orchestration.runs import RunSummary, run_locations
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline.settings import Settings
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.privacy.canaries import (
    CANARIES,
    EMAIL,
    TOKEN,
    Order,
    Shell,
    assert_found_nowhere,
    files_under,
    open_shell,
)

BISON_TOKEN = "7|zyxToken0000000000000000000000000000c0de"
CALENDLY_TOKEN = "eyJzyxCalendly.0123456789abcdef0123456789abcdef0000c0de"
# Each end is searched for by itself: a provider's 401 shows the first eight characters of a key and the last four.
OPENAI_KEY, ANTHROPIC_KEY = "sk-zyxgz-openai-0000c0de", "sk-zyxgq-anthropic-0000c0de"
TONE = "Speak as Gloamspire does, and name 305-555-0187."
COVERAGE = "Vantwhistle Gorge; 33101; everything that Quorvath likes"
SAID = "Quorvath here, the umberlark roof leaks, write to zyxwinda.1@example.com or call 305-555-0187. Code {}"
DRAFT = "Dear Quorvath, Marzibund mends your roof. Book at {} or call 305-555-0187."
SLUG = "plinthorn-roof"
WORDS = (
    *("Gloamspire", "Vantwhistle", "umberlark", "Marzibund", "plinthorn", "Tatterquell"),
    # The rules are no secret, and yet part of a prompt; nobody has a reason to tell them.
    "You write a text message",
)
SECRETS = (BISON_TOKEN, CALENDLY_TOKEN, "eyJzyxCal", "sk-zyxgz", "sk-zyxgq")
# What both providers do with the message that has the word in it.
FAULTS = (
    *("400", "500", "429:1", "529", "html", "garbage", "disconnect", "refusal", "filtered", "cut_off", "empty"),
    *("reasoning_only", "failed", "hang", "says:Go to https://evil.example.com/Quorvath"),
)
JOBS: Mapping[str, tuple[str, dict[str, object]]] = {
    "sync_crm": ("crm_sync", {"full": True, "accept_missing": True}),
    "write_drafts": ("draft_writing", {"again": True}),
    "refresh_availability": ("availability_refresh", {}),
    "sync_senders": ("sender_sync", {}),
}
COMMANDS = (
    ("crm-sync", "--yes", "--full", "--accept-missing"),
    ("drafts", "write", "--again"),
    ("availability",),
    ("senders", "sync"),
)
CAPABILITIES = ("crm", "drafts", "availability", "senders")
# One function in the midst of each capability.
TRAPS = (
    "ghl_pipeline.crm.location_sync:make_plan",
    "ghl_pipeline.drafts.draft:unusable",
    "ghl_pipeline.availability.refresh:bookable",
    "ghl_pipeline.senders.senders:store_accounts",
)
# Each is broken by every row that the capability writes; PostgreSQL's error then quotes the row.
REFUSED_ROWS = {
    "vendors": "service_zip_codes IS NULL",
    "leads": "last_name IS NULL",
    "reply_drafts": "body IS NULL",
    "booking_calendars": "state = 'never'",
    "sender_accounts": "email IS NULL",
    "draft_clients": "tone IS NULL",
}


@dataclass
class Place:
    """A client with everything, and one whose link is a page of GHL's."""

    shell: Shell
    engine: Engine
    sandbox: Sandbox
    instance: DagsterInstance
    ghl: Location
    other: Location
    workspace: Workspace
    host: CalendlyUser
    link: str
    vendors: list[str]

    @property
    def locations(self) -> list[str]:
        return [self.ghl.id, self.other.id]

    @property
    def draft(self) -> str:
        """What the models answer when all is well."""
        return "says:" + DRAFT.format(self.link)

    def says(self) -> str:
        """What a bug quotes: whatever it could lay its hands on."""
        people = f"{EMAIL.format(1)} Quorvath Brindlemoth (305) 555-0187"
        written = f"{SAID} {TONE} {DRAFT} {COVERAGE} {self.link} Tatterquell"
        return " ".join((people, written, TOKEN, *SECRETS, OPENAI_KEY, ANTHROPIC_KEY))

    def told(self, *orders: Order | tuple[str, ...], traps: tuple[str, ...] = ()) -> None:
        """Gives commands; the traps are functions that have a bug meanwhile."""
        self.shell.run(*orders, traps=traps, says=self.says())

    def run(self, job: str) -> RunSummary:
        """A run of one of the jobs, with resources from the settings as a deployment has them."""
        op, config = JOBS[job]
        return run_locations(
            build_defs({"engine": self.engine}), job=job, op=op, instance=self.instance, locations=self.locations,
            config=config,
        )  # fmt: skip

    def runs(self) -> list[bool]:
        """A run of each job; whether each ended well."""
        return [self.run(job).succeeded for job in JOBS]

    def runs_elsewhere(self, *, codes: tuple[int, ...] = (0,)) -> list[Order]:
        """The same as commands, in a process whose logs go where a deployment's go, and so into the compute logs."""
        return [
            Order(("dagster", job, op, json.dumps(config), *self.locations), codes)
            for job, (op, config) in JOBS.items()
        ]

    def lets_fail(self, of_calls: Mapping[str, object], of_emailbison: Mapping[str, object]) -> None:
        """GHL and Calendly fail so from now on, and EmailBison, whose client tries for minutes, in its own way."""
        for key in (*self.locations, self.host.faults_key):
            self.sandbox.faults(key, **of_calls)
        self.sandbox.faults(self.workspace.faults_key, **of_emailbison)

    def number(self, query: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def failures(self, error_class: str) -> dict[str, int]:
        """Attempts at the client that ended with an error of this class, by capability."""
        query = """SELECT capability, count(*) FROM location_attempts
                   WHERE error_class = :error AND location_id = :location GROUP BY capability"""
        with self.engine.connect() as connection:
            rows = connection.execute(text(query), {"error": error_class, "location": self.ghl.id})
            return {str(capability): int(count) for capability, count in rows}

    @contextmanager
    def refusing_rows(self) -> Iterator[None]:
        """While it lasts, the database refuses what is written, with errors that quote it."""
        with self.engine.begin() as connection:
            for table, rule in REFUSED_ROWS.items():
                connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT trap CHECK ({rule}) NOT VALID"))
        yield
        with self.engine.begin() as connection:
            for table in REFUSED_ROWS:
                connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT trap"))


@pytest.fixture
def place(
    engine: Engine,
    project: Settings,
    sandbox: Sandbox,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Place]:
    world = sandbox.world
    world.llm.openai.key, world.llm.anthropic.key = OPENAI_KEY, ANTHROPIC_KEY
    for name, value in {
        "GHL_MAX_ATTEMPTS": "2",
        "GHL_CALL_DEADLINE_SECONDS": "2",
        "AVAILABILITY_CLIENT_SECONDS": "4",
        "CALENDLY_API_URL": f"{sandbox.url}/_calendly",
        "OPENAI_API_KEY": OPENAI_KEY,
        "OPENAI_BASE_URL": f"{sandbox.url}/_llm/openai/v1",
        "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
        "ANTHROPIC_BASE_URL": f"{sandbox.url}/_llm/anthropic",
    }.items():
        monkeypatch.setenv(name, value)
    ghl, other = world.add_location(token=TOKEN), sandbox.add_location()
    other.calendars.add("Roof", widget_slug=SLUG)
    host = world.calendly.add("plinthorn", token=CALENDLY_TOKEN)
    host.add_event_type("Intro")
    workspace = world.add_workspace(ghl.id, token=BISON_TOKEN)
    for sender in (1, 2):
        workspace.mailboxes.change(sender, email=f"zyxwinda.box{sender}@example.com", name="Tatterquell Brindlemoth")
    workspace.mailboxes.change(3, email="zyxwinda.box3@example.com", status="Disconnected: zyxwinda.box3@example.com")
    with engine.begin() as connection:
        cipher = TokenCipher.from_settings(project)
        client = add_client(connection, cipher, name="Acme", location_id=ghl.id, token=SecretStr(TOKEN))
        add_client(connection, cipher, name="Other", location_id=other.id, token=SecretStr(other.token))
    known = add_market(engine, ghl, client.id)
    add_conversations(engine, ghl, client.id)
    sync_partitions(instance, [ghl.id, other.id])
    link = "https://calendly.com/plinthorn/intro"
    with open_shell(tmp_path) as shell:
        yield Place(shell, engine, sandbox, instance, ghl, other, workspace, host, link, known)


def add_market(engine: Engine, ghl: Location, client_id: int) -> list[str]:
    """Vendors with canaries in every field, some known, and one whose contact is gone; returns the others' ids."""
    values = {
        FieldName.SERVICE_ZIP_CODES: COVERAGE,
        FieldName.SERVICE_CATEGORIES: "Vantwhistle, Quorvath",
        FieldName.SERVICES_OFFERED: "Vantwhistle",
        FieldName.PRIMARY_SERVICE_CATEGORY: "Vantwhistle",
        FieldName.TAKING_NEW_WORK: "Only for Quorvath",
        FieldName.LEAD_CLOSE_PERCENTAGE: "Quorvath",
        FieldName.LAST_LEAD_ASSIGNED: "when Vantwhistle called",
    }
    fields = tuple((ghl.custom_fields.add(n, field_key=f"contact.{n}").id, value) for n, value in values.items())
    rows: list[dict[str, object]] = []
    there: list[str] = []
    for number in range(8):
        email = EMAIL.format(f"vendor{number}")
        contact = ghl.add(
            first_name="Quorvath", last_name="Brindlemoth", company_name="Vantwhistle Inc", email=email,
            phone="(305) 555-0187", tags=("new vendor", "tag of umberlark"), custom_fields=fields,
        )  # fmt: skip
        there.append(contact.id)
        rows += [{"client_id": client_id, "email": email, "ghl_contact_id": None}] if number % 2 else []
    gone = ghl.add(email=EMAIL.format("gone"), tags=("new vendor",))
    rows.append({"client_id": client_id, "email": EMAIL.format("gone"), "ghl_contact_id": gone.id})
    # A contact id that somebody typed, which is none.
    rows.append({"client_id": client_id, "email": EMAIL.format("typed"), "ghl_contact_id": "Quorvath Brindlemoth"})
    with engine.begin() as connection:
        connection.execute(insert(vendors), rows)
    ghl.remove(gone.id)
    return there


def add_conversations(engine: Engine, ghl: Location, client_id: int) -> None:
    """Leads that wrote, each with its own fault of the providers', the last two with none; their accounts are amiss."""
    with engine.begin() as connection:
        for number in range(len(FAULTS) + 2):
            email = EMAIL.format(number)
            contact = ghl.add(first_name="Quorvath", last_name="Brindlemoth", email=email, tags=("new lead",))
            lead = {
                "client_id": client_id, "first_name": "Quorvath", "email": email, "emailbison_sender_id": 3,
                "emailbison_campaign_id": 1, "ghl_contact_id": contact.id if number % 2 else None,
            }  # fmt: skip
            is_email = number == len(FAULTS)
            message = {
                "client_id": client_id,
                "lead_id": connection.execute(insert(leads).values(lead).returning(leads.c.id)).scalar_one(),
                "provider": "emailbison" if is_email else "ghl",
                "channel": "email" if is_email else "sms",
                "is_interested": is_email,
                "external_id": f"message-{number}",
                "direction": "inbound",
                "subject": "About Quorvath's roof",
                "body": SAID.format(code(number)),
                "source": "webhook",
                "sent_at": datetime.now(UTC) - timedelta(minutes=5),
            }
            connection.execute(insert(messages).values(message))


def code(number: int) -> str:
    """The word by which the sandbox's models tell one message from another."""
    return f"code-{number}-end"


@pytest.mark.slow
def test_nobody_we_answer_and_no_way_to_them_is_found_outside_the_tables_for_it(
    place: Place,
    dagster_url: URL,
    project: Settings,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = place.sandbox.world.llm
    where, other = place.locations
    bison = ("clients", "set-emailbison", where, "--url", f"{place.sandbox.url}/emailbison")
    # What the SDKs' own switch for talking does.
    for name in ("openai", "anthropic", "httpx2", "httpcore2"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    place.told(
        ("clients", "set-crm", where, "--on"),
        ("clients", "set-drafts", where, "--tone", TONE),
        Order(("clients", "set-calendar", where, "--link", place.link, "--calendly-token"), typed=CALENDLY_TOKEN),
        ("clients", "set-calendar", other, "--link", f"https://book.example.com/widget/bookings/{SLUG}", "--json"),
        Order((*bison, "--workspace", str(place.workspace.id)), typed=BISON_TOKEN),
    )
    with caplog.at_level(logging.DEBUG):
        have_bugs(place)
        meet_trouble(place, monkeypatch)
        # At last all is well.
        place.sandbox.faults()
        for model in models:
            model.be_well()
            model.always(place.draft)
        monkeypatch.setenv("DRAFT_SMS_DEADLINE_SECONDS", "30")
        monkeypatch.setenv("AVAILABILITY_CLIENT_SECONDS", "20")
        place.told(*place.runs_elsewhere())
    # So many vendors are gone now that a person has to believe it first.
    for contact_id in place.vendors:
        place.ghl.remove(contact_id)
    first = str(place.number("SELECT min(id) FROM reply_drafts WHERE state = 'pending'"))
    second = str(place.number("SELECT max(id) FROM reply_drafts WHERE state = 'pending'"))
    lead = str(place.number("SELECT min(id) FROM leads"))
    place.told(
        Order(("crm-sync", "--yes", "--full", "--json"), expect=1),
        ("crm-sync", "--yes", "--full", "--accept-missing"), ("crm-sync", "--dry-run", "--json"),
        ("drafts", "write", "--json"), ("drafts", "list"), ("drafts", "list", "--json"), ("drafts", "show", first),
        ("drafts", "show", first, "--json"), ("drafts", "approve", first), ("drafts", "reject", second, "--json"),
        ("availability", "--json"), ("senders", "sync", "--json"), ("senders", "list"), ("senders", "list", "--json"),
        ("senders", "heal", lead, "--refused", "1"), ("senders", "heal", lead, "--json"), ("status",),
        ("status", "--json"), ("clients", "list"), Order(("clients", "set-calendar", where, "--calendar", SLUG), 2),
    )  # fmt: skip
    assert_everybody_went_through(place)

    streams = capfd.readouterr()
    printed = (place.shell.printed, caplog.text, streams.out, streams.err)
    assert any("compute_logs" in str(path) and content for path, content in files_under(project.home))
    canaries = (*CANARIES, *WORDS, *SECRETS)
    assert_found_nowhere(printed, canaries, place.engine, dagster_url, project)


def have_bugs(place: Place) -> None:
    """Bugs whose texts quote people: first the project's own, then the database's errors, which quote whole rows."""
    failing = [Order(words, expect=1) for words in COMMANDS]
    with pytest.MonkeyPatch.context() as patch:
        for trap in TRAPS:
            patch.setattr(trap.replace(":", "."), _Bug(place.says()))
        assert place.runs() == [False] * 4
    place.told(*failing, traps=TRAPS)
    assert place.failures("ValueError") == dict.fromkeys(CAPABILITIES, 2)
    with place.refusing_rows():
        place.told(
            *place.runs_elsewhere(codes=(1,)),
            *failing,
            Order(("clients", "set-drafts", place.ghl.id, "--tone", f"{TONE} Always."), expect=70),
        )
    assert place.failures("IntegrityError") == dict.fromkeys(CAPABILITIES, 2)


class _Bug:
    """A function with a bug whose text quotes everything it can lay its hands on."""

    def __init__(self, says: str) -> None:
        self._says = says

    def __call__(self, *_: object, **__: object) -> None:
        # Made elsewhere: the logged stack quotes this line of code, as it may.
        raise ValueError(self._says)


def meet_trouble(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers that are down, answer with what is none, refuse tokens and keys, or repeat the prompt."""
    models = place.sandbox.world.llm
    monkeypatch.setenv("DRAFT_SMS_DEADLINE_SECONDS", "1.5")
    for model in models:
        model.always(place.draft)
        for number, fault in enumerate(FAULTS):
            model.when(code(number), fault)
    place.lets_fail(
        {"error_rate": 0.4, "drop_rate": 0.3, "garbage_rate": 0.3, "seed": 3}, {"error_rate": 1, "times": 2}
    )
    place.runs()
    place.told(*(Order(words, expect=(0, 1)) for words in COMMANDS))
    assert any("umberlark" in request.prompt for model in models for request in model.requests)
    # Keys and tokens that are none any more; the texts of both providers show the ends of a wrong key.
    models.openai.key = models.anthropic.key = "another"
    place.lets_fail({"token_revoked": True}, {"token_revoked": True})
    place.told(
        *place.runs_elsewhere(codes=(0, 1)), *(Order(words, expect=(0, 1)) for words in COMMANDS), ("status", "--json")
    )
    models.openai.key, models.anthropic.key = OPENAI_KEY, ANTHROPIC_KEY
    # Half of what may be asked.
    place.lets_fail(
        {"missing_scopes": ("locations/customFields.readonly", "calendars.readonly")}, {"garbage_rate": 1, "times": 1}
    )
    place.runs()


def assert_everybody_went_through(place: Place) -> None:
    """The canaries are where they belong, and each failure was one."""
    number = place.number
    assert number("SELECT count(*) FROM vendors WHERE name = 'Quorvath Brindlemoth'") == 8
    assert number("SELECT count(*) FROM vendors WHERE coverage_unread::text LIKE '%Vantwhistle%'") == 8
    assert number("SELECT count(*) FROM vendors WHERE status_before_missing IS NOT NULL") == 9
    assert number("SELECT count(*) FROM leads WHERE last_name = 'Brindlemoth'") == len(FAULTS) + 2
    assert number("SELECT count(*) FROM reply_drafts WHERE body LIKE '%Marzibund%'") == len(FAULTS) + 2
    assert number("SELECT count(*) FROM booking_calendars WHERE state = 'fresh'") == 2
    assert number("SELECT count(*) FROM sender_accounts WHERE name LIKE 'Tatterquell%'") == 2
    assert number("SELECT count(*) FROM sender_accounts WHERE status LIKE 'Disconnected: %'") == 1
    assert number("SELECT count(*) FROM sender_healings") >= len(FAULTS) + 2
