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
        {"message": {"type": 2, "text": "Yes, call me"}},
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
    assert event.dedupe_key.startswith(f"{LOCATION}:message:KmCWcMj8IGDdMzpXZMNq:")
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


def test_an_event_id_of_the_author_is_in_the_key_and_hashed_if_it_could_be_an_address() -> None:
    plain = read(customData={"event_id": "wf8h2K3m9Qx71LpZ4tRb"})
    address = read(customData={"event_id": "ann@example.com-reply"})

    assert plain.dedupe_key.startswith(f"{LOCATION}:wf8h2K3m9Qx71LpZ4tRb:")
    assert "ann" not in address.dedupe_key
    assert address.dedupe_key == read(NOON + timedelta(9), customData={"event_id": "ann@example.com-reply"}).dedupe_key


@pytest.mark.parametrize("name", ["event_id", "message_id"])
def test_an_id_that_is_the_same_in_every_event_makes_no_reply_a_repetition(name: str) -> None:
    def reply(text: str, contact_id: str = CONTACT) -> str:
        message = {"type": 2, "body": text}
        return read(contact_id=contact_id, message=message, customData={name: "evt-2024"}).dedupe_key

    assert len({reply("Hello?"), reply("Are you there?"), reply("Hello?", CONTACT[::-1])}) == 3
    assert reply("Hello?") == reply("Hello?")


def test_an_id_that_is_the_same_in_every_event_makes_no_change_a_repetition() -> None:
    custom = {"event_id": "evt-2024"}

    assert read(customData=custom).dedupe_key != read(customData=custom, phone="+13055550124").dedupe_key


def test_a_contacts_own_field_named_event_id_is_no_id() -> None:
    yes = {"message": {"type": 2, "body": "yes"}, "event_id": "wf8h2K3m9Qx71LpZ4tRb"}

    assert "wf8h2K3m9Qx71LpZ4tRb" not in read(**yes).dedupe_key
    assert read(**yes).dedupe_key != read(NOON + timedelta(days=1), **yes).dedupe_key


@pytest.mark.parametrize("name", ["message", "body", "message_body", "messageBody"])
@pytest.mark.parametrize("objects", [("location",), ("workflow",), ("customData",)])
def test_what_somebody_wrote_into_a_form_is_no_message(name: str, objects: tuple[str, ...]) -> None:
    said = {key: value for key, value in STANDARD.items() if key in objects or not isinstance(value, dict)}
    event = read_raw(json.dumps(said | {name: "I would like a quote for my roof", "event": "a wedding"}).encode())

    assert (event.kind, event.event_type, event.message) == (EventKind.CONTACT_CHANGED, "Contact", None)
    assert not event.makes_lead


@pytest.mark.parametrize("name", ["message", "body", "message_body", "messageBody"])
def test_a_custom_webhook_says_everything_at_its_top_level(name: str) -> None:
    said = {"contact_id": CONTACT, name: "Yes, call me", "message_id": "KmCWcMj8IGDdMzpXZMNq", "event": "replied"}
    event = read_raw(json.dumps(said | {"channel": "WhatsApp", "timestamp": "2026-04-01T10:00:00Z"}).encode())

    assert (event.kind, event.event_type) == (EventKind.MESSAGE_RECEIVED, "replied")
    assert event.message is not None
    assert (event.message.body, event.message.channel) == ("Yes, call me", "whatsapp")
    assert event.message.external_id == "KmCWcMj8IGDdMzpXZMNq"
    assert event.message.sent_at == event.occurred_at == datetime(2026, 4, 1, 10, tzinfo=UTC)
    with_id = read_raw(json.dumps(said | {"event_id": "wf8h2K3m9Qx71LpZ4tRb"}).encode())
    assert with_id.dedupe_key.startswith(f"{LOCATION}:wf8h2K3m9Qx71LpZ4tRb:")


def test_without_a_contact_id_the_address_tells_who_it_is() -> None:
    event = read(contact_id="", message={"type": 2, "body": "hello"})

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


def test_a_broken_body_that_is_longer_than_any_message_is_not_mended() -> None:
    def body(length: int) -> bytes:
        return f'{{"contact_id": "{CONTACT}",\n "message": "Yes.\nCall {"a" * length}"}}'.encode()

    message = read_raw(body(200_000)).message

    assert message is not None
    assert message.body.startswith("Yes.\nCall a")
    with pytest.raises(UnreadableEvent):
        read_raw(body(300_000))
    with pytest.raises(UnreadableEvent):
        read_raw(f'{{"contact_id": "{CONTACT}", "message": "he said "yes" {"a" * 300_000}"}}'.encode())
