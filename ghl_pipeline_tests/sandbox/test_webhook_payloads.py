"""The bodies and signatures of GHL's webhooks, against what is documented and what was captured."""

import base64
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.conversations import Message
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.webhook_keys import WebhookKeys
from ghl_pipeline.sandbox.webhook_payloads import (
    ContactEvent,
    Occasion,
    contact_event,
    custom_workflow_body,
    message_event,
    nested,
    workflow_event,
)

OCCASION = Occasion("6f0c2c4e-7d2f-4ad8-a3f0-0f7e4cfa9d11", 1_790_000_000_000)
CONTACT_FIELDS = {
    "type", "locationId", "id", "address1", "city", "state", "companyName", "country", "source", "dateAdded",
    "dateOfBirth", "dnd", "email", "name", "firstName", "lastName", "phone", "postalCode", "tags", "website",
    "attachments", "assignedTo", "customFields",
}  # fmt: skip
MESSAGE_FIELDS = {
    "type", "locationId", "attachments", "body", "contactId", "contentType", "conversationId", "dateAdded",
    "direction", "messageType", "status", "messageId", "userId", "conversationProviderId", "callDuration",
    "callStatus", "emailMessageId", "threadId", "provider", "from", "subject", "to", "cc", "bcc",
}  # fmt: skip
LIVE_FIELDS = {"timestamp", "webhookId", "versionId", "appId"}
LIVE_MESSAGE_FIELDS = {"messageTypeId", "messageTypeString", "source", "from", "to"}


@pytest.fixture
def contact() -> Contact:
    return Contact(
        id="Ct0Aa1Bb2Cc3Dd4Ee5Ff",
        date_added=1_780_000_000_000,
        date_updated=1_790_000_000_000,
        first_name="Ada",
        last_name="Lovelace",
        email="ada@example.com",
        phone="+12125550101",
        tags=("vip", "webinar"),
        custom_fields=(("cf1", "gold"),),
    )


def message(kind: str = "TYPE_SMS", direction: Any = "inbound", body: str = "Yes") -> Message:
    at = 1_790_000_000_000
    return Message(
        id="Ms0Aa1Bb2Cc3Dd4Ee5Ff",
        contact_id="Ct0Aa1Bb2Cc3Dd4Ee5Ff",
        conversation_id="Cv0Aa1Bb2Cc3Dd4Ee5Ff",
        date_added=at,
        date_updated=at,
        direction=direction,
        body=body,
        message_type=kind,
    )


# --- signatures


