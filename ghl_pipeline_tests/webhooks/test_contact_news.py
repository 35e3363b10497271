"""Which news of a contact is old: by the contact, and by no time later than that at which it was told."""

from datetime import timedelta

import pytest

from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.handling_tools import START, Inbox, contact_changed, contact_deleted


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


async def test_a_time_in_the_future_silences_nothing_that_comes_later(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, ghl_contact_id=contact.id, email="ada@example.com")
    (odd,) = await inbox.handled(place, contact_changed(place, contact, timestamp="2098-01-01T00:00:00Z"))
    after = odd["received_at"] + timedelta(seconds=1)
    deleted = contact_deleted(place, contact.id) | {"timestamp": after.isoformat()}
    (event,) = inbox.deliver(place, deleted)
    agency.sql("UPDATE webhook_events SET received_at = :at WHERE id = :id", at=after, id=event)
    await inbox.handle(place)
    assert agency.row(lead_id)["contact_deleted_at"] == after


async def test_a_deletion_in_the_future_is_of_the_time_at_which_it_was_told(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    lead_id = agency.lead(place, ghl_contact_id="A" * 20)
    deleted = contact_deleted(place, "A" * 20) | {"timestamp": "2098-01-01T00:00:00Z"}
    (event,) = await inbox.handled(place, deleted)
    assert agency.row(lead_id)["contact_deleted_at"] == event["received_at"]


async def test_news_of_the_contact_before_are_no_news_of_the_contact_now(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    before = place.ghl.add(email="ada@example.com", first_name="Ada")
    now = place.ghl.add(email="ada.byron@example.com", first_name="Ada")
    lead_id = agency.lead(place, ghl_contact_id=before.id, email="ada@example.com")
    await inbox.handled(place, contact_changed(place, before, minutes=5))
    agency.edit(lead_id, ghl_contact_id=now.id)
    await inbox.handled(place, contact_deleted(place, now.id, minutes=3))
    assert agency.row(lead_id)["contact_deleted_at"] == START + timedelta(minutes=3)


async def test_the_change_that_linked_a_lead_is_news_of_its_contact(agency: Agency, place: Place, inbox: Inbox) -> None:
    """It was found by the address, so the lead had no link yet."""
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    lead_id = agency.lead(place, email="ada@example.com")
    await inbox.handled(place, contact_changed(place, contact, minutes=5))
    assert agency.row(lead_id)["ghl_contact_id"] == contact.id
    (late,) = await inbox.handled(place, contact_deleted(place, contact.id, minutes=3))
    assert (late["outcome"], agency.row(lead_id)["contact_deleted_at"]) == ("unchanged", None)
