"""Whose e-mail GHL is asked by: whoever came for another reason and has the address does not stand for its owner."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from ghl_pipeline.crm.report import CrmPartlyFailed
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline_tests.crm.syncing import Client
from ghl_pipeline_tests.fixtures.sandbox import Sandbox

OLD = 1_700_000_000_000  # milliseconds since 1970: in 2023
E, B = "e@example.com", "b@example.com"


@pytest.fixture
def client(engine: Engine, sandbox: Sandbox) -> Client:
    return Client(engine, sandbox, allow_duplicates=True)


def lead(client: Client, lead_id: int) -> dict[str, Any]:
    return next(row for row in client.leads() if row["id"] == lead_id)


async def a_pass_is_made(client: Client, *people: Contact) -> None:
    """All of them are old by then, and equally so, so that only what comes after it is a change."""
    ours = client.contact(email="z@example.com")
    client.lead(ghl_contact_id=ours.id, email="z@example.com")
    client.ghl.load([msgspec.structs.replace(each, date_added=OLD, date_updated=OLD) for each in people])
    client.ghl.load([msgspec.structs.replace(ours, date_added=OLD, date_updated=OLD + 1)])
    await client.sync(full=True)


async def test_a_changed_contact_with_the_address_among_others_does_not_take_the_owners_place(client: Client) -> None:
    owner = client.contact(email=E, first_name="Right")
    await a_pass_is_made(client, owner)
    client.contact(email=B, additional_emails=(E,), first_name="Wrong", phone="+13055550111")
    new = client.lead(email=E)
    report = await client.sync(full=False)
    assert report.mode == "changes"
    assert (lead(client, new)["ghl_contact_id"], lead(client, new)["first_name"]) == (owner.id, "Right")


async def test_nor_does_it_where_a_row_was_looked_up_before_and_stayed_without_a_contact(client: Client) -> None:
    """Two with an equal claim are nobody's; a third one with a weaker claim is no way out."""
    stays = client.lead(email=E)
    await a_pass_is_made(client, client.contact(email=E, first_name="One"), client.contact(email=E, first_name="Two"))
    assert lead(client, stays)["ghl_contact_id"] is None
    client.contact(email=B, additional_emails=(E,), first_name="Three", phone="+13055550111")
    report = await client.sync(full=False)
    assert (report.mode, report.ambiguous) == ("changes", 1)
    assert lead(client, stays)["ghl_contact_id"] is None


async def test_a_row_is_not_missing_while_ghl_has_a_contact_with_its_email(client: Client) -> None:
    old, other = client.contact(email=E), client.contact(email=B, additional_emails=(E,))
    client.vendor(ghl_contact_id=old.id, email=E, status="active")
    client.vendor(ghl_contact_id=other.id, email=B, status="active")
    client.ghl.remove(old.id)
    alive = client.contact(email=E)
    report = await client.sync()
    assert [(row["ghl_contact_id"], row["status"]) for row in client.vendors()] == [
        (alive.id, "active"),
        (other.id, "active"),
    ]
    assert (report.vendors_missing_in_ghl, report.conflicts) == (0, 0)


@pytest.mark.parametrize("side", ["vendor", "lead"])
async def test_another_rows_contact_with_the_address_among_others_does_not_hide_its_owner(
    client: Client, side: str
) -> None:
    other = client.contact(email=B, additional_emails=(E,))
    owner = client.contact(email=E)
    ours = client.lead(email=E)
    (client.vendor if side == "vendor" else client.lead)(ghl_contact_id=other.id, email=B)
    await client.sync()
    assert lead(client, ours)["ghl_contact_id"] == owner.id


async def test_a_vendors_contact_with_the_same_address_does_not_hide_the_leads(client: Client) -> None:
    vendors = client.contact(email=E)
    owner = client.contact(email=E, phone="+13055550111")
    client.vendor(ghl_contact_id=vendors.id)
    ours = client.lead(email=E)
    await client.sync()
    assert lead(client, ours)["ghl_contact_id"] == owner.id


async def test_whoever_came_and_is_not_the_rows_is_not_remembered_as_found(client: Client) -> None:
    other = client.contact(email=B, additional_emails=(E,))
    client.lead(ghl_contact_id=other.id, email=B)
    ours = client.lead(email=E)
    await client.sync()
    with client.engine.connect() as connection:
        query = "SELECT row_id, outcome FROM crm_lookups"
        outcomes = {row.row_id: row.outcome for row in connection.exec_driver_sql(query)}
    assert outcomes.pop(ours) == "not_found"
    assert list(outcomes.values()) == ["found"]


async def test_while_the_address_cannot_be_asked_nobody_else_is_linked(client: Client) -> None:
    email = f"{'x' * 80}@example.com"  # longer than a search takes, so that another route is asked
    client.contact(email=B, additional_emails=(email,))
    client.lead(email=B)
    client.contact(email=email)
    ours = client.lead(email=email)
    client.sql("UPDATE leads SET status = 'replied'")
    client.faults(routes=("GET /contacts/search/duplicate",), error_rate=1.0)
    with pytest.raises(CrmPartlyFailed, match="1 vendors or leads could not be looked up"):
        await client.sync()
    assert (lead(client, ours)["ghl_contact_id"], lead(client, ours)["status"]) == (None, "replied")
