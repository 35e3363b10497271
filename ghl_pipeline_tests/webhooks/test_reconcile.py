"""What EmailBison's webhooks lost is found in its log: once, of the right workspace, and without a gap."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, Table, func, select

from ghl_pipeline.database.tables import emailbison_workspaces, leads, messages, webhook_events
from ghl_pipeline.emailbison.client import WorkspaceClient
from ghl_pipeline.emailbison.errors import EmailBisonUnavailable, EmailBisonWrongWorkspace
from ghl_pipeline.emailbison.payloads import Page
from ghl_pipeline.locations.clients import add_client
from ghl_pipeline.locations.emailbison import set_workspace
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent, BisonLead
from ghl_pipeline.sandbox.workspaces import RecordedEvent, Workspace
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.inbox.store_events import Delivery, store_deliveries
from ghl_pipeline.webhooks.reading.emailbison_events import USED_TYPES
from ghl_pipeline.webhooks.reading.read_event import read_event
from ghl_pipeline.webhooks.reconciling.many_workspaces import Reconciling
from ghl_pipeline.webhooks.reconciling.one_workspace import ReconcileReport, reconcile_location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


class Agency:
    """A client with a workspace at the sandbox."""

    def __init__(self, engine: Engine, sandbox: Sandbox) -> None:
        self.engine, self.sandbox = engine, sandbox
        self.cipher = TokenCipher([Fernet(Fernet.generate_key())], "this test")
        self.settings = Settings(emailbison_timeout_seconds=5, emailbison_overlap_seconds=600)
        self.location_id = sandbox.add_location().id
        people = [BisonLead(id=number, email=f"lead.{number}@example.com") for number in range(1, 41)]
        self.workspace: Workspace = sandbox.world.add_workspace(self.location_id, leads=people)
        with engine.begin() as connection:
            self.client_id = add_client(connection, self.cipher, name="Acme", location_id=self.location_id).id
        self.use(self.workspace.id, SecretStr(self.workspace.token))

    def use(self, workspace_id: int, token: SecretStr | None) -> None:
        with self.engine.begin() as connection:
            url = f"{self.sandbox.url}/emailbison"
            set_workspace(
                connection, self.cipher, self.location_id, base_url=url, workspace_id=workspace_id, token=token
            )

    async def reconcile(self, now: datetime | None = None) -> ReconcileReport:
        return await reconcile_location(self.settings, self.engine, self.cipher, self.location_id, now=now)

    def happens(self, kind: BisonEvent, lead: int, *, ago: timedelta = timedelta()) -> RecordedEvent:
        at = datetime.now(UTC) - ago
        return self.workspace.happens(kind, self.workspace.leads[lead], now=int(at.timestamp() * 1000))

    def deliver(self, event: RecordedEvent) -> None:
        """As the webhook does."""
        body = msgspec.json.encode(event.payload)
        read = read_event(Provider.EMAILBISON, body, location_id=self.location_id)
        store_deliveries(self.engine, [Delivery(read, body, self.client_id, self.location_id)])

    def requests(self) -> int:
        """Sent for the log so far."""
        sent = self.workspace.statistics.as_counts()["requests"]
        assert isinstance(sent, int)
        return sent

    def count(self, table: Table = webhook_events) -> int:
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    def seen_until(self) -> datetime | None:
        with self.engine.connect() as connection:
            until: datetime | None = connection.execute(select(emailbison_workspaces.c.events_seen_until)).scalar_one()
            return until


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox)


async def test_lost_events_are_stored_with_their_leads_and_messages(agency: Agency) -> None:
    for lead in range(1, 31):
        agency.happens(BisonEvent.LEAD_REPLIED, lead, ago=timedelta(hours=lead))

    report = await agency.reconcile()

    assert (report.seen, report.new, report.known, report.skipped) == (30, 30, 0, None)
    assert (agency.count(), agency.count(leads), agency.count(messages)) == (30, 30, 30)
    with agency.engine.connect() as connection:
        found_by = set(connection.execute(select(webhook_events.c.found_by)).scalars())
        sources = set(connection.execute(select(messages.c.source)).scalars())
    assert (found_by, sources) == ({"reconcile"}, {"reconcile"})


async def test_looking_again_changes_nothing(agency: Agency) -> None:
    agency.happens(BisonEvent.LEAD_INTERESTED, 1)
    agency.happens(BisonEvent.LEAD_UNSUBSCRIBED, 2)

    first, again = await agency.reconcile(), await agency.reconcile()

    assert (first.new, first.known) == (2, 0)
    assert (again.new, again.known) == (0, 2)
    assert agency.count() == 2


async def test_what_the_webhook_brought_is_known_and_what_it_brings_late_is_no_second_event(agency: Agency) -> None:
    delivered, lost = agency.happens(BisonEvent.LEAD_REPLIED, 1), agency.happens(BisonEvent.LEAD_REPLIED, 2)
    agency.deliver(delivered)

    report = await agency.reconcile()
    agency.deliver(lost)

    assert (report.new, report.known) == (1, 1)
    assert (agency.count(), agency.count(leads), agency.count(messages)) == (2, 2, 2)


async def test_events_that_do_nothing_here_are_not_asked_for(agency: Agency) -> None:
    """A busy workspace sends thousands of e-mails a day, each an event, fifteen to a page."""
    for kind in (BisonEvent.EMAIL_SENT, BisonEvent.EMAIL_OPENED, BisonEvent.TAG_ATTACHED):
        for lead in range(1, 41):
            agency.happens(kind, lead)
    await agency.reconcile(datetime.now(UTC) - timedelta(days=1))
    agency.happens(BisonEvent.LEAD_REPLIED, 1)
    before = agency.requests()

    report = await agency.reconcile()

    assert (report.seen, report.of_no_use, report.new) == (1, 0, 1)
    assert agency.count() == 1
    # One page for each type, of two days or, within minutes of midnight, of three.
    assert agency.requests() - before <= 3 * len(USED_TYPES)


async def test_a_log_that_heeds_no_type_gives_each_event_once_all_the_same(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (BisonEvent.LEAD_REPLIED, BisonEvent.LEAD_UNSUBSCRIBED, BisonEvent.EMAIL_SENT):
        agency.happens(kind, 1)
    whole = WorkspaceClient.pages

    def of_all_types(self: WorkspaceClient, route: str, params: Mapping[str, str]) -> AsyncIterator[Page]:
        return whole(self, route, {name: value for name, value in params.items() if name != "type"})

    monkeypatch.setattr(WorkspaceClient, "pages", of_all_types)
    report = await agency.reconcile()
    assert (report.seen, report.new, agency.count()) == (2, 2, 2)


async def test_a_look_begins_a_little_before_the_last_one_and_ten_days_back_at_most(agency: Agency) -> None:
    now = datetime.now(UTC)

    first = await agency.reconcile(now)
    second = await agency.reconcile(now + timedelta(hours=1))
    late = await agency.reconcile(now + timedelta(days=30))

    assert (first.start, first.until) == (now - timedelta(days=10), now)
    assert second.start == now - timedelta(seconds=600)
    assert late.start == now + timedelta(days=20)
    assert agency.seen_until() == now + timedelta(days=30)


async def test_a_look_that_broke_off_goes_on_with_the_day_at_which_it_did(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    bad_day = today - timedelta(days=2)
    for number in range(20):
        agency.happens(BisonEvent.LEAD_REPLIED, number + 1, ago=now - (bad_day - timedelta(hours=number / 2 + 1)))
        agency.happens(BisonEvent.LEAD_REPLIED, number + 1, ago=now - (bad_day + timedelta(hours=number / 2 + 1)))
    whole = WorkspaceClient.pages

    async def one_page_of_a_day(self: WorkspaceClient, route: str, params: Mapping[str, str]) -> AsyncIterator[Page]:
        async for page in whole(self, route, params):
            yield page
            if page.rows and params["start_date"] == f"{bad_day:%Y-%m-%d}":
                raise EmailBisonUnavailable(self.workspace_id, route)

    with monkeypatch.context() as broken:
        broken.setattr(WorkspaceClient, "pages", one_page_of_a_day)
        with pytest.raises(EmailBisonUnavailable):
            await agency.reconcile(now)
    assert (agency.count(), agency.seen_until()) == (35, bad_day)

    report = await agency.reconcile(now)
    assert report.start == bad_day - timedelta(seconds=600)
    assert (report.new, report.known, agency.count()) == (5, 15, 40)
    assert agency.seen_until() == now


async def test_a_log_that_nobody_can_read_is_not_taken_for_an_empty_one(agency: Agency) -> None:
    began = datetime.now(UTC)
    for lead in (1, 2):
        agency.happens(BisonEvent.LEAD_REPLIED, lead).payload = {"something": "new"}

    unreadable = await agency.reconcile()
    assert (unreadable.seen, unreadable.unreadable) == (2, 2)
    until = agency.seen_until()
    assert until is not None
    assert until < began

    agency.happens(BisonEvent.LEAD_REPLIED, 3)
    partly = await agency.reconcile()
    assert (partly.seen, partly.unreadable, partly.new) == (3, 2, 1)
    assert agency.seen_until() == partly.until


async def test_a_token_of_another_workspace_is_said_and_the_ten_days_are_not_lost_by_it(agency: Agency) -> None:
    agency.happens(BisonEvent.LEAD_REPLIED, 1, ago=timedelta(days=8))
    right = SecretStr(agency.workspace.token)
    other = agency.sandbox.world.add_workspace(
        agency.sandbox.add_location().id, leads=list(agency.workspace.leads.values())
    )
    at = int((datetime.now(UTC) - timedelta(days=5)).timestamp() * 1000)
    other.happens(BisonEvent.LEAD_REPLIED, other.leads[2], now=at)
    agency.use(agency.workspace.id, SecretStr(other.token))

    with pytest.raises(EmailBisonWrongWorkspace, match="set-emailbison") as said:
        await agency.reconcile()
    assert other.token not in str(said.value)
    assert (agency.count(), agency.count(leads)) == (0, 0)
    again = agency.seen_until()
    with pytest.raises(EmailBisonWrongWorkspace):
        await agency.reconcile()
    assert agency.seen_until() == again

    agency.use(agency.workspace.id, right)
    assert (await agency.reconcile()).new == 1


async def test_a_workspace_whose_every_event_is_refused_fails_its_location_for_the_operator(agency: Agency) -> None:
    agency.happens(BisonEvent.LEAD_REPLIED, 1)
    agency.use(agency.workspace.id + 1, SecretStr(agency.workspace.token))

    result = await Reconciling(agency.settings, agency.engine, agency.cipher).run([agency.location_id])

    assert result.reports == {}
    (failure,) = result.failures
    assert failure.error_class == "EmailBisonWrongWorkspace"
    assert (agency.count(), agency.count(leads)) == (0, 0)


async def test_a_client_without_workspace_or_token_is_skipped_with_the_reason(agency: Agency) -> None:
    agency.use(agency.workspace.id + 1, None)  # another workspace: its token is not known
    without_token = await agency.reconcile()
    with agency.engine.begin() as connection:
        connection.execute(emailbison_workspaces.delete())
    without_workspace = await agency.reconcile()

    assert without_token.skipped == "the client's EmailBison workspace has no token"
    assert without_workspace.skipped == "the client has no EmailBison workspace"
    assert (without_token.seen, without_token.until) == (0, None)
