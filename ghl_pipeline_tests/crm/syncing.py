"""A client whose vendors and leads are kept in step with a location of the sandbox: the whole way, nothing mocked."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text

from ghl_pipeline.crm.client_settings import set_crm
from ghl_pipeline.crm.crm import Crm
from ghl_pipeline.crm.custom_fields import FieldName
from ghl_pipeline.crm.location_sync import CrmRules, LocationSync, SyncOptions
from ghl_pipeline.crm.report import CrmReport
from ghl_pipeline.database.tables import leads, vendors
from ghl_pipeline.ghl.client import LocationClient, open_client
from ghl_pipeline.locations.clients import LocationAccess, add_client, location_access
from ghl_pipeline.locations.opening import OpenClient
from ghl_pipeline.privacy.tokens import TokenCipher
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import QUICK, TIMEOUT_SECONDS, Unthrottled

PROTECTED = frozenset({"booked", "won", "lost", "customer", "do_not_contact"})
RULES = CrmRules(protected=PROTECTED)
KEYS = TokenCipher([Fernet(Fernet.generate_key())], "this test")


@dataclass
class Client:
    """A client that is switched on, its location and its rows."""

    engine: Engine
    sandbox: Sandbox
    name: str = "Acme"
    allow_duplicates: bool = False
    rules: CrmRules = RULES
    ghl: Location = field(init=False)
    client_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.ghl = self.sandbox.add_location(requests=100_000, allow_duplicates=self.allow_duplicates)
        with self.engine.begin() as connection:
            token = SecretStr(self.ghl.token)
            added = add_client(connection, KEYS, name=self.name, location_id=self.ghl.id, token=token)
            set_crm(connection, self.ghl.id, enabled=True)
        self.client_id = added.id
        self.fields: dict[str, str] = {}
        self.open: OpenClient = self._open

    @property
    def id(self) -> str:
        return self.ghl.id

    # --- arranging

    def configure(self, **settings: Any) -> None:
        """As `clients set-crm` does."""
        with self.engine.begin() as connection:
            set_crm(connection, self.id, **settings)

    def values(self, values: Mapping[str, object]) -> tuple[tuple[str, Any], ...]:
        """Values of custom fields by their keys; what the location has not defined yet is defined."""
        for name in values:
            if name not in self.fields:
                self.fields[name] = self.ghl.custom_fields.add(name, field_key=f"contact.{name}").id
        return tuple((self.fields[name], value) for name, value in values.items())

    def contact(self, *, values: Mapping[str, object] | None = None, **fields: object) -> Contact:
        """A contact of the location."""
        return self.ghl.add(**fields, **({"custom_fields": self.values(values)} if values else {}))

    def vendor(self, **fields: object) -> int:
        """A vendor's row."""
        return self._insert(vendors, fields)

    def lead(self, **fields: object) -> int:
        """A lead's row."""
        return self._insert(leads, fields)

    def _insert(self, table: Any, fields: Mapping[str, object]) -> int:
        row = insert(table).values({"client_id": self.client_id, **fields}).returning(table.c.id)
        with self.engine.begin() as connection:
            return int(connection.execute(row).scalar_one())

    def sql(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def faults(self, **faults: object) -> None:
        """From now on the location fails so; counted anew."""
        self.sandbox.faults(self.id, **faults)

    # --- running

    async def sync(
        self, *, full: bool = True, dry_run: bool = False, accept: bool = True, rules: CrmRules | None = None
    ) -> CrmReport:
        """One run; with so few rows, any that is missing is too large a share."""
        options = SyncOptions(full=full, dry_run=dry_run, accept_missing=accept)
        async with self.open(self.access) as client:
            return await LocationSync(self.engine, self.access, client, rules or self.rules, options).run()

    @property
    def access(self) -> LocationAccess:
        with self.engine.connect() as connection:
            return location_access(connection, KEYS, self.id)

    @asynccontextmanager
    async def _open(self, access: LocationAccess) -> AsyncIterator[LocationClient]:
        async with open_client(
            base_url=self.sandbox.url,
            location_id=access.location_id,
            token=access.token,
            throttle=Unthrottled(),
            policy=QUICK,
            timeout_seconds=TIMEOUT_SECONDS,
        ) as client:
            yield client

    def crm(self, rules: CrmRules | None = None) -> Crm:
        """The capability; it works on any client of the database."""
        return Crm(engine=self.engine, cipher=KEYS, open_client=self.open, rules=rules or self.rules)

    # --- looking

    def vendors(self) -> list[dict[str, Any]]:
        return self._rows("vendors")

    def leads(self) -> list[dict[str, Any]]:
        return self._rows("leads")

    def the_vendor(self) -> dict[str, Any]:
        (row,) = self.vendors()
        return row

    def the_lead(self) -> dict[str, Any]:
        (row,) = self.leads()
        return row

    def _rows(self, table: str) -> list[dict[str, Any]]:
        query = text(f"SELECT * FROM {table} WHERE client_id = :id ORDER BY id")
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query, {"id": self.client_id})]

    def state(self, *, without: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
        """Everything of the client that is not of the moment."""
        return {
            table: [{name: value for name, value in row.items() if name not in without} for row in self._rows(table)]
            for table in ("vendors", "leads")
        }

    def asked(self) -> dict[str, Any]:
        """What the location was asked, counted anew."""
        counts = self.sandbox.stats(self.id)
        self.ghl.reset_statistics()
        return counts


ALL_VENDOR_FIELDS: Mapping[str, object] = {
    FieldName.SERVICE_CATEGORIES: ("Roofing", "Gutters, and more"),
    FieldName.SERVICES_OFFERED: "Repair, Skylights",
    FieldName.SERVICE_ZIP_CODES: "FL; Fulton County, GA; 10001",
    FieldName.TAKING_NEW_WORK: "Yes",
    FieldName.LAST_LEAD_ASSIGNED: "2026-05-06T07:08:09Z",
    FieldName.LEAD_CLOSE_PERCENTAGE: "45.5%",
    FieldName.PRIMARY_SERVICE_CATEGORY: "Roofing",
    FieldName.GHL_USER_ID: "user0000000000000001",
}


class Killed(BaseException):
    """The process ends here: nothing that catches errors may catch it."""
