"""What people decided or typed stays: opt-outs, names, values of the moment, rows marked back by hand, staff."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.missing import MISSING_STATUS
from ghl_pipeline.crm.sync_plan import make_plan
from ghl_pipeline_tests.crm.syncing import Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox, allow_duplicates=True)


# --- opt-outs


@pytest.mark.parametrize(
    ("status", "opted_out_at"),
    [("unsubscribed", "NULL"), (" Do_Not_Contact ", "NULL"), ("contacted", "now()"), ("unsubscribed", "now()")],
)
async def test_who_opted_out_keeps_the_address_that_they_did_it_with(
    client: Client, status: str, opted_out_at: str
) -> None:
    ada = client.contact(email="a@example.com")
    client.lead(ghl_contact_id=ada.id, email="a@example.com", status=status)
    client.sql(f"UPDATE leads SET opted_out_at = {opted_out_at}")
    client.ghl.change(ada.id, email="b@example.com", first_name="Ada")
    await client.sync()
    assert (client.the_lead()["email"], client.the_lead()["first_name"]) == ("a@example.com", "Ada")
    # Nor does anybody else get it, who would then be a new lead to write to.
    client.contact(email="a@example.com", tags=("new lead",))
    report = await client.sync()
    assert (client.the_lead()["email"], report.leads_created, report.conflicts) == ("a@example.com", 0, 1)


async def test_who_opted_out_and_has_no_address_gets_one(client: Client) -> None:
    ada = client.contact(email="a@example.com")
    client.lead(ghl_contact_id=ada.id, status="unsubscribed")
    await client.sync()
    assert client.the_lead()["email"] == "a@example.com"


# --- names


@pytest.mark.parametrize(("own", "name"), [("Jane Roe", "Jane Roe"), ("", "Acme LLC"), (" ", "Acme LLC")])
async def test_a_company_is_no_ones_name_who_has_one(client: Client, own: str, name: str) -> None:
    acme = client.contact(email="a@example.com", company_name="Acme LLC", first_name="", last_name="")
    client.vendor(ghl_contact_id=acme.id, name=own)
    await client.sync()
    assert (client.the_vendor()["name"], client.the_vendor()["company_name"]) == (name, "Acme LLC")


# --- what is typed meanwhile


@pytest.mark.parametrize("table", ["vendors", "leads"])
async def test_what_is_typed_during_the_run_stays_and_the_next_run_looks_again(
    client: Client, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = client.contact(email="a@example.com", phone="+13055550111")
    known = {"ghl_contact_id": ada.id, "email": "a@example.com", "phone": "+13055550112"}
    row = client.the_vendor if table == "vendors" else client.the_lead
    (client.vendor if table == "vendors" else client.lead)(**known)
    with monkeypatch.context() as patch:

        def typed_before(*args: object) -> object:
            client.sql(f"UPDATE {table} SET phone = '+13055550199'")
            return make_plan(*args)  # type: ignore[arg-type]

        patch.setattr("ghl_pipeline.crm.location_sync.make_plan", typed_before)
        report = await client.sync()
    assert row()["phone"] == "+13055550199"
    assert (report.changed_meanwhile, report.vendors_updated, report.leads_updated) == (1, 0, 0)
    client.ghl.change(ada.id, phone="+13055550199", date_updated=1_700_000_000_000, first_name="Ada")
    report = await client.sync(full=False)
    assert (report.mode, report.changed_meanwhile) == ("changes", 0)
    assert report.vendors_updated + report.leads_updated == 1, "it was looked up again"


async def test_a_row_that_waits_for_an_address_of_this_run_is_nobody_elses_edit(client: Client) -> None:
    one, two = client.contact(email="two@example.com"), client.contact(email="three@example.com")
    client.vendor(ghl_contact_id=one.id, email="one@example.com", name="Old")
    client.vendor(ghl_contact_id=two.id, email="two@example.com", name="Old")
    report = await client.sync()
    assert [row["email"] for row in client.vendors()] == ["two@example.com", "three@example.com"]
    assert (report.changed_meanwhile, report.conflicts, report.vendors_updated) == (0, 0, 2)


# --- marked back by hand


@pytest.mark.parametrize("table", ["vendors", "leads"])
async def test_a_row_that_is_marked_back_by_hand_is_looked_up_by_the_next_run(client: Client, table: str) -> None:
    ada = client.contact(email="a@example.com")
    (client.vendor if table == "vendors" else client.lead)(
        ghl_contact_id=ada.id, email="a@example.com", status="active"
    )
    row = client.the_vendor if table == "vendors" else client.the_lead
    (client.lead if table == "vendors" else client.vendor)(ghl_contact_id=client.contact().id)
    client.ghl.remove(ada.id)
    await client.sync()
    report = await client.sync(full=False)
    assert (report.mode, report.calls.get("single", 0)) == ("changes", 0), "one that is marked is not asked for again"
    client.sql(f"UPDATE {table} SET status = status_before_missing, status_before_missing = NULL")
    report = await client.sync(full=False)
    assert (report.mode, report.calls["single"]) == ("changes", 1)
    assert (row()["status"], row()["status_before_missing"]) == (MISSING_STATUS, "active")


# --- staff


async def test_vendors_and_leads_that_are_staffs_contacts_are_told_of(client: Client) -> None:
    boss, ada = client.contact(type="staff"), client.contact(email="ada@example.com")
    client.lead(ghl_contact_id=boss.id)
    client.vendor(ghl_contact_id=boss.id)
    client.vendor(ghl_contact_id=ada.id)
    report = await client.sync()
    assert report.known_staff == 2
    assert [
        warning for warning in report.warnings if warning.startswith("2 vendors or leads are linked to contacts of")
    ]
    assert report.as_reports()[0].values["known_staff"] == 2


async def test_staff_whom_nobody_knows_are_no_news(client: Client) -> None:
    client.contact(type="staff", tags=("new vendor",))
    report = await client.sync()
    assert (report.staff, report.known_staff, list(report.warnings)) == (1, 0, [])
