"""An agency to hydrate: clients with a location in the sandbox, lead rows, and the capability put together for them.

The parts are the real ones; only retries pause for milliseconds and limits are wide, because what is tested here is not
how the client waits.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event, func, insert, select, text, update

from ghl_pipeline.cli.sample_data import load_sample_agency
from ghl_pipeline.database.tables import leads, metadata
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.errors import CallFacts
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.ghl.survey import GroupAnswer, Survey
from ghl_pipeline.ghl.throttle import Limits as ThrottleLimits
from ghl_pipeline.ghl.throttle import LocationThrottle
from ghl_pipeline.hydration.hydration import Hydration, RunResult
from ghl_pipeline.hydration.options import Options, Step
from ghl_pipeline.locations.clients import LocationAccess, add_client, find_client
from ghl_pipeline.locations.learning import record_survey, save_facts
from ghl_pipeline.orchestration.reports import Report
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.agency import SampleAgency, SampleLocation
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.limits import Limits
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.history import RememberedHistory
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

QUICK = RetryPolicy(max_attempts=2, max_429=2, deadline_seconds=10.0, first_pause_seconds=0.002)
TIMEOUT_SECONDS = 5.0
WIDE = Limits(10_000, 10.0, 200_000)
# What a lead needs to be complete, so that a test can leave out the one field it is about.
COMPLETE: dict[str, object] = {
    "email": "ada@example.com",
    "phone": "+13055550123",
    "first_name": "Ada",
    "last_name": "Byron",
    "company_name": "Engines",
}

# So many contacts that pulling them all is never cheaper than looking up the few leads of a test.
FAR_TOO_MANY_TO_PULL = 10_000_000

OpenLocation = Callable[..., AbstractAsyncContextManager[LocationClient]]


class Unthrottled:
    """For tests of single calls, which need no limit and so no database."""

    async def sent(self, at: float) -> None:
        """Has no slot to move."""

    async def acquire(self, facts: CallFacts) -> float:
        """Never waits."""
        return 0.0

    async def refused(self, pause_seconds: float | None) -> None:
        """Does not pause."""

    async def learn(self, max_requests: int, interval_seconds: float) -> None:
        """Has no limit to learn."""


def prefer_lookups(engine: Engine, location_id: str, group_size: int) -> None:
    """Surveys the location in advance: groups of that size and dates are right, case is no matter, a scan hopeless."""
    survey = Survey(FAR_TOO_MANY_TO_PULL, {group_size: GroupAnswer.RIGHT}, case_matters=False)
    record_survey(engine, location_id, survey)
    with engine.begin() as connection:
        save_facts(connection, location_id, group_size, searches_by_date=True)


def strangers(number: int) -> list[Contact]:
    """Contacts of whom no lead knows."""
    return [
        msgspec.structs.replace(contact, email=f"stranger.{contact.email}") for contact in crowd(number, "strangers")
    ]


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing that catches errors may catch it."""


def kill() -> None:
    """Ends the run that calls it."""
    raise Killed


async def until_killed(run: Awaitable[object]) -> None:
    """Awaits a run that is killed."""
    with pytest.raises(BaseExceptionGroup) as caught:
        await run
    assert caught.group_contains(Killed)


