"""Whatever happens in the middle: rows are as they were or right, nobody is marked missing in error, edits win."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from ghl_pipeline.crm import row_store
from ghl_pipeline.crm.custom_fields import FieldName
from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.crm.report import CrmPartlyFailed
from ghl_pipeline.ghl.errors import GhlError
from ghl_pipeline.sandbox.marketplace import Marketplace, marketplace
from ghl_pipeline_tests.crm.syncing import ALL_VENDOR_FIELDS, Client, Killed
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

# What differs between two clients of the same kind.
OF_ITS_OWN = ("id", "client_id", "ghl_contact_id", "ghl_opportunity_id", "created_at", "updated_at")
MOMENTS = ("contact_deleted_at", "enriched_at")
GONE = "gone@example.com"


def market(client: Client, vendors: int = 40, leads: int = 60) -> Marketplace:
    """A location full of people of whom the client knows every second one, by turns by id and by e-mail."""
    made = marketplace(client.ghl, vendors=vendors, leads=leads, seed=3)
    for n, vendor in enumerate(made.vendors[::2]):
        client.vendor(**({"ghl_contact_id": vendor.contact.id} if n % 2 else {"email": vendor.contact.email}))
    for n, lead in enumerate(made.leads[::2]):
        known = ({"ghl_contact_id": lead.contact.id}, {"email": lead.contact.email})[n % 2]
        client.lead(**(known if lead.opportunity_id is None else {"ghl_opportunity_id": lead.opportunity_id}))
    return made


def small_world(client: Client) -> None:
    """Everything that can become of a row, once: twelve people."""
    linked = client.contact(email="v.linked@example.com", first_name="Ada", values=ALL_VENDOR_FIELDS)
    client.vendor(ghl_contact_id=linked.id, name="Old")
    client.contact(email="v.email@example.com", first_name="Ben", tags=("manually approved",))
    client.vendor(email="v.email@example.com", status="pending")
    client.contact(email="v.new@example.com", tags=("new vendor application",))
    back = client.contact(email="v.back@example.com")
    client.vendor(ghl_contact_id=back.id, status=MISSING_STATUS, status_before_missing="active")
    lead = client.contact(email="l.linked@example.com", phone="305-555-0123", postal_code="33139", country="US")
    client.lead(ghl_contact_id=lead.id, email="l.linked@example.com", status="contacted")
    client.contact(email="l.email@example.com", first_name="Eva", tags=("new lead",))
    client.lead(email="l.email@example.com", status="unassigned")
    client.contact(email="l.new@example.com", tags=("new lead",))
    for side in (client.vendor, client.lead):
        gone = client.contact(email=GONE)
        side(ghl_contact_id=gone.id, email=GONE, status="active")
        client.ghl.remove(gone.id)
    owner = client.contact(email="l.deal@example.com")
    deal = client.ghl.opportunities.add(owner.id, name="Roof")
    client.lead(ghl_opportunity_id=deal.id)
    client.lead(email="stubborn@example.com", first_name="Nobody")


def told(client: Client) -> list[Any]:
    """What the rows say, apart from what is a client's own; a moment is there or not."""
    state = client.state(without=OF_ITS_OWN)
    for rows in state.values():
        for row in rows:
            row |= {name: row[name] is not None for name in MOMENTS if name in row}
    linked = [row["ghl_contact_id"] is not None for rows in client.state().values() for row in rows]
    return [state["vendors"], state["leads"], linked]


@contextmanager
def each_statement(engine: Engine, seen: Callable[[str], None]) -> Iterator[None]:
    """Tells every statement before it is executed."""

    def listener(_c: Any, _cursor: Any, statement: str, _p: Any, _context: Any, _many: Any) -> None:
        seen(statement)

    event.listen(engine, "before_cursor_execute", listener)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", listener)


# --- again


@pytest.mark.parametrize("full", [True, False])
async def test_running_twice_changes_nothing(engine: Engine, sandbox: Sandbox, full: bool) -> None:
    client = Client(engine, sandbox)
    market(client)
    first = await client.sync()
    before = client.state()
    client.asked()
    second = await client.sync(full=full)
    assert first.vendors_created == first.vendors_updated == 20
    assert client.state() == before
    assert [name for name, count in second.stats().items() if count and name != "ghl_contacts_fetched"] == []
    assert second.mode == ("full" if full else "changes")


