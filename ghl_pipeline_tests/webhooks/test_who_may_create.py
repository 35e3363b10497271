"""Nothing but ensure can create or change a contact: by what the code may reach, and by what it does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

import ghl_pipeline
from ghl_pipeline.ghl.client import LocationClient
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.sync import sync_all, sync_lead
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.hydration.conftest import Agency, strangers
from ghl_pipeline_tests.webhooks.ensuring import writes

ROOT = Path(ghl_pipeline.__file__).parent
MODULES = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}
# The sandbox is the other side.
OURS = {name: tree for name, tree in MODULES.items() if not name.startswith("sandbox/")}
READS = {
    "calendar", "calendars", "contact", "custom_fields", "duplicate_of", "exported_messages", "free_slots", "heard",
    "location", "location_id",
    "opportunities", "search_all_pages", "search_contacts", "usage", "users", "uses_previous_token",
}  # fmt: skip


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Modules and the names taken from them; a module taken whole has the name `*`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.module, alias.name
                yield f"{node.module}.{alias.name}", "*"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "*"


def importers_of(module: str, *names: str) -> set[str]:
    """Who imports the module, or these names of it."""
    return {
        path
        for path, tree in OURS.items()
        if any(found == module and (not names or name in {*names, "*"}) for found, name in imported(tree))
    }


def requests_made(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Method and route of every `Request(...)`, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Request":
            method, route, *_ = [ast.unparse(argument) for argument in node.args]
            yield method, route


def test_only_ensure_can_reach_what_writes_contacts() -> None:
    assert importers_of("ghl_pipeline.ghl.contact_writer") == {"webhooks/ensuring/ensure.py"}


def test_only_the_reader_and_the_writer_can_make_calls_to_ghl() -> None:
    makers = importers_of("ghl_pipeline.ghl.calls", "open_calls", "LocationCalls", "Request")
    assert makers == {"ghl/client.py", "ghl/contact_writer.py"}


def test_the_reader_sends_no_request_that_writes() -> None:
    sent = list(requests_made(OURS["ghl/client.py"]))
    assert len(sent) >= 5
    assert {(method, route) for method, route in sent if method != "'GET'"} == {("'POST'", "'/contacts/search'")}


def test_the_writer_sends_a_create_and_an_update_and_nothing_else() -> None:
    sent = sorted(requests_made(OURS["ghl/contact_writer.py"]))
    assert sent == [("'POST'", "CONTACTS_ROUTE"), ("'PUT'", "CONTACT_ROUTE")]


def test_what_a_location_client_can_be_asked_only_reads() -> None:
    assert {name for name in dir(LocationClient) if not name.startswith("_")} <= READS


def test_the_ensurer_stays_in_the_hands_of_the_events() -> None:
    assert {
        path for path in importers_of("ghl_pipeline.webhooks.ensuring.ensure") if not path.startswith("webhooks/")
    } == set()


# --- and by what it does


@pytest.fixture
def agency(engine: Engine, sandbox: Sandbox) -> Agency:
    return Agency(engine, sandbox)


async def test_a_backfill_of_ten_thousand_unmatched_leads_writes_nothing_at_ghl(agency: Agency) -> None:
    place = agency.place(contacts=strangers(500))
    agency.leads(place, [{"email": f"unmatched{n}@example.com", "first_name": "Ada"} for n in range(10_000)])
    (report,) = (await agency.backfill(place)).reports
    assert report.outcomes["not_found"] == 10_000
    assert writes(agency, place) == (0, 0)
    assert agency.count("contact_creations") == 0


async def test_syncing_one_lead_or_all_writes_nothing_at_ghl(agency: Agency) -> None:
    (place,) = agency.sample(*sample_agency(locations=1, leads=100, seed=5).locations)
    before = list(place.ghl.contacts.by_id.values())
    for row in agency.rows()[:20]:
        await sync_lead(agency.hydration(), row["id"])
    result = await sync_all(agency.hydration(), [place.id], Options())
    assert result.reports[0].outcomes["not_found"] > 0
    assert writes(agency, place) == (0, 0)
    assert list(place.ghl.contacts.by_id.values()) == before