@contextmanager
def before_statement(engine: Engine, wanted: Callable[[str, Any], bool], act: Callable[[], object]) -> Iterator[None]:
    """Acts once, before the first statement that is wanted; fails when none came."""
    left = [act]

    def hook(_connection: Connection, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if left and wanted(statement.strip(), parameters):
            left.pop()()

    event.listen(engine, "before_cursor_execute", hook)
    try:
        yield
        assert not left, "the statement never came"
    finally:
        event.remove(engine, "before_cursor_execute", hook)


def page_number(number: int, act: Callable[[], object]) -> Callable[[str, Report], None]:
    """For `RememberedHistory.before_progress`: acts when the page of this number is stored, and not yet told."""
    pages: list[object] = []

    def hook(asset: str, report: Report) -> None:
        # Progress that tells of contacts is the plan's: no lead is looked up at that moment.
        if asset == Step.RESOLVED_CONTACTS and "contacts_pulled" not in report.values:
            pages.append(report.values["position"])
            if len(pages) == number:
                act()

    return hook


@pytest.fixture
def open_location(sandbox: Sandbox) -> OpenLocation:
    """Opens the client of a sandbox location, without a limit: `async with open_location(location) as client`."""

    def opened(location: Location, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
        return open_client(
            base_url=sandbox.url,
            location_id=location.id,
            token=SecretStr(location.token),
            throttle=Unthrottled(),
            policy=QUICK,
            timeout_seconds=timeout_seconds,
        )

    return opened


@dataclass(frozen=True)
class Place:
    """A client of the agency and its location in the sandbox."""

    client_id: int
    ghl: Location

    @property
    def id(self) -> str:
        return self.ghl.id


@dataclass
class Agency:
    """Arranges clients and leads, runs hydration, and shows what became of the rows."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet(Fernet.generate_key())], "this test"))

    def place(self, name: str = "Acme", *, token: str | None = "", **location: Any) -> Place:
        """A client with a location. `token`: its own when empty; None for a client without one."""
        ghl = self.sandbox.add_location(requests=10_000, **location)
        secret = None if token is None else SecretStr(token or ghl.token)
        with self.engine.begin() as connection:
            client = add_client(connection, self.cipher, name=name, location_id=ghl.id, token=secret)
        return Place(client.id, ghl)

    def sample(self, *locations: SampleLocation) -> list[Place]:
        """Locations of the sample agency, with their contacts at GHL and their leads here."""
        places = []
        for sample in locations:
            ghl = self.sandbox.world.add_location(
                sample.id, token=sample.token, contacts=sample.contacts, limits=WIDE, time_zone=sample.time_zone
            )
            with self.engine.begin() as connection:
                load_sample_agency(connection, self.cipher, SampleAgency((sample,)))
                client = find_client(connection, sample.id)
            places.append(Place(client.id, ghl))
        return places

    def prefer_lookups(self, *places: Place, group_size: int = 50) -> None:
        """From now on the places look leads up, at most so many at a time, and make no call to find out how."""
        for place in places:
            prefer_lookups(self.engine, place.id, group_size)

    def lead(self, place: Place, **columns: object) -> int:
        """A lead row with just these columns; returns its id."""
        (lead_id,) = self.leads(place, [columns])
        return lead_id

    def leads(self, place: Place, rows: list[dict[str, object]]) -> list[int]:
        """Lead rows, in order; returns their ids."""
        rows = [{"client_id": place.client_id, **row} for row in rows]
        statement = insert(leads).returning(leads.c.id, sort_by_parameter_order=True)
        with self.engine.begin() as connection:
            return list(connection.execute(statement, rows).scalars())

    def edit(self, lead_id: int, **columns: object) -> None:
        """What a person at the dashboard does."""
        with self.engine.begin() as connection:
            connection.execute(update(leads).where(leads.c.id == lead_id).values(**columns))

    def row(self, lead_id: int) -> dict[str, Any]:
        """The lead's row as it is now."""
        with self.engine.connect() as connection:
            return dict(connection.execute(select(leads).where(leads.c.id == lead_id)).one()._mapping)

    def rows(self) -> list[dict[str, Any]]:
        """All leads in id order, without the times that differ from run to run."""
        times = {"created_at", "updated_at", "enriched_at"}
        columns = [column for column in leads.c if column.name not in times]
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(*columns).order_by(leads.c.id))]

    def linked(self) -> int:
        """How many leads have a contact."""
        return sum(row["ghl_contact_id"] is not None for row in self.rows())

    def sql(self, statement: str, **values: object) -> None:
        """Any statement, e.g. to make something older than it is."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def table(self, name: str) -> list[dict[str, Any]]:
        """Every row of any table, whole."""
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(metadata.tables[name]))]

    def count(self, name: str) -> int:
        """How many rows a table has."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar_one())

    def hydration(self, *, group_size: int = 50) -> Hydration:
        """The capability against the sandbox."""

        @asynccontextmanager
        async def opened(access: LocationAccess) -> AsyncIterator[LocationClient]:
            async with open_client(
                base_url=self.sandbox.url,
                location_id=access.location_id,
                token=access.token,
                throttle=LocationThrottle(self.engine, access.location_id, ThrottleLimits(10_000, 10.0, 200_000)),
                policy=QUICK,
                timeout_seconds=TIMEOUT_SECONDS,
            ) as client:
                yield client

        return Hydration(engine=self.engine, cipher=self.cipher, open_client=opened, default_group_size=group_size)

    async def backfill(
        self, *places: Place, history: RememberedHistory | None = None, group_size: int = 50, **options: Any
    ) -> RunResult:
        """Hydrates the places as one run does."""
        hydration = self.hydration(group_size=group_size)
        remembered = history if history is not None else RememberedHistory()
        return await hydration.run([place.id for place in places], remembered, Options(**options))

    def requests(self, place: Place, route: str | None = None) -> int:
        """How many requests the sandbox has answered for the place, in all or of a route."""
        counts = self.sandbox.stats(place.id)
        if route is None:
            return int(counts["requests"])
        return sum(cast("dict[str, int]", counts["by_route"].get(route, {})).values())


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    """An agency without clients."""
    return Agency(engine, sandbox)
