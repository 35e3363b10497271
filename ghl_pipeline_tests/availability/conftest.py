"""Clients with calendars in the sandbox, at GHL or Calendly, and availability put together for them.

The parts are the real ones; only retries pause for milliseconds and limits are wide.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text

from ghl_pipeline.availability.availability import Availability, AvailabilityRules
from ghl_pipeline.availability.client_calendars import set_calendar
from ghl_pipeline.availability.report import AvailabilityReport
from ghl_pipeline.calendly.client import CalendlyClient, open_calendly
from ghl_pipeline.calendly.retries import RetryPolicy as CalendlyPolicy
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.ghl.retries import RetryPolicy
from ghl_pipeline.locations.clients import LocationAccess, add_client
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.calendars import Calendar
from ghl_pipeline.sandbox.calendly_users import CalendlyUser
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.conversations.conftest import Unthrottled
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

QUICK = RetryPolicy(max_attempts=2, max_429=1, deadline_seconds=10.0, first_pause_seconds=0.002)
CALENDLY_QUICK = CalendlyPolicy(max_attempts=2, deadline_seconds=5.0, first_pause_seconds=0.002)
RULES = AvailabilityRules(client_seconds=8.0, run_seconds=60.0)
WIDGET = "https://book.example.com/widget"


@dataclass
class Place:
    """A client and its location."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher
    client_id: int
    ghl: Location

    @property
    def id(self) -> str:
        return self.ghl.id

    def set(
        self, link: str | None = None, calendar: Calendar | None = None, calendly: CalendlyUser | None = None
    ) -> None:
        """Gives the client a link, a calendar for when it leads nowhere, a Calendly token."""
        token = None if calendly is None else SecretStr(calendly.token)
        auto = None if calendar is None else calendar.id
        with self.engine.begin() as connection:
            set_calendar(connection, self.cipher, self.id, link=link, calendar_id=auto, calendly_token=token)

    def row(self) -> Mapping[str, object]:
        """The client's calendar as it stands."""
        query = text("SELECT * FROM booking_calendars WHERE client_id = :id")
        with self.engine.connect() as connection:
            return dict(connection.execute(query, {"id": self.client_id}).one()._mapping)

    def state(self) -> tuple[object, object]:
        row = self.row()
        return row["state"], row["reason"]

    def slots(self) -> list[datetime]:
        query = text("SELECT starts_at FROM availability_slots WHERE client_id = :id ORDER BY starts_at")
        with self.engine.connect() as connection:
            return [moment.astimezone(UTC) for moment in connection.execute(query, {"id": self.client_id}).scalars()]

    def store_slots(self, *moments: datetime) -> list[datetime]:
        """Free times as an earlier run left them."""
        insert = text("INSERT INTO availability_slots (client_id, starts_at) VALUES (:id, :at)")
        with self.engine.begin() as connection:
            connection.execute(insert, [{"id": self.client_id, "at": moment} for moment in moments])
        return sorted(moments)

    def change(self, **columns: object) -> None:
        """Changes columns of the client's calendar, as an earlier run, or the dashboard, would have."""
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        with self.engine.begin() as connection:
            connection.execute(
                text(f"UPDATE booking_calendars SET {changes} WHERE client_id = :client"),
                {**columns, "client": self.client_id},
            )

    def requests(self) -> dict[str, int]:
        """Requests to GHL by route, and their number."""
        return {route: sum(counts.values()) for route, counts in self.sandbox.stats(self.id)["by_route"].items()}

    def free(self, calendar: Calendar) -> list[datetime]:
        """What the calendar has in the next 30 days, in UTC."""
        now = datetime.now(UTC)
        return [at.astimezone(UTC) for at in self.ghl.calendars.free(calendar.id, now, now + timedelta(days=30))]


@dataclass
class Agency:
    """Makes clients and refreshes their free times."""

    engine: Engine
    sandbox: Sandbox
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet(Fernet.generate_key())], "this test"))

    def place(self, name: str = "Acme", *, with_token: bool = True) -> Place:
        ghl = self.sandbox.add_location(requests=10_000)
        token = SecretStr(ghl.token) if with_token else None
        with self.engine.begin() as connection:
            client = add_client(connection, self.cipher, name=name, location_id=ghl.id, token=token)
        return Place(self.engine, self.sandbox, self.cipher, client.id, ghl)

    def availability(self, rules: AvailabilityRules = RULES) -> Availability:
        @asynccontextmanager
        async def ghl(access: LocationAccess) -> AsyncIterator[LocationClient]:
            async with open_client(
                base_url=self.sandbox.url,
                location_id=access.location_id,
                token=access.token,
                throttle=Unthrottled(),
                policy=QUICK,
                timeout_seconds=30.0,
            ) as client:
                yield client

        def calendly(location_id: str, token: SecretStr) -> AbstractAsyncContextManager[CalendlyClient]:
            return open_calendly(
                base_url=f"{self.sandbox.url}/_calendly",
                location_id=location_id,
                token=token,
                timeout_seconds=30.0,
                policy=CALENDLY_QUICK,
            )

        return Availability(engine=self.engine, cipher=self.cipher, open_ghl=ghl, open_calendly=calendly, rules=rules)

    async def refresh(self, place: Place, rules: AvailabilityRules = RULES) -> AvailabilityReport:
        """One run for one client."""
        (report,) = (await self.availability(rules).refresh([place.id])).reports
        return report


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox)


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def host(sandbox: Sandbox) -> CalendlyUser:
    return sandbox.world.calendly.add("ada")


def in_hours(*hours: float) -> list[datetime]:
    """Instants so many hours from now."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [now + timedelta(hours=each) for each in hours]