async def test_a_second_run_without_changes_takes_three_calls(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    market(client)
    await client.sync()
    client.asked()
    report = await client.sync(full=False)
    assert report.calls == {"custom_fields": 1, "users": 1, "changes": 1}
    assert client.asked()["requests"] == report.requests == 3


async def test_a_change_between_two_runs_is_seen_by_the_next_one(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    made = market(client)
    await client.sync()
    client.ghl.change(made.vendors[0].contact.id, company_name="Brindle Works", tags=("deactivated",))
    report = await client.sync(full=False)
    assert (report.mode, report.vendors_updated, report.leads_updated) == ("changes", 1, 0)
    assert [row["status"] for row in client.vendors() if row["company_name"] == "Brindle Works"] == ["deactivated"]


async def test_the_marketplace_ends_as_its_makers_meant_it(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    made = market(client)
    report = await client.sync()
    rows = {row["ghl_contact_id"]: row for row in client.vendors()}
    assert rows.keys() == {vendor.contact.id for vendor in made.vendors}
    for vendor in made.vendors:
        assert rows[vendor.contact.id]["status"] == (vendor.status or "pending")
        assert rows[vendor.contact.id]["service_zip_codes"] == vendor.coverage_text
    leads = {row["ghl_contact_id"]: row for row in client.leads()}
    known = set(made.leads[::2])
    assert leads.keys() == {lead.contact.id for lead in made.leads if lead in known or lead.is_new}
    for lead in made.leads:
        if lead.contact.id in leads:
            row = leads[lead.contact.id]
            assert (row["zip_code"], row["status"] == "new lead") == (lead.zip_code, lead.is_new)
    assert (report.staff, report.errors, report.conflicts, report.ambiguous) == (4, 0, 0, 0)
    assert sum(report.classes.values()) == sum(report.reasons.values()) == report.ghl_contacts_fetched


async def test_a_dry_run_counts_what_a_run_would_do_and_writes_nothing(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    small_world(client)

    def everything() -> list[Any]:
        tables = ("vendors", "leads", "crm_clients", "crm_lookups", "location_learning")
        with engine.connect() as connection:
            return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3")).all() for table in tables]

    before = everything()
    foreseen = await client.sync(dry_run=True)
    assert everything() == before
    done = await client.sync()
    assert foreseen.dry_run
    assert foreseen.stats() == done.stats()
    assert (done.vendors_created, done.vendors_updated, done.vendors_missing_in_ghl, done.vendors_back) == (1, 3, 1, 1)
    assert (done.leads_created, done.leads_updated, done.leads_deleted) == (1, 3, 1)


# --- outages


OUTAGES = (
    {"fail_status": 503, "fail_requests": None},
    {"fail_status": 401, "fail_requests": None},
    {"fail_status": 429, "fail_requests": None},
    {"fail_status": None, "fail_requests": None},
    {"fail_status": 400, "fail_requests": 1},
    {"fail_status": 503, "fail_requests": 2},
)


@pytest.mark.parametrize("outage", OUTAGES, ids=str)
async def test_an_outage_at_any_call_marks_nobody_in_error(
    engine: Engine, sandbox: Sandbox, outage: dict[str, object]
) -> None:
    whole = Client(engine, sandbox, "whole")
    small_world(whole)
    before = told(whole)
    report = await whole.sync()
    right = told(whole)
    for n in range(1, report.requests + 1):
        client = Client(engine, sandbox, f"outage {n}")
        small_world(client)
        client.faults(fail_at=n, **outage)
        try:
            await client.sync()
        except GhlError:
            assert told(client) == before, n
        except CrmPartlyFailed:
            missing = [row for rows in client.state().values() for row in rows if row["status"] == MISSING_STATUS]
            assert all(row["email"] in {GONE, None} for row in missing), n
        client.faults()
        await client.sync()
        assert told(client) == right, n


async def test_what_could_not_be_looked_up_is_left_and_the_rest_is_written(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    gone = client.contact(email="gone@example.com")
    client.lead(ghl_contact_id=gone.id, status="replied")
    client.ghl.remove(gone.id)
    made = client.contact(first_name="Ada")
    client.vendor(ghl_contact_id=made.id, name="Old")
    client.faults(routes=("GET /contacts/{contactId}", "GET /contacts/{id}"), error_rate=1.0)
    with pytest.raises(CrmPartlyFailed, match="1 vendors or leads could not be looked up") as failed:
        await client.sync()
    assert (client.the_lead()["status"], client.the_vendor()["name"]) == ("replied", "Ada")
    report = failed.value.report
    assert (report.errors, report.vendors_updated, report.leads_deleted) == (1, 1, 0)
    client.faults()
    await client.sync(full=False)
    assert client.the_lead()["status"] == MISSING_STATUS


async def test_who_is_gone_is_not_marked_while_it_is_unknown_whom_the_address_finds(
    engine: Engine, sandbox: Sandbox
) -> None:
    client = Client(engine, sandbox)
    email = f"{'x' * 80}@example.com"  # longer than a search takes, so that another route is asked
    gone = client.contact(email=email)
    client.lead(ghl_contact_id=gone.id, email=email, status="replied")
    client.ghl.remove(gone.id)
    back = client.contact(email=email)
    client.faults(routes=("GET /contacts/search/duplicate",), error_rate=1.0, unfiltered_status=422)
    with pytest.raises(CrmPartlyFailed):
        await client.sync()
    assert (client.the_lead()["status"], client.the_lead()["ghl_contact_id"]) == ("replied", gone.id)
    client.faults()
    await client.sync(full=False)
    assert (client.the_lead()["status"], client.the_lead()["ghl_contact_id"]) == ("replied", back.id)


# --- kills


async def test_killed_at_any_statement_and_run_again_it_ends_as_if_nothing_had_happened(
    engine: Engine, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "PAGE", 2)
    whole = Client(engine, sandbox, "whole")
    small_world(whole)
    statements: list[str] = []
    with each_statement(engine, statements.append):
        await whole.sync()
    right = told(whole)
    assert sum("UPDATE vendors" in statement for statement in statements) > 1
    for n in range(len(statements)):
        client = Client(engine, sandbox, f"killed {n}")
        small_world(client)
        left = [n]

        def kill(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise Killed

        with each_statement(engine, kill), pytest.raises(Killed):
            await client.sync()
        await client.sync(full=False)
        assert told(client) == right, (n, statements[n])


# --- others at work at the same time


@contextmanager
def meanwhile(client: Client, edit: str) -> Iterator[None]:
    """Somebody writes after the contacts were asked for and before the first row is locked."""
    done: list[str] = []

    def listener(statement: str) -> None:
        if "now() AS now" in statement and not done:
            done.append(statement)
            client.sql(edit)

    with each_statement(client.engine, listener):
        yield
    assert done


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE vendors SET status = 'paused by hand'",
        "UPDATE vendors SET email = 'typed@example.com'",
        "UPDATE vendors SET ghl_contact_id = 'typedByHand000000001'",
        "DELETE FROM vendors",
    ],
)
async def test_somebody_elses_edit_wins(engine: Engine, sandbox: Sandbox, edit: str) -> None:
    client = Client(engine, sandbox)
    ada = client.contact(first_name="Ada", tags=("deactivated",))
    client.vendor(ghl_contact_id=ada.id, email="ada@example.com", name="Old", status="active")
    with meanwhile(client, edit):
        report = await client.sync()
    assert (report.changed_meanwhile, report.vendors_updated) == (1, 0)
    assert [row["name"] for row in client.vendors()] in (["Old"], [])
    # And is not forgotten, although nothing changed at GHL: the next run looks the row up again.
    client.ghl.change(ada.id, date_updated=1_700_000_000_000)
    report = await client.sync(full=False)
    assert report.mode == "changes"
    if "status" in edit:
        assert (client.the_vendor()["status"], client.the_vendor()["name"]) == ("deactivated", "Ada")


async def test_a_lead_that_opts_out_meanwhile_is_not_made_a_new_one(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    ada = client.contact(first_name="Ada", tags=("new lead",))
    client.lead(ghl_contact_id=ada.id, status="contacted")
    with meanwhile(client, "UPDATE leads SET opted_out_at = now()"):
        report = await client.sync()
    assert (report.changed_meanwhile, client.the_lead()["status"]) == (1, "contacted")
    await client.sync(full=False)
    assert (client.the_lead()["status"], client.the_lead()["first_name"]) == ("contacted", "Ada")


async def test_somebody_who_makes_the_same_row_meanwhile_is_no_error(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    ada = client.contact(email="ada@example.com", tags=("new vendor",))
    ben = client.contact(email="ben@example.com", first_name="Ben")
    client.vendor(ghl_contact_id=ben.id, email="old.ben@example.com")
    rows = (
        "INSERT INTO vendors (client_id, ghl_contact_id, email) VALUES ({0}, '{1}', 'x@example.com'), ({0}, 'y', '{2}')"
    )
    with meanwhile(client, rows.format(client.client_id, ada.id, "ben@example.com")):
        report = await client.sync()
    assert (report.vendors_created, report.conflicts) == (0, 2)
    assert {row["email"] for row in client.vendors()} == {"old.ben@example.com", "x@example.com", "ben@example.com"}
    # The row that somebody made is in step after the next run, although its contact has not changed.
    client.ghl.change(ada.id, date_updated=1_700_000_000_000)
    assert (await client.sync(full=False)).mode == "changes"
    assert "ada@example.com" in {row["email"] for row in client.vendors()}


async def test_a_row_that_is_made_between_the_look_and_the_write_is_no_error(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox)
    ada = client.contact(email="ada@example.com", first_name="Ada")
    client.vendor(ghl_contact_id=ada.id, email="old@example.com")
    client.contact(email="eva@example.com", tags=("new vendor",))
    done: list[str] = []

    def listener(statement: str) -> None:
        for start, email in (
            ("UPDATE vendors", "ada@example.com"),
            ("INSERT INTO vendors (client_id, ghl", "eva@example.com"),
        ):
            if statement.strip().startswith(start) and email not in done:
                done.append(email)
                client.sql(f"INSERT INTO vendors (client_id, email) VALUES ({client.client_id}, '{email}')")

    with each_statement(engine, listener):
        report = await client.sync()
    assert done == ["ada@example.com", "eva@example.com"]
    assert (report.conflicts, report.changed_meanwhile, report.vendors_created) == (1, 1, 0)
    assert [row["name"] for row in client.vendors() if row["ghl_contact_id"] == ada.id] == ["Ada"]


async def test_two_clients_with_the_same_people_never_see_each_other(engine: Engine, sandbox: Sandbox) -> None:
    one, two = Client(engine, sandbox, "One"), Client(engine, sandbox, "Two")
    for client in (one, two):
        small_world(client)
    before = two.state()
    await one.sync()
    assert two.state() == before
    done = one.state()
    await two.sync()
    assert one.state() == done
    assert told(one) == told(two)


# --- what is told


async def test_nobody_is_named_in_what_is_told(
    engine: Engine, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    canaries = ("zyxwinda", "quorvath", "brindlemoth", "5550187", "tagofquorvath", "coverageofbrindlemoth")
    client = Client(engine, sandbox)
    person = {"first_name": "Quorvath", "last_name": "Brindlemoth", "company_name": "Zyxwinda Inc"}
    fields: dict[str, object] = {
        FieldName.SERVICE_ZIP_CODES: "coverageofbrindlemoth",
        FieldName.TAKING_NEW_WORK: "Quorvath",
    }
    for n in range(6):
        tags = (("new vendor",), ("new lead",))[n % 2] + ("tagofquorvath",)
        client.contact(email=f"zyxwinda.{n}@example.com", phone="305-555-0187", tags=tags, values=fields, **person)
    gone = client.contact(email="zyxwinda.gone@example.com")
    client.lead(ghl_contact_id=gone.id, email="zyxwinda.gone@example.com")
    client.vendor(ghl_contact_id="zyxwinda", email="zyxwinda.1@example.com")
    client.ghl.remove(gone.id)
    printed: list[str] = []
    with caplog.at_level("DEBUG"):
        for faults in (
            {"error_rate": 1.0},
            {"garbage_rate": 1.0},
            {"routes": ("GET /contacts/{id}",), "error_rate": 1.0},
        ):
            client.faults(**faults)
            result = await client.crm().sync([client.id])
            assert result.failures
            printed.append(repr(result))
        client.faults()
        printed.append(repr(await client.crm().sync([client.id])))  # too many missing
        result = await client.crm().sync([client.id], accept_missing=True)
        assert result.reports[0].leads_deleted
        printed += [repr(result), repr(result.reports[0].as_dict()), repr(result.reports[0].as_reports())]
    with engine.connect() as connection:
        printed.append(repr(connection.execute(text("SELECT * FROM location_attempts")).all()))
        printed.append(repr(connection.execute(text("SELECT * FROM crm_lookups")).all()))
    told_everywhere = "\n".join([*printed, *(record.getMessage() for record in caplog.records)]).lower()
    assert [canary for canary in canaries if canary in told_everywhere] == []
