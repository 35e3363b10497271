"""A client with vendors, leads and a location, and one fetch of it, for the tests of who is fetched and who is gone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text

from ghl_pipeline.crm.fetch import fetch
from ghl_pipeline.crm.fetch_rules import FetchRules
from ghl_pipeline.crm.fetched import Fetched
from ghl_pipeline.crm.identifiers import Identifiers, KnownRow, Side, load_identifiers
from ghl_pipeline.crm.memory import load_remembered, remember
from ghl_pipeline.database.tables import crm_clients, leads, vendors
from ghl_pipeline.ghl.client import open_client
from ghl_pipeline.hydration.knowledge import LocationKnowledge
from ghl_pipeline.locations.learning import load_learned
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import QUICK, TIMEOUT_SECONDS, Agency, Place, Unthrottled, prefer_lookups

SEARCH, GET_CONTACT, OPPORTUNITIES = "POST /contacts/search", "GET /contacts/{id}", "GET /opportunities/search"


@dataclass
class Market:
    """Arranges a client's rows and its location's contacts, and fetches as one run does."""

    engine: Engine
    sandbox: Sandbox
    place: Place = field(init=False)

    def __post_init__(self) -> None:
        self.place = Agency(self.engine, self.sandbox).place()
        with self.engine.begin() as connection:
            connection.execute(insert(crm_clients).values(client_id=self.place.client_id))

    # --- arranging

    def crowd(self, number: int, **fields: object) -> list[Contact]:
        """Contacts of the location, each with its e-mail."""
        people = [msgspec.structs.replace(contact, **fields) for contact in crowd(number, "market")]
        self.place.ghl.load(people)
        return people

    def add(self, **fields: object) -> Contact:
        """One contact."""
        return self.place.ghl.add(**fields)

    def vendors(self, rows: Sequence[dict[str, object]]) -> list[int]:
        """Vendor rows; their ids in order."""
        return self._insert(vendors, rows)

    def leads(self, rows: Sequence[dict[str, object]]) -> list[int]:
        """Lead rows; their ids in order."""
        return self._insert(leads, rows)

    def _insert(self, table: Any, rows: Sequence[dict[str, object]]) -> list[int]:
        if not rows:
            return []
        statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
        with self.engine.begin() as connection:
            names = dict.fromkeys(name for row in rows for name in row)
            values = [{"client_id": self.place.client_id, **names, **row} for row in rows]
            return list(connection.execute(statement, values).scalars())

    def sql(self, statement: str, **values: object) -> None:
        """Any statement, e.g. to make something older than it is."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def survey(self, group_size: int = 100) -> None:
        """The location is known: groups of that size and dates are right, case is no matter."""
        prefer_lookups(self.engine, self.place.id, group_size)
        self.sql("UPDATE location_learning SET contacts = NULL")

    def weeks_pass(self, days: int = 8) -> None:
        """What is remembered is so much older."""
        self.sql("UPDATE crm_clients SET full_pass_at = full_pass_at - make_interval(days => :days)", days=days)
        self.sql("UPDATE crm_lookups SET looked_up_at = looked_up_at - make_interval(days => :days)", days=days)

    def faults(self, **faults: object) -> None:
        """From now on the location fails so; counted anew."""
        self.sandbox.faults(self.place.id, **faults)

    # --- running

    async def fetch(self, *, rules: FetchRules | None = None, discover: bool = False, full: bool = False) -> Fetched:
        """One fetch that nobody remembers."""
        fetched, _ = await self._fetch(rules or FetchRules(), discover=discover, full=full)
        return fetched

    async def run(self, *, rules: FetchRules | None = None, discover: bool = False, full: bool = False) -> Fetched:
        """One fetch, whose outcome is written as far as it matters here (links), and remembered."""
        fetched, identifiers = await self._fetch(rules or FetchRules(), discover=discover, full=full)
        with self.engine.begin() as connection:
            self._link(identifiers, fetched)
            remember(connection, self.place.client_id, identifiers, fetched)
        return fetched

    async def _fetch(self, rules: FetchRules, *, discover: bool, full: bool) -> tuple[Fetched, Identifiers]:
        learned = load_learned(self.engine, self.place.id, 50)
        with self.engine.connect() as connection:
            identifiers = load_identifiers(connection, self.place.client_id)
            remembered = load_remembered(connection, self.place.client_id)
        async with open_client(
            base_url=self.sandbox.url,
            location_id=self.place.id,
            token=SecretStr(self.place.ghl.token),
            throttle=Unthrottled(),
            policy=QUICK,
            timeout_seconds=TIMEOUT_SECONDS,
        ) as client:
            knowledge = LocationKnowledge(client, learned, self.engine, detailed=True)
            fetched = await fetch(client, knowledge, identifiers, remembered, rules, discover=discover, full=full)
        return fetched, identifiers

    def _link(self, identifiers: Identifiers, fetched: Fetched) -> None:
        """Links rows without a living link by their e-mail or opportunity, as whoever writes does."""
        by_email = {(c.email or "").strip().lower(): c.id for c in fetched.contacts.values()}
        for row in identifiers.rows:
            if row.contact_id in fetched.contacts:
                continue
            contact = by_email.get(row.email or "") or fetched.contact_of_opportunity.get(row.opportunity_id or "")
            if contact is not None and row.key in fetched.found:
                table = "vendors" if row.side is Side.VENDOR else "leads"
                self.sql(f"UPDATE {table} SET ghl_contact_id = :c WHERE id = :id", c=contact, id=row.id)

    # --- looking

    def known(self) -> dict[tuple[Side, int], KnownRow]:
        """The rows as a run would load them."""
        with self.engine.connect() as connection:
            return {row.key: row for row in load_identifiers(connection, self.place.client_id).rows}

    def asked(self) -> dict[str, int]:
        """Requests to the location: in all, by route, and contact searches by what they select by. Counted anew."""
        counts = self.sandbox.stats(self.place.id)
        asked = {"requests": counts["requests"], **{kind: n for kind, n in counts["searches"].items() if n}}
        for route, statuses in counts["by_route"].items():
            asked[route] = sum(statuses.values())
        self.place.ghl.reset_statistics()
        return asked
