"""Events that are handled after all: dead letters, and what came while a client was deactivated."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from ghl_pipeline.locations.clients import TokenMissing, deactivate_client, reactivate_client
from ghl_pipeline.webhooks.events import Event, Provider
from ghl_pipeline.webhooks.inbox import replays
from ghl_pipeline.webhooks.inbox.claims import claim
from ghl_pipeline.webhooks.inbox.dead_letters import purge_bodies
from ghl_pipeline.webhooks.inbox.replays import replay, take_up_ignored
from ghl_pipeline.webhooks.inbox.store_events import Delivery, Stored, store_deliveries
from ghl_pipeline.webhooks.reading.read_event import read_event
from ghl_pipeline_tests.hydration.conftest import Agency, Place
from ghl_pipeline_tests.hydration.conftest import agency as agency  # noqa: PLC0414 - a fixture
from ghl_pipeline_tests.webhooks.handling_tools import Inbox, bison, contact_deleted, sms

NO_BUSINESS_OF_OURS: dict[str, object] = {"type": "OpportunityCreate", "webhookId": "hook-of-an-opportunity"}


@pytest.fixture
def place(agency: Agency) -> Place:
    return agency.place()


@pytest.fixture
def inbox(agency: Agency) -> Inbox:
    return Inbox(agency)


def deactivate(agency: Agency, place: Place) -> None:
    with agency.engine.begin() as connection:
        deactivate_client(connection, place.id)


def reactivate(agency: Agency, place: Place) -> int:
    with agency.engine.begin() as connection:
        reactivate_client(connection, place.id)
    return take_up_ignored(agency.engine, place.id)


def deliver_while_inactive(agency: Agency, place: Place, *bodies: dict[str, object]) -> list[int]:
    """Stores events as the receiver does that knows of the deactivation; returns their ids, in the order of bodies."""
    ids = []
    for sent in bodies:
        body = msgspec.json.encode(sent)
        event = read_event(Provider.EMAILBISON if "event" in sent else Provider.GHL, body, location_id=place.id)
        delivery = Delivery(event, body, place.client_id, place.id, client_is_active=False)
        (stored,) = store_deliveries(agency.engine, [delivery])
        assert isinstance(stored, Stored)
        assert stored.event_id is not None
        ids.append(stored.event_id)
    return ids


def states(inbox: Inbox, ids: list[int]) -> list[str]:
    return [event["state"] for event in inbox.events(ids)]


def test_replay_leaves_done_events_and_other_locations_alone(agency: Agency, place: Place, inbox: Inbox) -> None:
    other = agency.place("Other")
    done, dead = inbox.deliver(place, contact_deleted(place, "A" * 20), contact_deleted(place, "B" * 20))
    (theirs,) = inbox.deliver(other, contact_deleted(other, "C" * 20))
    agency.sql("UPDATE webhook_events SET state = 'dead' WHERE id <> :done", done=done)
    agency.sql("UPDATE webhook_events SET state = 'done' WHERE id = :done", done=done)
    assert replay(agency.engine, location_id=place.id) == [dead]
    assert states(inbox, [done, dead, theirs]) == ["done", "pending", "dead"]
    assert replay(agency.engine) == [theirs]


def test_replay_leaves_events_in_work_alone_and_makes_waiting_ones_due(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    taken, waiting, bodiless, _due = (inbox.deliver(place, contact_deleted(place, name * 20))[0] for name in "ABCD")
    agency.sql("UPDATE webhook_events SET due_at = now() + interval '1 hour', attempts = 4 WHERE id = :id", id=waiting)
    agency.sql("UPDATE webhook_events SET state = 'dead', body = NULL WHERE id = :id", id=bodiless)
    with agency.engine.begin() as connection:
        (claimed,) = claim(connection, place.id, "worker", size=1, lease_seconds=60, max_attempts=8)
    assert claimed.id == taken
    assert replay(agency.engine) == [waiting]
    (event,) = inbox.events([waiting])
    assert event["attempts"] == 0
    assert states(inbox, [bodiless]) == ["dead"]


async def test_what_came_while_a_client_was_deactivated_is_handled_once_it_is_active_again(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    """A text, a reply and an opt-out, of people who were no leads; with their messages, and each once."""
    contact = place.ghl.add(email="ada@example.com", first_name="Ada")
    deactivate(agency, place)
    ids = deliver_while_inactive(
        agency,
        place,
        sms(place, contact.id, "Is this offer still good?"),
        bison("LEAD_REPLIED", email="ben@example.com", lead_id=71, reply_id=901),
        bison("LEAD_UNSUBSCRIBED", email="ben@example.com", lead_id=71, reply_id=None),
    )
    (other,) = deliver_while_inactive(agency, place, {**NO_BUSINESS_OF_OURS, "locationId": place.id})
    assert states(inbox, [*ids, other]) == ["ignored"] * 4
    assert agency.rows() == []
    assert replay(agency.engine, location_id=place.id) == [], "the client is still deactivated"
    assert reactivate(agency, place) == 3
    assert states(inbox, [*ids, other]) == ["pending"] * 3 + ["ignored"]
    assert len(agency.table("messages")) == 2
    assert reactivate(agency, place) == 0
    await inbox.handle(place)
    assert states(inbox, ids) == ["done"] * 3
    leads = {row["email"]: row for row in agency.rows()}
    assert leads.keys() == {"ada@example.com", "ben@example.com"}
    assert leads["ada@example.com"]["first_name"] == "Ada"
    assert leads["ben@example.com"]["opted_out_at"] is not None
    assert len(agency.table("messages")) == 2


@pytest.mark.parametrize("how", ["by number", "by location", "all"])
def test_ignored_events_are_replayed_when_they_are_asked_for(
    agency: Agency, place: Place, inbox: Inbox, how: str
) -> None:
    deactivate(agency, place)
    (event_id,) = deliver_while_inactive(agency, place, sms(place, "A" * 20))
    with agency.engine.begin() as connection:
        reactivate_client(connection, place.id)
    asked: dict[str, Any] = {"by number": {"event_ids": [event_id]}, "by location": {"location_id": place.id}}
    replayed = replay(agency.engine, **asked.get(how, {}))
    assert replayed == ([] if how == "all" else [event_id])
    (event,) = inbox.events()
    assert (event["state"], event["lead_id"]) == (
        ("ignored", None) if how == "all" else ("pending", agency.rows()[0]["id"])
    )


def test_what_waits_when_a_client_is_deactivated_is_ignored_purged_in_time_and_taken_up_again(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    """The body of an event that nobody handles would otherwise be kept for ever."""
    old = inbox.deliver(place, sms(place, "A" * 20, "Brindlemoth"))
    fresh = inbox.deliver(place, sms(place, "B" * 20))
    with agency.engine.begin() as connection:
        claim(connection, place.id, "worker", size=1, lease_seconds=60, max_attempts=8)
    deactivate(agency, place)
    late = inbox.deliver(place, contact_deleted(place, "C" * 20))
    assert states(inbox, old + fresh + late) == ["ignored", "ignored", "pending"], "the receiver did not know yet"
    agency.sql("UPDATE webhook_events SET received_at = now() - interval '31 days' WHERE id = :id", id=old[0])
    assert purge_bodies(agency.engine, timedelta(days=30)) == 1
    assert [event["body"] is None for event in inbox.events(old + fresh)] == [True, False]
    assert states(inbox, late) == ["ignored"]
    assert reactivate(agency, place) == 2
    assert states(inbox, old + fresh + late) == ["ignored", "pending", "pending"]
    assert len(agency.rows()) == 2, "no lead was made a second time"


async def test_what_waited_for_a_token_for_a_month_is_not_kept_for_ever(agency: Agency, inbox: Inbox) -> None:
    tokenless = agency.place("Tokenless", token=None)
    old, fresh = (inbox.deliver(tokenless, sms(tokenless, name * 20))[0] for name in "AB")
    with pytest.raises(TokenMissing):
        await inbox.handle(tokenless)
    agency.sql("UPDATE webhook_events SET received_at = now() - interval '31 days' WHERE id = :id", id=old)
    new = inbox.deliver(tokenless, contact_deleted(tokenless, "C" * 20))
    assert purge_bodies(agency.engine, timedelta(days=30)) == 1
    assert states(inbox, [old, fresh, *new]) == ["ignored", "pending", "pending"]
    assert [event["body"] is None for event in inbox.events([old, fresh, *new])] == [True, False, False]
    assert inbox.events([old])[0]["error_class"] == "TokenMissing"


async def test_a_dead_event_whose_lead_was_never_stored_gets_it_at_its_replay_or_stays_dead(
    agency: Agency, place: Place, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would otherwise be handled as an event about nobody, and its message be lost."""
    contact = place.ghl.add(email="ada@example.com", phone="+13055550123")
    (event_id,) = inbox.deliver(place, sms(place, contact.id))
    agency.sql("DELETE FROM messages")
    agency.sql("DELETE FROM leads")
    agency.sql("UPDATE webhook_events SET state = 'dead', error_class = 'InvalidInput', error_text = 'as it was'")

    def read_as_unstorable(*values: Any, **named: Any) -> Event:
        event = read_event(*values, **named)
        assert event.message is not None
        return replace(event, message=replace(event.message, channel=" "))

    with monkeypatch.context() as patch:
        patch.setattr(replays, "read_event", read_as_unstorable)
        assert replay(agency.engine, event_ids=[event_id]) == []
    (event,) = inbox.events()
    assert (event["state"], event["error_class"]) == ("dead", "InvalidInput")
    assert "channel" in event["error_text"]
    assert replay(agency.engine, event_ids=[event_id]) == [event_id]
    (event,), (lead,), (message,) = inbox.events(), agency.rows(), agency.table("messages")
    assert (event["state"], event["lead_id"], event["error_class"]) == ("pending", lead["id"], None)
    assert message["lead_id"] == lead["id"]
    await inbox.handle(place)
    assert (states(inbox, [event_id]), agency.rows()[0]["email"]) == (["done"], "ada@example.com")


