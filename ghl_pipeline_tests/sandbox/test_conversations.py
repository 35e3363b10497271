"""The export of messages, asked as any client would: filters, order, pages, and a cursor that dies."""

from typing import Any

import pytest

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.agency import sample_agency
from ghl_pipeline.sandbox.sample_messages import add_sample_messages
from ghl_pipeline.sandbox.world import Location, World
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.conftest import Caller

EXPORT = "/conversations/messages/export"
ADA, BEN = "ContactAda0000000001", "ContactBen0000000002"
NOON = 1_774_958_400_000  # 2026-03-31T12:00:00Z


async def export(caller: Caller, **params: Any) -> dict[str, Any]:
    response = await caller.http.get(EXPORT, params={"locationId": caller.location.id, **params})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def bodies(caller: Caller, **params: Any) -> list[str]:
    return [message["body"] for message in (await export(caller, **params))["messages"]]


def fill(location: Location, number: int) -> None:
    for n in range(number):
        location.add_message(ADA, f"text {n}", at=NOON + n)


async def test_pages_follow_each_other_newest_first_unless_asked_otherwise(caller: Caller) -> None:
    fill(caller.location, 25)
    first = await export(caller, limit=10)
    second = await export(caller, limit=10, cursor=first["nextCursor"])
    last = await export(caller, limit=10, cursor=second["nextCursor"])
    assert [m["body"] for page in (first, second, last) for m in page["messages"]] == [
        f"text {n}" for n in reversed(range(25))
    ]
    assert (first["total"], last["nextCursor"]) == (25, None)
    assert (await bodies(caller, limit=10, sortOrder="asc"))[0] == "text 0"


async def test_what_comes_after_the_first_page_is_in_no_later_one(caller: Caller) -> None:
    fill(caller.location, 20)
    first = await export(caller, limit=10, sortOrder="asc")
    caller.location.add_message(ADA, "late", at=NOON + 99)
    second = await export(caller, limit=10, cursor=first["nextCursor"], sortOrder="asc")
    assert [m["body"] for m in second["messages"]][-1] == "text 19"
    assert second["nextCursor"] is None


async def test_filters_by_contact_conversation_channel_and_date(caller: Caller) -> None:
    location = caller.location
    location.add_message(ADA, "sms", at=NOON)
    location.add_message(BEN, "of Ben", "outbound", at=NOON + 1000)
    location.add_message(ADA, "mail", at=NOON + 2000, message_type="TYPE_EMAIL")
    location.add_message(ADA, "stage changed", at=NOON + 3000, message_type="TYPE_ACTIVITY_OPPORTUNITY")
    assert await bodies(caller) == ["stage changed", "of Ben", "sms"]
    assert await bodies(caller, channel="SMS") == ["of Ben", "sms"]
    assert await bodies(caller, channel="Email") == ["mail"]
    assert await bodies(caller, channel="SMS", contactId=ADA) == ["sms"]
    assert await bodies(caller, conversationId=location.messages.conversation_of(BEN)) == ["of Ben"]
    assert await bodies(caller, channel="SMS", startDate="2026-03-31T12:00:01.000Z") == ["of Ben"]
    assert await bodies(caller, channel="SMS", endDate="2026-03-31T12:00:00.999Z") == ["sms"]


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"limit": 9}, "limit must not be less than 10"),
        ({"limit": 501}, "limit must not be greater than 500"),
        ({"limit": "many"}, "limit must be a number"),
        ({"sortOrder": "up"}, "sortOrder must be one of"),
        ({"channel": "sms"}, "channel must be one of"),
        ({"startDate": "yesterday"}, "startDate must be"),
        ({"contact_id": ADA}, "property contact_id should not exist"),
    ],
)
async def test_what_is_not_documented_is_refused(caller: Caller, params: dict[str, Any], complaint: str) -> None:
    response = await caller.http.get(EXPORT, params={"locationId": caller.location.id, **params})
    assert response.status_code == 422
    assert complaint in str(response.json()["message"])


@pytest.mark.parametrize("cursor", ["nonsense", "e30=", "eyJwaXRJZCI6IngiLCJsYXN0U29ydCI6W10sImxhc3RJZCI6IngifQ=="])
async def test_a_cursor_of_nothing_is_refused(caller: Caller, cursor: str) -> None:
    response = await caller.http.get(EXPORT, params={"locationId": caller.location.id, "cursor": cursor})
    assert response.status_code == 400


async def test_a_cursor_lives_as_long_as_somebody_uses_it() -> None:
    now = [1000.0]
    world = World(clock=lambda: now[0])
    log = world.add_location().messages
    snapshot = log.open_snapshot(lambda _: True, lambda message: message.date_added, newest=False)
    for _ in range(3):
        now[0] += 119.0
        assert log.snapshot(snapshot, 120.0) is not None
    now[0] += 121.0
    assert log.snapshot(snapshot, 120.0) is None


async def test_the_faults_of_the_export(sandbox: Sandbox, caller: Caller) -> None:
    fill(caller.location, 30)
    first = await export(caller, limit=10, sortOrder="asc")
    sandbox.faults(cursor_lifetime_seconds=0)
    dead = await caller.http.get(
        EXPORT, params={"locationId": caller.location.id, "limit": 10, "cursor": first["nextCursor"]}
    )
    assert dead.status_code == 400
    sandbox.faults(export_ignores_order=True, export_ignores_start=True, export_repeats_cursor=True)
    again = await export(caller, limit=10, sortOrder="asc", startDate="2027-01-01T00:00:00Z")
    assert (again["messages"][0]["body"], again["total"]) == ("text 29", 30)
    following = await export(caller, limit=10, cursor=again["nextCursor"])
    assert following["nextCursor"] == again["nextCursor"]


async def test_the_scope_is_that_of_messages(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.faults(missing_scopes=("conversations/message.readonly",))
    response = await caller.http.get(EXPORT, params={"locationId": caller.location.id})
    assert (response.status_code, response.json()["message"]) == (401, "The token is not authorized for this scope.")


def test_a_message_that_is_none_is_refused(location: Location) -> None:
    with pytest.raises(InvalidInput, match="no field colour"):
        location.add_message(ADA, "hi", colour="red")
    with pytest.raises(InvalidInput, match="not a message"):
        location.add_message(ADA, "hi", "sideways")  # type: ignore[arg-type]


def test_the_sample_agency_has_equal_conversations_for_equal_seeds() -> None:
    sample = sample_agency(locations=1, leads=400, seed=5).locations[0]
    told = []
    for _ in range(2):
        location = World().add_location(sample.id, contacts=sample.contacts)
        add_sample_messages(location, sample, seed=5, now=NOON)
        told.append(list(location.messages))
    assert told[0] == told[1]
    contacts = {contact.id for contact in sample.contacts}
    assert {message.contact_id for message in told[0]} <= contacts
    assert {message.direction for message in told[0]} == {"inbound", "outbound"}
    assert all(NOON - 26 * 86_400_000 < message.date_added <= NOON for message in told[0])
