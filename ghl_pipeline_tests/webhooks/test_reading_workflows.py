"""What a GHL workflow's webhook action is read as: the standard body, custom data, and JSON that a message broke."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ghl_pipeline.webhooks.events import Event, EventKind, Provider
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event

LOCATION, CONTACT = "ve9EPM428h8vShlRW1KT", "GKBhT6BfwY9mjzXAU3sq"
NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
STANDARD = {
    "contact_id": CONTACT,
    "first_name": "Ann",
    "last_name": "Example",
    "full_name": "Ann Example",
    "email": "ann@example.com",
    "phone": "+13055550123",
    "tags": "a,b",
    "Favourite Colour": "green",
    "location": {"id": LOCATION, "name": "Sample Clinic"},
    "workflow": {"id": "5d7ed3a6", "name": "Tell the dashboard"},
    "contact": {"attributionSource": {"sessionSource": "CRM UI"}},
    "customData": {},
}


def read(at: datetime = NOON, /, **changes: Any) -> Event:
    return read_raw(json.dumps(STANDARD | changes).encode(), at)


def read_raw(body: bytes, received_at: datetime = NOON) -> Event:
    return read_event(Provider.GHL_WORKFLOW, body, location_id=LOCATION, received_at=received_at)


def test_a_body_without_a_message_is_a_changed_contact() -> None:
    event = read()

    assert (event.kind, event.event_type, event.location_id) == (EventKind.CONTACT_CHANGED, "Contact", LOCATION)
    assert event.contact is not None
    assert (event.contact.id, event.contact.first_name, event.contact.email) == (CONTACT, "Ann", "ann@example.com")
    assert event.person is not None
    assert event.person.phone == "+13055550123"


@pytest.mark.parametrize(
    "said",
    [
        {"message": {"type": 2, "body": "Yes, call me", "direction": "inbound"}},
        {"message": "Yes, call me"},
        {"customData": {"message": "Yes, call me"}},
        {"customData": {"body": "Yes, call me", "channel": "SMS"}},
        {"customData": {"message_body": "Yes, call me"}},
    ],
)
def test_a_message_is_found_wherever_the_workflow_puts_it(said: dict[str, Any]) -> None:
    event = read(**said)

    assert event.kind is EventKind.MESSAGE_RECEIVED
    assert event.message is not None
    assert (event.message.body, event.message.channel, event.message.direction) == ("Yes, call me", "sms", "inbound")
    assert event.makes_lead


def test_custom_data_say_id_event_channel_direction_and_time() -> None:
    event = read(
        message={"type": 2, "body": "as the trigger has it"},
        customData={
            "message": "as the author has it",
            "message_id": "KmCWcMj8IGDdMzpXZMNq",
            "event": "reply.sent",
            "channel": "TYPE_WHATSAPP",
            "direction": "OUTBOUND",
            "timestamp": "1775037600000",
        },
    )

    assert (event.kind, event.event_type) == (EventKind.MESSAGE_SENT, "reply.sent")
    assert event.dedupe_key == f"{LOCATION}:message:KmCWcMj8IGDdMzpXZMNq"
    assert event.message is not None
    assert (event.message.body, event.message.channel) == ("as the author has it", "whatsapp")
    assert event.message.sent_at == event.occurred_at == datetime(2026, 4, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("said", [{"message": {"type": 1, "body": "x"}}, {"customData": {"channel": "Call"}}])
def test_a_call_is_neither_a_message_nor_a_change(said: dict[str, Any]) -> None:
    event = read(**said)

    assert (event.kind, event.message) == (EventKind.OTHER, None)


def test_the_same_words_count_again_on_another_day_but_not_when_they_are_repeated() -> None:
    yes = {"message": {"type": 2, "body": "yes"}}
    today, repeated = read(**yes), read(NOON + timedelta(minutes=10), **yes)
    tomorrow = read(NOON + timedelta(days=1), **yes)
    dated = [read(at, **yes, customData={"timestamp": "2026-03-31T23:59:00Z"}) for at in (NOON, NOON + timedelta(9))]

    assert today.dedupe_key == repeated.dedupe_key
    assert today.dedupe_key != tomorrow.dedupe_key
    assert dated[0].dedupe_key == dated[1].dedupe_key


def test_an_event_id_of_the_author_is_the_key_and_hashed_if_it_could_be_an_address() -> None:
    plain = read(customData={"event_id": "wf8h2K3m9Qx71LpZ4tRb"})
    address = read(customData={"event_id": "ann@example.com-reply"})

    assert plain.dedupe_key == f"{LOCATION}:wf8h2K3m9Qx71LpZ4tRb"
    assert "ann" not in address.dedupe_key
    assert address.dedupe_key == read(NOON + timedelta(9), customData={"event_id": "ann@example.com-reply"}).dedupe_key


def test_without_a_contact_id_the_address_tells_who_it_is() -> None:
    event = read(contact_id="", message="hello")

    assert event.person is not None
    assert (event.person.contact_id, event.person.email) == (None, "ann@example.com")
    assert event.contact is None
    assert event.kind is EventKind.MESSAGE_RECEIVED


def test_a_body_that_says_nothing_is_unreadable() -> None:
    for body in (b"{}", b'{"tags": "a"}', b"[]", b"yes", b"", b'"text"'):
        with pytest.raises(UnreadableEvent):
            read_raw(body)


def test_without_any_location_it_is_nobodys() -> None:
    body = json.dumps({"contact_id": CONTACT}).encode()

    with pytest.raises(UnreadableEvent, match="no location"):
        read_event(Provider.GHL_WORKFLOW, body)
    assert read_event(Provider.GHL_WORKFLOW, body, location_id=LOCATION).location_id is None


def test_a_message_with_line_breaks_put_in_raw_is_read_with_its_line_breaks() -> None:
    body = f'{{"contact_id": "{CONTACT}",\n "message": "Yes.\nCall\tme\r\n\\"now\\""\n}}'.encode()

    event = read_raw(body)

    assert event.message is not None
    assert event.message.body == 'Yes.\nCall\tme\r\n"now"'


def test_a_message_with_quotes_put_in_raw_still_tells_whose_it_is() -> None:
    body = f'{{"contact_id": "{CONTACT}", "message": "he said "yes" to me"}}'.encode()

    event = read_raw(body)

    assert (event.kind, event.event_type, event.message) == (EventKind.CONTACT_CHANGED, "Unreadable", None)
    assert event.person is not None
    assert event.person.contact_id == CONTACT
    assert event.dedupe_key == read_raw(body, NOON + timedelta(hours=1)).dedupe_key


def test_a_message_cannot_pass_itself_off_as_another_contacts() -> None:
    forged = f'"{{", "contact_id": "{CONTACT[::-1]}", "x": "'
    body = f'{{"contact_id": "{CONTACT}", "message": "hi {forged} "broken""}}'.encode()

    with pytest.raises(UnreadableEvent, match="no single contact"):
        read_raw(body)


def test_a_long_body_of_quotes_is_read_in_no_time() -> None:
    for body in (b'{"contact_id": "' + b'\\"' * 1_000_000, b'"' * 2_000_001, b'{"a":"\n' + b"\\" * 1_000_001):
        with pytest.raises(UnreadableEvent):
            read_raw(body)