def test_a_dead_event_that_cannot_be_read_stays_dead_with_that_reason(
    agency: Agency, place: Place, inbox: Inbox
) -> None:
    (event_id,) = inbox.deliver(place, sms(place, "A" * 20))
    agency.sql("UPDATE webhook_events SET body = 'no JSON', state = 'dead', error_class = 'InvalidInput'")
    assert replay(agency.engine, event_ids=[event_id]) == []
    (event,) = inbox.events()
    assert (event["state"], event["error_class"]) == ("dead", "UnreadableEvent")


def test_an_event_that_spoils_its_transaction_costs_no_other_its_replay(
    agency: Agency, place: Place, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    deactivate(agency, place)
    good, bad, another = (deliver_while_inactive(agency, place, sms(place, name * 20))[0] for name in "ABC")
    with agency.engine.begin() as connection:
        reactivate_client(connection, place.id)
        connection.execute(
            text(f"ALTER TABLE leads ADD CONSTRAINT no_b CHECK (ghl_contact_id IS DISTINCT FROM '{'B' * 20}')")
        )
    assert take_up_ignored(agency.engine, place.id) == 2
    assert states(inbox, [good, bad, another]) == ["pending", "ignored", "pending"]
    assert f"event {bad} cannot be replayed" in caplog.text
    assert "B" * 20 not in caplog.text


def test_many_events_are_replayed_in_short_transactions(
    agency: Agency, place: Place, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "EVENTS_PER_TRANSACTION", 3)
    deactivate(agency, place)
    ids = deliver_while_inactive(agency, place, *(sms(place, "A" * 20, f"text {n}") for n in range(10)))
    with agency.engine.begin() as connection:
        reactivate_client(connection, place.id)
    assert replay(agency.engine, event_ids=ids) == ids
    assert len(agency.rows()) == 1
    assert len(agency.table("messages")) == 10
