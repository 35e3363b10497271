"""Who is gone is marked, on GHL's own word alone; who comes back is brought back to life."""

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.missing import MISSING_STATUS, TooManyMissing
from ghl_pipeline_tests.crm.syncing import Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox)


async def test_a_vendor_and_a_lead_whose_contacts_are_gone_are_marked(client: Client) -> None:
    ada, ben = client.contact(email="ada@example.com"), client.contact(email="ben@example.com")
    client.vendor(ghl_contact_id=ada.id, email="ada@example.com", status="active")
    client.lead(ghl_contact_id=ben.id, email="ben@example.com", status="replied")
    client.ghl.remove(ada.id)
    client.ghl.remove(ben.id)
    report = await client.sync()
    vendor, lead = client.the_vendor(), client.the_lead()
    assert (vendor["status"], vendor["status_before_missing"]) == (MISSING_STATUS, "active")
    assert (lead["status"], lead["status_before_missing"]) == (MISSING_STATUS, "replied")
    assert lead["contact_deleted_at"] is not None
    assert (vendor["ghl_contact_id"], lead["ghl_contact_id"]) == (ada.id, ben.id)
    assert (report.vendors_missing_in_ghl, report.leads_deleted) == (1, 1)
    assert report.share_missing == {"vendor": 1.0, "lead": 1.0}


@pytest.mark.parametrize("status", ["do_not_contact", " Unsubscribed "])
async def test_who_must_not_be_written_to_is_known_while_their_contact_is_gone(client: Client, status: str) -> None:
    """Events look at the status and at the time; the status is another one now."""
    client.lead(ghl_contact_id=client.contact().id, status=status)
    client.ghl.remove(client.the_lead()["ghl_contact_id"])
    await client.sync()
    lead = client.the_lead()
    assert (lead["status"], lead["status_before_missing"]) == (MISSING_STATUS, status)
    assert lead["opted_out_at"] is not None


async def test_the_status_of_before_is_not_lost_by_a_second_run(client: Client) -> None:
    ada = client.contact()
    client.vendor(ghl_contact_id=ada.id, status="active")
    client.lead(ghl_contact_id=client.contact().id, status="replied")
    for contact in (ada.id, client.the_lead()["ghl_contact_id"]):
        client.ghl.remove(contact)
    await client.sync()
    before = client.state()
    client.sql("DELETE FROM crm_lookups")  # so that GHL is asked for them once more
    report = await client.sync()
    assert client.state() == before
    assert (report.vendors_missing_in_ghl, report.leads_deleted) == (0, 0)


@pytest.mark.parametrize(
    ("before", "tags", "after"),
    [
        ("active", (), "active"),
        ("paused by hand", (), "paused by hand"),
        ("active", ("manual approval",), "pending"),
        (None, (), "pending"),
    ],
)
async def test_a_vendor_comes_back_with_its_contact(
    client: Client, before: str | None, tags: tuple[str, ...], after: str
) -> None:
    ada = client.contact(email="ada@example.com", tags=tags)
    client.vendor(ghl_contact_id=ada.id, status=MISSING_STATUS, status_before_missing=before)
    report = await client.sync()
    row = client.the_vendor()
    assert (row["status"], row["status_before_missing"]) == (after, None)
    assert (report.vendors_back, report.vendors_updated) == (1, 1)


@pytest.mark.parametrize(
    ("before", "tags", "after"),
    [
        ("replied", (), "replied"),
        ("contacted", ("new lead",), "new lead"),
        ("do_not_contact", ("new lead",), "do_not_contact"),
        (None, (), "unassigned"),
        (None, ("new lead",), "new lead"),
    ],
)
async def test_a_lead_comes_back_with_its_contact(
    client: Client, before: str | None, tags: tuple[str, ...], after: str
) -> None:
    ada = client.contact(tags=tags)
    client.lead(ghl_contact_id=ada.id, status=MISSING_STATUS, status_before_missing=before)
    client.sql("UPDATE leads SET contact_deleted_at = now()")
    report = await client.sync()
    row = client.the_lead()
    assert (row["status"], row["status_before_missing"], row["contact_deleted_at"]) == (after, None, None)
    assert report.leads_back == 1


@pytest.mark.parametrize("is_marked", [False, True])
async def test_a_row_whose_email_finds_another_contact_is_linked_to_that_instead(
    client: Client, is_marked: bool
) -> None:
    gone = client.contact(email="ada@example.com")
    rows = {"ghl_contact_id": gone.id, "email": "ada@example.com", "status": "active"}
    client.lead(**rows)
    client.vendor(**{**rows, "email": "ben@example.com"})
    client.ghl.remove(gone.id)
    if is_marked:
        await client.sync()
        assert client.the_lead()["status"] == MISSING_STATUS
    ada, ben = client.contact(email="ada@example.com"), client.contact(email="ben@example.com")
    report = await client.sync()
    lead, vendor = client.the_lead(), client.the_vendor()
    assert (lead["ghl_contact_id"], lead["status"], lead["contact_deleted_at"]) == (ada.id, "active", None)
    assert (vendor["ghl_contact_id"], vendor["status"]) == (ben.id, "active")
    assert (report.leads_back, report.vendors_back) == (int(is_marked), int(is_marked))


async def test_a_deletion_that_an_event_told_just_now_is_not_taken_back_by_a_search_that_lags(client: Client) -> None:
    ada = client.contact()
    client.lead(ghl_contact_id=ada.id)
    client.sql("UPDATE leads SET contact_deleted_at = now()")
    await client.sync()
    assert client.the_lead()["contact_deleted_at"] is not None
    client.sql("UPDATE leads SET contact_deleted_at = now() - interval '1 hour'")
    await client.sync()
    assert client.the_lead()["contact_deleted_at"] is None


async def test_too_many_missing_of_either_side_stop_the_run_before_anything_is_written(client: Client) -> None:
    people = [client.contact(email=f"p{n}@example.com", first_name=f"New {n}") for n in range(10)]
    for person in people:
        client.vendor(ghl_contact_id=person.id, name="Old")
        client.lead(ghl_contact_id=client.contact(first_name="New").id, first_name="Old")
    for person in people[:3]:
        client.ghl.remove(person.id)
    before = client.state()
    with pytest.raises(TooManyMissing, match=r"3 of 10 vendors \(30%\).*--accept-missing"):
        await client.sync(accept=False)
    assert client.state() == before
    report = await client.sync(accept=True)
    assert (report.vendors_missing_in_ghl, report.vendors_updated, report.leads_updated) == (3, 7, 10)


async def test_a_fifth_of_a_side_is_believed(client: Client) -> None:
    people = [client.contact() for n in range(10)]
    for person in people:
        client.lead(ghl_contact_id=person.id)
    client.ghl.remove(people[0].id)
    client.ghl.remove(people[1].id)
    report = await client.sync(accept=False)
    assert report.leads_deleted == 2


async def test_a_contact_that_a_search_does_not_show_is_not_gone(client: Client) -> None:
    ada = client.contact(email="ada@example.com")
    client.vendor(ghl_contact_id=ada.id, status="active")
    client.faults(hidden_from_search=(ada.id,))
    await client.sync()
    assert client.the_vendor()["status"] == "active"


async def test_staff_and_vendors_are_there_for_a_lead_all_the_same(client: Client) -> None:
    boss = client.contact(type="staff")
    client.lead(ghl_contact_id=boss.id, status="replied")
    client.vendor(ghl_contact_id=boss.id, status="active")
    before = client.state()
    report = await client.sync()
    assert (client.state(), report.staff) == (before, 1)
