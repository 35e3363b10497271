"""Vendors in step with their contacts: matched, updated, linked, made; what GHL does not say changes nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.custom_fields import FieldName
from ghl_pipeline_tests.crm.syncing import ALL_VENDOR_FIELDS, Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

LEVELS = (
    ("new vendor application", "new application"),
    ("onboarding in process", "onboarding in process"),
    ("manual approval", "pending"),
    ("manually approved", "active"),
    ("deactivated", "deactivated"),
    ("reactivated", "active"),
)


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox)


async def test_a_vendor_that_only_ghl_knows_gets_a_row_with_all_its_fields(client: Client) -> None:
    made = client.contact(
        first_name="Ada",
        last_name="Byron",
        email="Ada@Example.com",
        phone="(305) 555-0123",
        company_name="Acme Roofing",
        tags=("New Vendor",),
        values=ALL_VENDOR_FIELDS,
    )
    report = await client.sync()
    row = client.the_vendor()
    expected = {
        "ghl_contact_id": made.id,
        "name": "Ada Byron",
        "email": "ada@example.com",
        "phone": "+13055550123",
        "company_name": "Acme Roofing",
        "status": "pending",
        "status_before_missing": None,
        "service_categories": ["Roofing", "Gutters, and more"],
        "services_offered": ["Repair", "Skylights"],
        "service_zip_codes": "FL; Fulton County, GA; 10001",
        "coverage_kind": "states",
        "coverage_states": ["FL"],
        "coverage_counties": ["Fulton, GA"],
        "coverage_zip_codes": ["10001"],
        "coverage_unread": [],
        "taking_new_work": True,
        "last_lead_assigned_at": datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC),
        "lead_close_percentage": Decimal("45.50"),
        "primary_service_category": "Roofing",
        "ghl_user_id": "user0000000000000001",
    }
    assert {name: row[name] for name in expected} == expected
    assert (report.vendors_created, report.vendors_updated, report.leads_created) == (1, 0, 0)
    assert client.leads() == []


async def test_a_vendor_that_is_known_by_its_contact_is_updated(client: Client) -> None:
    made = client.contact(first_name="Ada", email="ada@example.com", values=ALL_VENDOR_FIELDS)
    client.vendor(ghl_contact_id=made.id, email="old@example.com", name="Old", taking_new_work=False, status="active")
    report = await client.sync()
    row = client.the_vendor()
    assert (row["email"], row["name"], row["taking_new_work"], row["status"]) == (
        "ada@example.com", "Ada", True, "active",
    )  # fmt: skip
    assert (report.vendors_updated, report.vendors_created) == (1, 0)


async def test_a_vendor_that_is_known_by_its_email_gets_its_contact_id(client: Client) -> None:
    made = client.contact(email="ADA@example.com ", first_name="Ada")
    client.vendor(email=" Ada@Example.com", name="Ada")
    await client.sync()
    row = client.the_vendor()
    assert (row["ghl_contact_id"], row["email"]) == (made.id, " Ada@Example.com")


async def test_additional_emails_are_the_weaker_match(client: Client) -> None:
    own = client.contact(email="ada@example.com", additional_emails=("ben@example.com",))
    other = client.contact(email="ben@example.com")
    ada = client.vendor(email="ada@example.com")
    ben = client.vendor(email="ben@example.com")
    await client.sync()
    assert {row["id"]: row["ghl_contact_id"] for row in client.vendors()} == {ada: own.id, ben: other.id}


async def test_an_additional_email_finds_whoever_nothing_else_finds(client: Client) -> None:
    made = client.contact(email="ada@example.com", additional_emails=("old.ada@example.com",), tags=("new vendor",))
    client.vendor(email="old.ada@example.com")
    report = await client.sync()
    row = client.the_vendor()
    assert (row["ghl_contact_id"], row["email"], report.vendors_created) == (made.id, "ada@example.com", 0)


EMPTY: tuple[Mapping[str, object], ...] = (
    {},
    dict.fromkeys(ALL_VENDOR_FIELDS, ""),
    dict.fromkeys(ALL_VENDOR_FIELDS, ()),
)


@pytest.mark.parametrize("values", EMPTY)
async def test_what_ghl_does_not_say_overwrites_nothing(client: Client, values: Mapping[str, object]) -> None:
    full = client.contact(
        first_name="Ada", email="ada@example.com", phone="+13055550123", company_name="Acme", tags=("new vendor",),
        values=ALL_VENDOR_FIELDS,
    )  # fmt: skip
    await client.sync()
    before = client.the_vendor()
    client.ghl.change(
        full.id, first_name=None, email=None, phone="123", company_name=" ", custom_fields=client.values(values)
    )
    report = await client.sync()
    assert client.the_vendor() == before
    assert report.vendors_updated == 0


@pytest.mark.parametrize(("tag", "status"), LEVELS)
@pytest.mark.parametrize("before", ["pending", "active", "paused by hand"])
async def test_each_level_of_tags_gives_its_status(client: Client, tag: str, status: str, before: str) -> None:
    made = client.contact(email="ada@example.com", tags=(tag,))
    client.vendor(ghl_contact_id=made.id, status=before)
    await client.sync()
    assert client.the_vendor()["status"] == status


@pytest.mark.parametrize("tags", [("manual approval", "new vendor", "deactivated"), ("deactivated", "manual approval")])
async def test_the_highest_level_counts_in_whatever_order(client: Client, tags: tuple[str, ...]) -> None:
    made = client.contact(email="ada@example.com", tags=tags)
    client.vendor(ghl_contact_id=made.id)
    await client.sync()
    assert client.the_vendor()["status"] == "deactivated"


@pytest.mark.parametrize("status", ["active", "pending", "deactivated", "paused by hand"])
async def test_without_a_tag_that_tells_it_the_status_stays(client: Client, status: str) -> None:
    made = client.contact(email="ada@example.com", tags=("new vendor", "vip"))
    client.vendor(ghl_contact_id=made.id, status=status)
    await client.sync()
    assert client.the_vendor()["status"] == status


@pytest.mark.parametrize(
    ("text", "kind", "states", "counties", "zip_codes"),
    [
        ("Global", "global", [], [], []),
        ("International", "global", [], [], []),
        ("nationwide", "national", [], [], []),
        ("FL, GA", "states", ["FL", "GA"], [], []),
        ("florida", "states", ["FL"], [], []),
        ("miami-dade county, fl", "counties", [], ["Miami-Dade, FL"], []),
        ("33101, 33139", "zip_codes", [], [], ["33101", "33139"]),
        ("wherever the job is", "unreadable", [], [], []),
    ],
)
async def test_every_kind_of_coverage_is_stored_with_its_text(
    client: Client, text: str, kind: str, states: list[str], counties: list[str], zip_codes: list[str]
) -> None:
    client.contact(email="ada@example.com", tags=("new vendor",), values={FieldName.SERVICE_ZIP_CODES: text})
    report = await client.sync()
    row = client.the_vendor()
    assert (row["service_zip_codes"], row["coverage_kind"]) == (text, kind)
    assert (row["coverage_states"], row["coverage_counties"], row["coverage_zip_codes"]) == (
        states, counties, zip_codes,
    )  # fmt: skip
    is_unread = kind == "unreadable"
    assert (bool(row["coverage_unread"]), report.coverage_unread) == (is_unread, int(is_unread))
    assert report.unreadable_fields == ({"service_zip_codes": 1} if is_unread else {})


async def test_coverage_columns_follow_the_text_together(client: Client) -> None:
    made = client.contact(email="a@example.com", tags=("new vendor",), values={FieldName.SERVICE_ZIP_CODES: "FL, GA"})
    await client.sync()
    client.ghl.change(made.id, custom_fields=client.values({FieldName.SERVICE_ZIP_CODES: "33101"}))
    await client.sync()
    row = client.the_vendor()
    assert (row["coverage_kind"], row["coverage_states"], row["coverage_zip_codes"]) == ("zip_codes", [], ["33101"])


async def test_a_value_that_cannot_be_read_leaves_the_column_and_is_counted(client: Client) -> None:
    made = client.contact(email="ada@example.com", values={FieldName.TAKING_NEW_WORK: "maybe"})
    client.vendor(ghl_contact_id=made.id, taking_new_work=True)
    report = await client.sync()
    assert client.the_vendor()["taking_new_work"] is True
    assert report.unreadable_fields == {"taking_new_work": 1}


async def test_fields_are_found_by_the_clients_own_keys(client: Client) -> None:
    made = client.contact(email="ada@example.com", values={"zips": "TX", FieldName.SERVICE_ZIP_CODES: "FL"})
    client.vendor(ghl_contact_id=made.id)
    client.configure(field_keys={"service_zip_codes": "contact.zips", "ghl_user_id": "contact.nowhere"})
    report = await client.sync()
    assert client.the_vendor()["coverage_states"] == ["TX"]
    assert [warning for warning in report.warnings if "ghl_user_id" in warning and "service" not in warning]


async def test_without_the_scope_custom_fields_are_left_alone(client: Client) -> None:
    made = client.contact(first_name="Ada", email="ada@example.com", values=ALL_VENDOR_FIELDS, tags=("deactivated",))
    client.vendor(ghl_contact_id=made.id, service_zip_codes="TX", coverage_kind="states", coverage_states=["TX"])
    client.faults(missing_scopes=("locations/customFields.readonly",))
    report = await client.sync()
    row = client.the_vendor()
    assert (row["name"], row["status"], row["coverage_states"]) == ("Ada", "deactivated", ["TX"])
    assert any("customFields.readonly" in warning for warning in report.warnings)


async def test_staff_are_neither_vendors_nor_leads(client: Client) -> None:
    client.ghl.add_user(email="boss@example.com", phone="+13055550142")
    client.contact(type="staff", tags=("new vendor",))
    client.contact(email="BOSS@example.com", tags=("new vendor",))
    client.contact(phone="(305) 555-0142", tags=("new lead",))
    report = await client.sync()
    assert (client.vendors(), client.leads(), report.staff) == ([], [], 3)


async def test_without_the_scope_for_users_the_type_alone_tells_staff(client: Client) -> None:
    client.contact(type="staff", tags=("new vendor",))
    client.contact(email="ada@example.com", tags=("new vendor",))
    client.faults(missing_scopes=("users.readonly",))
    report = await client.sync()
    assert (report.vendors_created, report.staff) == (1, 1)
    assert any("users.readonly" in warning for warning in report.warnings)


async def test_the_source_makes_a_vendor_in_any_letter_case(client: Client) -> None:
    client.contact(email="ada@example.com", source="website - VENDOR application 2")
    report = await client.sync()
    assert (report.vendors_created, client.the_vendor()["status"]) == (1, "pending")


async def test_without_discovery_no_row_is_made_of_whom_nobody_knows(client: Client) -> None:
    client.configure(discover=False)
    client.contact(email="ada@example.com", tags=("new vendor",))
    client.contact(email="ben@example.com", tags=("new lead",))
    # Nobody else finds the lead, so that the list is gone through and everybody comes along.
    client.lead(email="stubborn@example.com")
    report = await client.sync()
    assert report.ghl_contacts_fetched == 2
    assert (report.vendors_created, report.leads_created, report.conflicts) == (0, 0, 0)


async def test_nobody_known_and_nobody_wanted_takes_no_call(client: Client) -> None:
    client.configure(discover=False)
    client.contact(tags=("new vendor",))
    report = await client.sync()
    assert (report.mode, report.requests, client.asked()["requests"]) == ("nothing", 0, 0)


# --- who has what


async def test_a_row_that_is_linked_to_a_living_contact_keeps_it(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox, allow_duplicates=True)
    mine = client.contact(email="first@example.com", tags=("new vendor",))
    client.contact(email="ada@example.com", tags=("new vendor",))
    client.vendor(ghl_contact_id=mine.id, email="ada@example.com")
    other = client.vendor(ghl_contact_id=client.contact(email="second@example.com").id, email="first@example.com")
    report = await client.sync()
    rows = {row["id"]: row for row in client.vendors()}
    # The first row's contact has another address now, which was the other row's until that got its own.
    assert rows[other]["email"] == "second@example.com"
    assert sorted(row["email"] for row in rows.values()) == [
        "ada@example.com",
        "first@example.com",
        "second@example.com",
    ]
    assert (report.vendors_created, report.conflicts) == (1, 0)


async def test_an_address_that_another_row_holds_is_not_written_and_counted(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox, allow_duplicates=True)
    one = client.contact(first_name="Ada", email="same@example.com")
    two = client.contact(first_name="Ben", email="same@example.com")
    a = client.vendor(ghl_contact_id=one.id, email="a@example.com")
    b = client.vendor(ghl_contact_id=two.id, email="b@example.com")
    report = await client.sync()
    rows = {row["id"]: row for row in client.vendors()}
    assert (rows[a]["email"], rows[b]["email"]) == ("same@example.com", "b@example.com")
    assert (rows[a]["name"], rows[b]["name"]) == ("Ada", "Ben")
    assert report.conflicts == 1


async def test_two_rows_cannot_swap_their_addresses(client: Client) -> None:
    one, two = client.contact(email="one@example.com"), client.contact(email="two@example.com")
    client.vendor(ghl_contact_id=one.id, email="two@example.com")
    client.vendor(ghl_contact_id=two.id, email="one@example.com")
    before = client.state()
    report = await client.sync()
    assert (client.state(), report.conflicts, report.vendors_updated) == (before, 2, 0)


async def test_of_two_contacts_for_one_row_the_one_with_a_phone_counts(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox, allow_duplicates=True)
    client.contact(email="ada@example.com", tags=("new vendor",))
    wanted = client.contact(email="ada@example.com", phone="+13055550123", tags=("new vendor",))
    client.vendor(email="ada@example.com")
    report = await client.sync()
    assert client.the_vendor()["ghl_contact_id"] == wanted.id
    assert (report.conflicts, report.vendors_created) == (1, 0)


async def test_of_equal_contacts_none_is_taken(engine: Engine, sandbox: Sandbox) -> None:
    client = Client(engine, sandbox, allow_duplicates=True)
    for _ in range(2):
        client.contact(email="ada@example.com", date_updated=1_700_000_000_000, tags=("new vendor",))
        client.contact(email="new@example.com", date_updated=1_700_000_000_000, tags=("new vendor",))
    client.vendor(email="ada@example.com")
    report = await client.sync()
    assert client.the_vendor()["ghl_contact_id"] is None
    assert (report.ambiguous, report.conflicts, report.vendors_created) == (2, 0, 0)


@pytest.mark.parametrize("junk", ["test", "ada@example.com", " ", "contact-1"])
async def test_a_junk_link_is_replaced(client: Client, junk: str) -> None:
    made = client.contact(email="ada@example.com")
    client.vendor(ghl_contact_id=junk, email="ada@example.com")
    await client.sync()
    assert client.the_vendor()["ghl_contact_id"] == made.id


async def test_a_vendor_and_a_lead_may_have_the_same_address(client: Client) -> None:
    made = client.contact(email="ada@example.com", tags=("manually approved",))
    client.lead(email="ada@example.com", status="replied")
    before = client.the_lead()
    report = await client.sync()
    assert client.the_vendor()["ghl_contact_id"] == made.id
    assert client.the_lead() == before
    assert (report.reclassified, report.vendors_created) == (1, 1)
