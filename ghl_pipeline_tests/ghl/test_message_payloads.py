"""Asking for the export of messages, and reading what it answers."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.ghl.errors import RequestRejected
from ghl_pipeline.ghl.message_payloads import Message, MessageExport, decode_messages
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.ghl.conftest import Connector

SENT: dict[str, Any] = {
    "id": "ve9EPM428h8vShlRW1KT",
    "type": 2,
    "messageType": "TYPE_SMS",
    "contactId": "ocQHyuzHvysMo5N5VsXc",
    "conversationId": "tDtDnQdgm2LXpyiqYvZ6",
    "dateAdded": "2026-03-27T18:13:49.000Z",
    "body": " Hi\u0000 there ",
    "direction": "inbound",
    "status": "delivered",
}


def page_of(*messages: object, **rest: object) -> bytes:
    return json.dumps({"messages": messages, **rest}).encode()


def test_a_message_becomes_what_the_project_sees() -> None:
    page = decode_messages(page_of(SENT, nextCursor="abc", total=1234))
    assert (page.next_cursor, page.total, page.unreadable) == ("abc", 1234, 0)
    assert page.messages == (
        Message(
            id="ve9EPM428h8vShlRW1KT",
            contact_id="ocQHyuzHvysMo5N5VsXc",
            direction="inbound",
            sent_at=datetime(2026, 3, 27, 18, 13, 49, tzinfo=UTC),
            channel="sms",
            conversation_id="tDtDnQdgm2LXpyiqYvZ6",
            status="delivered",
            body="Hi there",
        ),
    )
    assert page.messages[0].is_sms


@pytest.mark.parametrize(
    ("kind", "is_sms"),
    [
        ({"messageType": "TYPE_SMS"}, True),
        ({"messageType": "SMS"}, True),
        ({"messageType": "TYPE_CAMPAIGN_SMS"}, True),
        ({"messageType": "TYPE_CUSTOM_PROVIDER_SMS"}, True),
        ({"messageType": "TYPE_CALL", "type": 2}, False),
        ({"messageType": "TYPE_WHATSAPP"}, False),
        ({"messageType": "TYPE_ACTIVITY_APPOINTMENT"}, False),
        ({"messageType": None, "type": 2}, True),
        ({"messageType": None, "type": 1}, False),
    ],
)
def test_which_messages_are_text_messages(kind: dict[str, object], is_sms: bool) -> None:
    assert decode_messages(page_of({**SENT, **kind})).messages[0].is_sms is is_sms


@pytest.mark.parametrize(
    "broken",
    [
        {"id": None},
        {"id": "with a space"},
        {"direction": None},
        {"direction": "sideways"},
        {"dateAdded": None},
        {"dateAdded": "soon"},
        {"body": {"text": "an object"}},
    ],
)
def test_an_item_that_is_no_message_loses_only_itself(broken: dict[str, object]) -> None:
    page = decode_messages(page_of(SENT, {**SENT, **broken}, "junk", total=3))
    assert [message.id for message in page.messages] == [SENT["id"]]
    assert page.unreadable == 2


def test_what_may_be_missing_is_missed_by_nobody() -> None:
    whole = {name: SENT[name] for name in ("id", "direction", "dateAdded")}
    (message,) = decode_messages(page_of(whole)).messages
    assert (message.contact_id, message.body, message.status, message.is_sms) == (None, "", None, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"contacts": []}', b'{"messages": null}'])
def test_what_is_no_export_is_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_messages(body)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_whatever_stands_in_a_field_costs_one_message_at_most(value: object) -> None:
    for name in SENT:
        page = decode_messages(page_of({**SENT, name: value}, SENT))
        assert len(page.messages) + page.unreadable == 2
        assert page.messages[-1].id == SENT["id"]


def test_a_repr_shows_no_word_of_a_message() -> None:
    page = decode_messages(page_of({**SENT, "body": "quorvath", "status": "quorvath"}))
    assert "quorvath" not in f"{page!r} {page.messages[0]!s}"


def test_nothing_optional_is_sent_empty_and_dates_are_instants() -> None:
    assert MessageExport().params("here") == {
        "locationId": "here", "channel": "SMS", "limit": "500", "sortBy": "createdAt", "sortOrder": "asc",
    }  # fmt: skip
    start = datetime(2026, 3, 31, 14, 0, 0, 999_900, timezone(timedelta(hours=2)))
    asked = MessageExport(start=start, end=start, contact_id="c", cursor="abc", oldest_first=False).params("here")
    assert asked["startDate"] == asked["endDate"] == "2026-03-31T12:00:00.999Z"
    assert (asked["contactId"], asked["cursor"], asked["sortOrder"]) == ("c", "abc", "desc")


async def test_the_client_pages_through_the_export(connect: Connector, location: Location) -> None:
    for number in range(25):
        location.add_message("Contact000000000001", f"text {number}", at=1_774_958_400_000 + number)
    client = await connect(location)
    export, texts = MessageExport(limit=10), []
    while True:
        page = await client.exported_messages(export)
        texts += [message.body for message in page.messages]
        if page.next_cursor is None:
            break
        export = export.following(page.next_cursor)
    assert texts == [f"text {number}" for number in range(25)]
    assert client.usage.calls == 3


async def test_a_dead_cursor_is_a_rejected_request_that_quotes_nothing(connect: Connector, location: Location) -> None:
    client = await connect(location)
    with pytest.raises(RequestRejected) as refused:
        await client.exported_messages(MessageExport(contact_id="Contact000000000001", cursor="c2VjcmV0"))
    assert "/conversations/messages/export (400)" in str(refused.value)
    assert "c2VjcmV0" not in str(refused.value)
    assert "Contact000000000001" not in str(refused.value)


async def test_the_version_is_that_of_conversations(connect: Connector) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=page_of())

    client = await connect.answered_by(answer)
    await client.exported_messages(MessageExport())
    assert asked[0].headers.get_list("Version") == ["2021-04-15"]
