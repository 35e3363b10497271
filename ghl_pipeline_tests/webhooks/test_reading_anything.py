"""Whatever is sent, reading it ends in an event or in one error that quotes nothing."""

import json
import time
import traceback
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ghl_pipeline.webhooks.events import Provider
from ghl_pipeline.webhooks.reading.json_values import address
from ghl_pipeline.webhooks.reading.read_event import UnreadableEvent, read_event

LOCATION, CONTACT = "ve9EPM428h8vShlRW1KT", "GKBhT6BfwY9mjzXAU3sq"
CANARIES = ("canary.person@example.com", "13055550199", "Canaryname")
WORDS = ("type", "locationId", "webhookId", "messageId", "contactId", "id", "data", "body", "direction", "messageType",
    "timestamp", "dateAdded", "contact_id", "contact", "customData", "message", "location", "event", "event_id",
    "reply", "lead", "scheduled_email", "campaign_event", "workspace_id", "email", "from", "phone", "custom_variables",
    "InboundMessage", "ContactUpdate", "ContactDelete", "LEAD_REPLIED", "LEAD_INTERESTED", "EMAIL_BOUNCED", "SMS",
    "MANUAL_EMAIL_SENT", "UNTRACKED_REPLY_RECEIVED", LOCATION, CONTACT, *CANARIES)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(WORDS), st.just("\ud83d\x00")
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=8),
    max_leaves=25,
)
PROVIDERS = st.sampled_from(Provider)
# An event that gets far enough for its other values to matter.
LIKELY = {
    "type": st.sampled_from(["InboundMessage", "OutboundMessage", "ContactUpdate", "ContactDelete", "Canaryname"]),
    "locationId": st.just(LOCATION),
    "contact_id": st.just(CONTACT),
    "contactId": st.just(CONTACT),
    "event": st.fixed_dictionaries(
        {"type": st.sampled_from(["LEAD_REPLIED", "EMAIL_BOUNCED", "UNTRACKED_REPLY_RECEIVED", "TAG_ADDED"])},
        optional={"workspace_id": SCALARS},
    ),
}
LIKELY_EVENTS = st.tuples(st.fixed_dictionaries(LIKELY), st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=10))


def read_or_refuse(provider: Provider, body: bytes) -> None:
    """Reads the body. Nothing of a person is in what can be shown of the result, or of the refusal."""
    try:
        event = read_event(provider, body, location_id=LOCATION)
    except UnreadableEvent as error:
        refusal = "".join(traceback.format_exception(error))
    else:
        refusal = ""
        assert len(event.dedupe_key.encode()) <= 300
        assert event.dedupe_key.isascii()
        assert event.dedupe_key.startswith(LOCATION)
        assert len(event.event_type) <= 60
        # The name of an event is its sender's word, and is shown wherever the event is. EmailBison's ids are numbers,
        # and of one that stands where an id belongs nobody can tell that it is a phone.
        in_key = [part for part in event.dedupe_key.split(":") if part != event.event_type]
        mail, phone, name = CANARIES
        numbers = () if provider is Provider.EMAILBISON else (phone,)
        assert not any(canary in part for canary in (mail, name, *numbers) for part in in_key)
        assert not any(canary in repr(event) for canary in (mail, *numbers))
        for part in (event.message and event.message.body, event.person and event.person.email):
            assert "\x00" not in (part or "")
            (part or "").encode()  # no half of a character either
    assert not any(canary in refusal for canary in CANARIES)


@given(PROVIDERS, st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_or_read(provider: Provider, body: bytes) -> None:
    read_or_refuse(provider, body)


@given(PROVIDERS, VALUES)
def test_arbitrary_json_is_refused_or_read(provider: Provider, value: Any) -> None:
    read_or_refuse(provider, json.dumps(value).encode())


@settings(max_examples=300)
@given(PROVIDERS, LIKELY_EVENTS, st.booleans())
@example(Provider.GHL, ({"type": "Canaryname", "locationId": LOCATION, "contactId": CONTACT}, {"timestamp": 0}), False)
@example(Provider.EMAILBISON, ({"event": {"type": "LEAD_REPLIED", "workspace_id": CANARIES[1]}}, {}), False)
def test_events_with_arbitrary_values_are_read(
    provider: Provider, parts: tuple[dict[str, Any], dict[str, Any]], is_raw: bool
) -> None:
    read_or_refuse(provider, json.dumps(parts[1] | parts[0], ensure_ascii=not is_raw).encode(errors="replace"))


@pytest.mark.parametrize("provider", Provider)
@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 20_000, b'{"id":' + b"9" * 20_000 + b"}", b"\xff\xfe{}", b"\x00"],
)
def test_bodies_that_are_meant_to_hurt_are_refused(provider: Provider, body: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        read_event(provider, body, location_id=LOCATION)


LONG = 5 * 1024 * 1024


def filled(piece: bytes) -> bytes:
    return piece * (LONG // len(piece))


def custom_webhook(message: bytes) -> bytes:
    return b'{"contact_id":"%s","message":"%s"}' % (CONTACT.encode(), message)


def reply(**changes: object) -> bytes:
    event = {"type": "LEAD_REPLIED", "workspace_id": 42}
    return json.dumps(
        {"event": event, "data": {"reply": {"id": 7, **changes}, "lead": {"id": 4711, **changes}}}
    ).encode()


LONG_BODIES = {
    **{
        f"only {piece!r}": filled(piece) for piece in (b'"', b"\\", b"{", b"[", b"a", b"\n", b"\xff", b'"contact_id":"')
    },
    **{
        f"a message of {piece!r}": custom_webhook(filled(piece))
        for piece in (b"\n", b'\\"', b"\\ud83da", b"a", b"\xff")
    },
    "a message and quotes": custom_webhook(b"\n") + filled(b'"'),
    "a million variables": reply(custom_variables=[1] * 1_500_000),
    "variables": reply(custom_variables=[{"name": "phone_-"}] * 150_000),
    "a variable": reply(custom_variables=[{"name": "phone_" * 800_000, "value": "7"}]),
    "a list": reply(email_subject=[{}] * 800_000),
    "markup": reply(html_body="<p>a</p>" * 300_000),
}


@pytest.mark.parametrize("body", LONG_BODIES.values(), ids=LONG_BODIES.keys())
def test_no_body_of_5_mb_takes_more_than_a_moment(body: bytes) -> None:
    """A stranger's bodies would keep everybody else's waiting: quotes alone once took two seconds each."""
    for provider in Provider:
        began = time.thread_time()
        read_or_refuse(provider, body)
        assert time.thread_time() - began < 1


@pytest.mark.parametrize("word", ["a" * 3200, "@" * 3200, "a@" * 1600, "a." * 1600, "<" * 3200])
def test_an_address_is_looked_for_in_one_go(word: str) -> None:
    began = time.thread_time()
    for _ in range(100):
        address(word)
    assert time.thread_time() - began < 1