def test_the_signatures_are_of_exactly_the_bytes_sent_under_the_keys_that_are_told() -> None:
    keys, body = WebhookKeys(seed=3), '{"name":"Zoë"}'.encode()
    told = {name: load_der_public_key(base64.b64decode(key)) for name, key in keys.public().items()}
    headers = keys.sign(body)
    ed25519, rsa = told["ed25519"], told["rsa"]
    assert isinstance(ed25519, Ed25519PublicKey)
    assert isinstance(rsa, RSAPublicKey)
    ed25519.verify(base64.b64decode(headers["x-ghl-signature"], validate=True), body)
    rsa.verify(base64.b64decode(headers["x-wh-signature"], validate=True), body, PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        ed25519.verify(base64.b64decode(headers["x-ghl-signature"]), body + b" ")


def test_each_signature_can_be_had_alone() -> None:
    keys = WebhookKeys()
    assert keys.sign(b"{}", rsa=False).keys() == {"x-ghl-signature"}
    assert keys.sign(b"{}", ed25519=False).keys() == {"x-wh-signature"}
    assert keys.sign(b"{}", ed25519=False, rsa=False) == {}


def test_equal_seeds_give_equal_ed25519_keys_and_other_seeds_others() -> None:
    assert WebhookKeys(1).public()["ed25519"] == WebhookKeys(1).public()["ed25519"]
    assert WebhookKeys(1).public()["ed25519"] != WebhookKeys(2).public()["ed25519"]


# --- an app's events


@pytest.mark.parametrize("kind", ContactEvent)
def test_a_contact_event_is_flat_and_has_only_fields_that_ghl_sends(contact: Contact, kind: ContactEvent) -> None:
    event = contact_event(kind, contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
    assert event["type"] == kind.value
    assert event["id"] == contact.id
    assert (event["email"], event["phone"], event["name"]) == ("ada@example.com", "+12125550101", "Ada Lovelace")
    assert event["timestamp"] == "2026-09-21T14:13:20.000Z"
    assert event["webhookId"] == OCCASION.webhook_id
    assert event.keys() <= CONTACT_FIELDS | LIVE_FIELDS
    assert "dateUpdated" not in event


def test_empty_fields_are_left_out_of_an_event() -> None:
    bare = Contact(id="Ct0Aa1Bb2Cc3Dd4Ee5Ff", date_added=0, date_updated=0, phone="+12125550101")
    event = contact_event(ContactEvent.UPDATE, bare, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
    assert not {"email", "firstName", "tags", "companyName", "customFields"} & event.keys()
    assert event["dnd"] is False  # a value, if an unimpressive one


@pytest.mark.parametrize(
    ("kind", "direction", "type_name", "channel", "number"),
    [
        ("TYPE_SMS", "inbound", "InboundMessage", "SMS", 2),
        ("TYPE_SMS", "outbound", "OutboundMessage", "SMS", 2),
        ("TYPE_WHATSAPP", "inbound", "InboundMessage", "WhatsApp", 19),
        ("TYPE_EMAIL", "inbound", "InboundMessage", "Email", 3),
        ("TYPE_CALL", "inbound", "InboundMessage", "CALL", 1),
    ],
)
def test_a_message_event_names_its_type_three_times(
    contact: Contact, kind: str, direction: str, type_name: str, channel: str, number: int
) -> None:
    event = message_event(message(kind, direction), contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
    assert (event["type"], event["direction"]) == (type_name, direction)
    assert (event["messageType"], event["messageTypeString"], event["messageTypeId"]) == (channel, kind, number)
    assert event.keys() <= MESSAGE_FIELDS | LIVE_FIELDS | LIVE_MESSAGE_FIELDS


def test_a_text_goes_from_the_contact_to_the_location_and_back(contact: Contact) -> None:
    got = message_event(message(), contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
    sent = message_event(message(direction="outbound"), contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
    assert got["from"] == sent["to"] == contact.phone
    assert got["to"] == sent["from"] != contact.phone


def test_the_guides_form_has_the_same_values_under_data(contact: Contact) -> None:
    flat = contact_event(ContactEvent.CREATE, contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
    shaped: Any = nested(flat)
    assert shaped.keys() == {"type", "timestamp", "webhookId", "data"}
    assert {**shaped["data"], **{name: shaped[name] for name in ("type", "timestamp", "webhookId")}} == flat


# --- workflows


def test_a_workflow_sends_the_contact_in_snake_case_and_no_event_of_its_own(contact: Contact) -> None:
    location = ("Loc0Aa1Bb2Cc3Dd4Ee5F", "Harbor Dental")
    body: Any = workflow_event(contact, location, message=message(), custom_data={"event": "replied"})
    assert body["contact_id"] == contact.id
    assert (body["full_name"], body["tags"]) == ("Ada Lovelace", "vip,webinar")
    assert body["location"]["id"] == location[0]
    assert body["message"]["body"] == "Yes"
    assert body["customData"] == {"event": "replied"}
    assert not {"type", "timestamp", "webhookId", "locationId"} & body.keys()


def test_a_custom_webhook_puts_values_in_as_they_are(contact: Contact) -> None:
    good = msgspec.json.decode(custom_workflow_body(contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", message()))
    assert (good["contact_id"], good["message"]) == (contact.id, "Yes")
    broken = custom_workflow_body(contact, "Loc0Aa1Bb2Cc3Dd4Ee5F", message(body='He said "yes"'))
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(broken)
    assert contact.id.encode() in broken


def test_every_sample_person_makes_a_readable_event() -> None:
    for person in crowd(200, seed=5):
        event = contact_event(ContactEvent.UPDATE, person, "Loc0Aa1Bb2Cc3Dd4Ee5F", OCCASION)
        assert msgspec.json.decode(msgspec.json.encode(event)) == event
