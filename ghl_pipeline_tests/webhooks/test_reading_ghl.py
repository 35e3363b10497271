"""What the webhooks of a GHL app are read as, in the shapes of live captures and of GHL's guide."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ghl_pipeline.sandbox.contacts import Contact as SandboxContact
from ghl_pipeline.sandbox.webhook_payloads import ContactEvent, Occasion, contact_event, nested
from ghl_pipeline.webhooks.events import Event, EventKind, Provider
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event

LOCATION, CONTACT = "ve9EPM428h8vShlRW1KT", "GKBhT6BfwY9mjzXAU3sq"
WEBHOOK_ID = "2c9b4b8e-9f0a-4c58-8f5f-3a105d7ed3a6"
MESSAGE = {
    "type": "InboundMessage",
    "locationId": LOCATION,
    "body": "Yes please",
    "contactId": CONTACT,
    "contentType": "text/plain",
    "conversationId": "fcanlLgpbQgQhderivVs",
    "dateAdded": "2026-04-01T10:00:00.000Z",
    "direction": "inbound",
    "messageType": "SMS",
    "messageId": "KmCWcMj8IGDdMzpXZMNq",
    "status": "delivered",
    "timestamp": "2026-04-01T10:00:01.500Z",
    "webhookId": WEBHOOK_ID,
}


def read(**changes: object) -> Event:
    body = {name: value for name, value in {**MESSAGE, **changes}.items() if value is not None}
    return read_event(Provider.GHL, json.dumps(body).encode())


def test_an_inbound_sms_is_a_message_of_its_contact() -> None:
    event = read()

    assert (event.kind, event.event_type, event.location_id) == (
        EventKind.MESSAGE_RECEIVED,
        "InboundMessage",
        LOCATION,
    )
    assert event.makes_lead
    assert event.person is not None
    assert event.person.contact_id == CONTACT
    message = event.message
    assert message is not None
    assert (message.provider, message.external_id, message.channel) == ("ghl", "KmCWcMj8IGDdMzpXZMNq", "sms")
    assert (message.direction, message.body, message.status) == ("inbound", "Yes please", "delivered")
    assert message.sent_at == datetime(2026, 4, 1, 10, tzinfo=UTC)
    assert event.occurred_at == datetime(2026, 4, 1, 10, 0, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message_type", "channel"),
    [
        ("SMS", "sms"),
        ("TYPE_SMS", "sms"),
        ("TYPE_CAMPAIGN_SMS", "sms"),
        ("TYPE_CAMPAIGN_MANUAL_SMS", "sms"),
        ("TYPE_CUSTOM_PROVIDER_SMS", "sms"),
        ("Email", "email"),
        ("TYPE_CUSTOM_EMAIL", "email"),
        ("WhatsApp", "whatsapp"),
        ("FB", "facebook"),
        ("TYPE_FACEBOOK", "facebook"),
        ("IG", "instagram"),
        ("GMB", "gmb"),
        ("Live_Chat", "live_chat"),
        ("TYPE_WEBCHAT", "live_chat"),
        ("RCS", "rcs"),
        ("Custom", "custom"),
        (2, "sms"),
    ],
)
def test_the_channel_is_told_from_every_spelling_of_the_type(message_type: object, channel: str) -> None:
    message = read(messageType=message_type).message

    assert message is not None
    assert message.channel == channel


@pytest.mark.parametrize(
    "message_type", ["CALL", "TYPE_CALL", "TYPE_CAMPAIGN_VOICEMAIL", "TYPE_INTERNAL_COMMENT", "TYPE_REVIEW", "New"]
)
def test_a_call_a_comment_or_a_review_is_no_message(message_type: str) -> None:
    event = read(messageType=message_type)

    assert (event.kind, event.message, event.makes_lead) == (EventKind.OTHER, None, False)


@pytest.mark.parametrize(
    ("event_type", "direction", "kind"),
    [
        ("InboundMessage", "inbound", EventKind.MESSAGE_RECEIVED),
        ("InboundMessage", "outbound", EventKind.MESSAGE_SENT),
        ("OutboundMessage", "inbound", EventKind.MESSAGE_RECEIVED),
        ("OutboundMessage", None, EventKind.MESSAGE_SENT),
        ("InboundMessage", None, EventKind.MESSAGE_RECEIVED),
    ],
)
def test_the_direction_decides_and_the_type_only_without_one(
    event_type: str, direction: str | None, kind: EventKind
) -> None:
    event = read(type=event_type, direction=direction)

    assert event.kind is kind
    assert event.message is not None
    assert event.message.direction == ("inbound" if kind is EventKind.MESSAGE_RECEIVED else "outbound")


def test_an_inbound_mail_says_its_senders_address_and_its_words() -> None:
    event = read(
        messageType="Email",
        contentType="text/html",
        body="<style>p{}</style><p>Yes,</p><p>call&nbsp;me</p>",
        to=["office@example.com"],
        subject="Re: Your offer",
        **{"from": "Ann Example <ann@example.com>"},
    )

    assert event.person is not None
    assert event.person.email == "ann@example.com"
    assert event.message is not None
    assert event.message.channel == "email"
    assert event.message.subject == "Re: Your offer"
    assert event.message.body.split() == ["Yes,", "call", "me"]


def test_of_an_outbound_mail_the_sender_is_the_client_and_not_the_lead() -> None:
    event = read(messageType="Email", direction="outbound", **{"from": "office@example.com"})

    assert event.person is not None
    assert event.person.email is None


@pytest.mark.parametrize("event_type", ["ContactCreate", "ContactUpdate", "ContactTagUpdate", "ContactDndUpdate"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_changed_contact_is_read_whole(event_type: str, is_nested: bool) -> None:
    contact = SandboxContact(
        id=CONTACT,
        email="ann@example.com",
        phone="+13055550123",
        first_name="Ann",
        last_name="O'Example",
        company_name="Example & Co",
        date_added=0,
        date_updated=0,
    )
    payload = contact_event(ContactEvent(event_type), contact, LOCATION, Occasion(WEBHOOK_ID, 1_775_037_600_000))
    body = json.dumps(nested(payload) if is_nested else payload).encode()

    event = read_event(Provider.GHL, body)

    assert (event.kind, event.event_type) == (EventKind.CONTACT_CHANGED, event_type)
    assert event.occurred_at == datetime(2026, 4, 1, 10, tzinfo=UTC)
    assert event.contact is not None
    assert (event.contact.id, event.contact.email, event.contact.phone) == (CONTACT, "ann@example.com", "+13055550123")
    assert (event.contact.first_name, event.contact.last_name) == ("Ann", "O'Example")
    assert event.contact.company_name == "Example & Co"
    assert event.contact.names_are_whole
    assert event.person is not None
    assert event.person.phone == "+13055550123"
    assert event.dedupe_key == f"{LOCATION}:{WEBHOOK_ID}"
    assert not event.makes_lead


def test_a_contact_with_its_whole_name_only_needs_a_look_for_the_parts() -> None:
    body = {"type": "ContactUpdate", "locationId": LOCATION, "id": CONTACT, "name": "Ann Example"}

    contact = read_event(Provider.GHL, json.dumps(body).encode()).contact

    assert contact is not None
    assert not contact.names_are_whole


def test_the_day_a_contact_was_added_is_not_when_it_changed() -> None:
    body = {"type": "ContactUpdate", "locationId": LOCATION, "id": CONTACT, "dateAdded": "2020-01-01T00:00:00.000Z"}

    assert read_event(Provider.GHL, json.dumps(body).encode()).occurred_at is None


def test_a_deleted_contact_is_told_by_its_id_alone() -> None:
    body = {"type": "ContactDelete", "locationId": LOCATION, "id": CONTACT, "email": "ann@example.com"}

    event = read_event(Provider.GHL, json.dumps(body).encode())

    assert event.kind is EventKind.CONTACT_DELETED
    assert event.person is not None
    assert (event.person.contact_id, event.person.email) == (CONTACT, None)


def test_a_redelivery_has_the_key_of_the_first_delivery_whatever_the_order_of_its_fields() -> None:
    without_id = {name: value for name, value in MESSAGE.items() if name not in {"webhookId", "messageId"}}
    turned = dict(reversed(without_id.items()))
    keys = [read_event(Provider.GHL, json.dumps(body).encode()).dedupe_key for body in (without_id, turned)]

    assert keys[0] == keys[1]
    assert read().dedupe_key == f"{LOCATION}:{WEBHOOK_ID}"
    assert read(webhookId=None).dedupe_key == f"{LOCATION}:message:KmCWcMj8IGDdMzpXZMNq"


def test_two_changes_of_a_contact_without_a_webhook_id_differ_by_their_time() -> None:
    first, second, again = (
        read_event(
            Provider.GHL,
            json.dumps(
                {"type": "ContactUpdate", "locationId": LOCATION, "id": CONTACT, "timestamp": at, "city": city}
            ).encode(),
        ).dedupe_key
        for at, city in [("2026-04-01T10:00:00Z", "A"), ("2026-04-01T10:00:01Z", "A"), ("2026-04-01T10:00:00Z", "B")]
    )

    assert first != second
    assert first == again


def test_the_same_message_under_another_webhook_id_keeps_its_message_id() -> None:
    first, second = read(), read(webhookId="7a9b4b8e-9f0a-4c58-8f5f-3a105d7ed3a6")

    assert first.dedupe_key != second.dedupe_key
    assert first.message == second.message


@pytest.mark.parametrize("missing", ["type", "locationId"])
def test_an_event_without_type_or_location_is_unreadable(missing: str) -> None:
    with pytest.raises(UnreadableEvent, match=f"no `{missing}`"):
        read(**{missing: None})


@pytest.mark.parametrize("event_type", ["OpportunityCreate", "AppInstall", "SomethingNew", "ProviderOutboundMessage"])
def test_what_nobody_waits_for_is_kept_under_its_name(event_type: str) -> None:
    event = read(type=event_type, contactId=None, id="0123456789abcdefghij")

    assert (event.kind, event.event_type, event.person, event.message) == (EventKind.OTHER, event_type, None, None)


def test_a_contact_id_that_is_none_identifies_nobody() -> None:
    assert read(contactId="ann@example.com").person is None
    assert read(contactId=None).kind is EventKind.OTHER


def test_numbers_lists_and_broken_characters_are_read_as_the_texts_they_stand_for() -> None:
    body = json.dumps(MESSAGE | {"body": 1, "messageType": ["SMS"], "subject": None}).replace('"body": 1', '"body": 7')
    event = read_event(Provider.GHL, body.encode())
    half = read_event(Provider.GHL, json.dumps(MESSAGE).replace("Yes please", "Yes \\ud83d\\u0000!").encode())

    assert event.message is not None
    assert (event.message.body, event.message.channel) == ("7", "sms")
    assert half.message is not None
    assert half.message.body == "Yes !"


def test_nothing_of_a_person_is_in_the_repr_or_the_key_of_an_event() -> None:
    event = read(webhookId="ann@example.com", messageId="+1 305 555 0123", **{"from": "ann@example.com"})
    shown = f"{event!r} {event.dedupe_key}"

    for private in ("ann@example.com", "555 0123", "5550123", "Yes please"):
        assert private not in shown
    assert replace(event, message=None).dedupe_key.startswith(f"{LOCATION}:")
