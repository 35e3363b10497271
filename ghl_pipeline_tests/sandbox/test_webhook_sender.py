"""Sending events: who is told what, how often and in which order, and what the world knows of it afterwards."""

import base64
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.webhook_orders import SendOrder
from ghl_pipeline.sandbox.webhook_sender import SendReport, WebhookSender
from ghl_pipeline.sandbox.workspaces import Workspace
from ghl_pipeline.sandbox.world import Location
from ghl_pipeline_tests.fixtures.sandbox import Sandbox
from ghl_pipeline_tests.sandbox.receiver import Receiver, listening


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


@pytest.fixture
def location(sandbox: Sandbox) -> Location:
    return sandbox.add_location(contacts=crowd(5, seed=4))


@pytest.fixture
def workspace(sandbox: Sandbox, location: Location) -> Workspace:
    return sandbox.world.add_workspace(location.id, workspace_id=77)


class Sender:
    """Sends to one receiver about one location, in the test's own loop."""

    def __init__(self, sandbox: Sandbox, location: Location, receiver: Receiver) -> None:
        self._sender = WebhookSender(sandbox.world)
        self._fixed: dict[str, Any] = {"url": receiver.url, "location": location.id}

    async def __call__(self, event: str, **order: Any) -> SendReport:
        return await self._sender.send(SendOrder(**{**self._fixed, "event": event, **order}))


@pytest.fixture
def send(sandbox: Sandbox, location: Location, receiver: Receiver) -> Sender:
    return Sender(sandbox, location, receiver)


async def test_an_inbound_text_is_in_the_world_and_at_the_receiver(
    send: Sender, location: Location, receiver: Receiver
) -> None:
    report = await send("inbound_sms", body="Call me", contact=next(iter(location.contacts.by_id)))
    [got], [stored] = receiver.received, list(location.messages)
    assert got.path == "/webhooks/ghl"
    assert got.headers["content-type"] == "application/json"
    assert (got.json["messageId"], got.json["body"]) == (stored.id, "Call me")
    assert stored.body == "Call me"
    assert report.statuses == {"200": 1}
    assert (report.events[0].contact_id, report.events[0].message_id) == (stored.contact_id, stored.id)


async def test_what_is_sent_carries_a_signature_of_its_own_bytes(
    sandbox: Sandbox, send: Sender, receiver: Receiver
) -> None:
    await send("contact_update", count=3)
    await send("contact_update", bad_signature=True)
    async with httpx.AsyncClient(verify=False) as client:
        told = (await client.get(f"{sandbox.url}/_sandbox/webhook-keys")).json()
    key = load_der_public_key(base64.b64decode(told["ed25519"]))
    assert isinstance(key, Ed25519PublicKey)
    *good, bad = receiver.received
    for got in good:
        key.verify(base64.b64decode(got.headers["x-ghl-signature"]), got.body)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(bad.headers["x-ghl-signature"]), bad.body)


async def test_copies_are_the_same_delivery_again_unless_asked_to_be_new(send: Sender, receiver: Receiver) -> None:
    await send("inbound_sms", count=4, copies=3)
    assert sorted(Counter(receiver.bodies).values()) == [3, 3, 3, 3]
    receiver.received.clear()
    await send("inbound_sms", count=1, copies=3, copies_as_new=True)
    assert len({got.json["webhookId"] for got in receiver.received}) == 3
    assert len({got.json["messageId"] for got in receiver.received}) == 1


async def test_events_are_shuffled_lost_and_repeated_as_the_seed_says(send: Sender, receiver: Receiver) -> None:
    order: dict[str, Any] = {"count": 200, "shuffle": True, "lost_share": 0.1, "repeated_share": 0.25, "seed": 9}
    report = await send("inbound_sms", concurrency=1, **order)
    got = [each.json["messageId"] for each in receiver.received]
    made = [about.message_id for about in report.events]
    times = Counter(got)
    missing = [each for each in made if each not in times]
    assert len(missing) == report.lost
    assert 5 <= report.lost <= 40
    assert 25 <= sum(count == 2 for count in times.values()) <= 75
    assert max(times.values()) == 2
    assert got != sorted(got, key=made.index)
    assert report.sent == len(got)


async def test_deliveries_of_one_event_run_at_once(send: Sender, receiver: Receiver) -> None:
    receiver.seconds = 0.05
    await send("inbound_sms", copies=20, concurrency=20)
    assert receiver.most_at_once == 20


async def test_a_refused_delivery_is_tried_again_and_then_given_up(send: Sender, receiver: Receiver) -> None:
    receiver.status_of = lambda number: 503 if number <= 2 else 200
    report = await send("inbound_sms", retries=3, retry_pause_seconds=0.01)
    assert (report.statuses, len(receiver.received), len(set(receiver.bodies))) == ({"200": 1}, 3, 1)
    receiver.status_of = lambda number: 500
    report = await send("inbound_sms", retries=1, retry_pause_seconds=0.01)
    assert report.as_json()["statuses"] == {"500": 1}
    assert report.as_json()["retries"] == 1


async def test_a_sender_can_give_up_on_everything_but_429(send: Sender, receiver: Receiver) -> None:
    receiver.status_of = lambda number: {1: 429, 2: 500}.get(number, 200)
    report = await send("inbound_sms", retries=5, retry_pause_seconds=0.01, retry_429_only=True)
    assert (report.statuses, len(receiver.received)) == ({"500": 1}, 2)


async def test_a_receiver_that_is_not_there_is_reported_as_silent(send: Sender) -> None:
    report = await send("inbound_sms", url="http://127.0.0.1:9")
    assert report.statuses == {"unanswered": 1}


async def test_contact_events_happen_to_the_contact(send: Sender, location: Location, receiver: Receiver) -> None:
    contact_id = next(iter(location.contacts.by_id))
    before = location.contacts.by_id[contact_id]
    await send("contact_update", contact=contact_id, fields={"company_name": "Acme"})
    await send("contact_tag_update", contact=contact_id)
    await send("contact_dnd_update", contact=contact_id)
    after = location.contacts.by_id[contact_id]
    assert (after.company_name, after.dnd, len(after.tags)) == ("Acme", not before.dnd, len(before.tags) + 1)
    await send("contact_delete", contact=contact_id)
    assert contact_id not in location.contacts.by_id
    await send("contact_create", fields={"email": "new.person@example.com"})
    created = receiver.received[-1].json
    assert location.contacts.by_id[created["id"]].email == created["email"] == "new.person@example.com"
    types = [got.json["type"] for got in receiver.received]
    assert types == ["ContactUpdate", "ContactTagUpdate", "ContactDndUpdate", "ContactDelete", "ContactCreate"]


async def test_deleting_goes_through_the_contacts_and_then_says_that_none_is_left(
    send: Sender, location: Location
) -> None:
    await send("contact_delete", count=5)
    assert len(location.contacts) == 0
    with pytest.raises(InvalidInput, match="no contact left"):
        await send("contact_delete")


async def test_strangers_are_new_contacts_with_addresses_of_their_own(
    send: Sender, location: Location, receiver: Receiver
) -> None:
    await send("inbound_sms", strangers=True, count=20)
    assert len(location.contacts) == 25
    assert len({got.json["contactId"] for got in receiver.received}) == 20
    emails = [contact.email for contact in location.contacts.by_id.values()]
    assert len(set(emails)) == 25


async def test_the_said_time_can_be_wrong_and_the_shape_the_guides(send: Sender, receiver: Receiver) -> None:
    await send("contact_update")
    await send("contact_update", timestamp_shift_seconds=-3600)
    await send("contact_update", nested=True)
    now, earlier, shaped = (got.json for got in receiver.received)
    assert earlier["timestamp"] < now["timestamp"]
    assert shaped["data"]["id"]


async def test_a_workflow_s_secret_is_in_the_path_or_in_a_header(
    send: Sender, location: Location, receiver: Receiver
) -> None:
    await send("workflow_contact", secret="s3cret")
    await send("custom_workflow_sms", secret="s3cret", secret_header="X-Webhook-Secret")
    await send("workflow_sms", path="/webhooks/ghl/workflow/elsewhere/wrong", fields={"event": "replied"})
    first, second, third = receiver.received
    assert first.path == f"/webhooks/ghl/workflow/{location.id}/s3cret"
    assert second.path == f"/webhooks/ghl/workflow/{location.id}"
    assert second.headers["x-webhook-secret"] == "s3cret"
    assert third.path == "/webhooks/ghl/workflow/elsewhere/wrong"
    assert third.json["customData"] == {"event": "replied"}
    assert not any("signature" in name for got in receiver.received for name in got.headers)
    assert len(location.messages) == 2


async def test_an_emailbison_event_is_sent_and_recorded(
    send: Sender, workspace: Workspace, location: Location, receiver: Receiver
) -> None:
    report = await send("lead_interested", secret="s3cret", email="ada@example.com", body="Interested!")
    [got], [event] = receiver.received, workspace.events
    assert got.path == f"/webhooks/emailbison/{location.id}/s3cret"
    assert got.json == event.payload
    assert got.json["event"]["type"] == "LEAD_INTERESTED"
    assert got.json["event"]["workspace_id"] == 77
    assert got.json["data"]["lead"]["email"] == "ada@example.com"
    assert got.json["data"]["reply"]["interested"] is True
    assert event.deliveries == 1
    assert (report.events[0].reply_id, report.events[0].lead_id) == (event.reply_id, event.lead_id)
    assert all(contact.email != "ada@example.com" for contact in location.contacts.by_id.values())


async def test_without_leads_the_contacts_become_leads_in_turn(
    send: Sender, workspace: Workspace, location: Location
) -> None:
    await send("lead_replied", secret="s3cret", count=5)
    assert {lead.email for lead in workspace.leads.values()} == {
        contact.email for contact in location.contacts.by_id.values()
    }
    await send("lead_interested", secret="s3cret", count=10)
    assert len(workspace.leads) == 5


async def test_an_event_can_happen_without_being_delivered(
    send: Sender, workspace: Workspace, receiver: Receiver
) -> None:
    report = await send("lead_replied", secret="s3cret", deliver=False, count=3)
    assert (report.sent, receiver.received, len(workspace.events)) == (0, [], 3)
    assert all(event.deliveries == 0 for event in workspace.events)


async def test_an_event_that_was_never_delivered_can_be_of_another_day(send: Sender, workspace: Workspace) -> None:
    await send("lead_replied", secret="s3cret", deliver=False)
    await send("lead_replied", secret="s3cret", deliver=False, timestamp_shift_seconds=-3 * 86_400)
    now, earlier = (event.created_at for event in workspace.events)
    assert 2.9 < (now - earlier) / 86_400_000 < 3.1


async def test_an_interest_can_be_about_the_reply_that_came_before(
    send: Sender, workspace: Workspace, receiver: Receiver
) -> None:
    await send("lead_replied", secret="s3cret", email="ada@example.com", body="Tell me more")
    await send("lead_interested", secret="s3cret", email="ada@example.com", same_reply=True)
    await send("lead_interested", secret="s3cret", email="ada@example.com", without_reply=True)
    replied, interested, bare = (got.json["data"] for got in receiver.received)
    assert interested["reply"]["id"] == replied["reply"]["id"]
    assert interested["reply"]["text_body"] == "Tell me more"
    assert "reply" not in bare
    assert len(workspace.replies) == 1


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        ("lead_replied", {"reply", "campaign_event", "lead", "campaign", "scheduled_email", "sender_email"}),
        ("lead_interested", {"reply", "campaign_event", "lead", "campaign", "scheduled_email", "sender_email"}),
        ("email_bounced", {"reply", "campaign_event", "lead", "campaign", "scheduled_email", "sender_email"}),
        ("untracked_reply_received", {"reply", "sender_email"}),
        ("email_sent", {"scheduled_email", "campaign_event", "lead", "campaign", "sender_email"}),
        ("lead_unsubscribed", {"scheduled_email", "campaign_event", "lead", "campaign", "sender_email"}),
        ("manual_email_sent", {"reply", "lead", "campaign", "scheduled_email", "sender_email"}),
        ("tag_attached", {"tag_id", "tag_name", "taggable_id", "taggable_type"}),
        ("email_account_disconnected", {"sender_email"}),
    ],
)
async def test_each_emailbison_event_has_the_parts_of_its_type(
    send: Sender, workspace: Workspace, receiver: Receiver, event: str, parts: set[str]
) -> None:
    await send(event, secret="s3cret", workspace=workspace.id)
    body = receiver.received[0].json
    assert body.keys() == {"event", "data"}
    assert body["event"].keys() == {"type", "name", "instance_url", "workspace_id", "workspace_name"}
    assert body["data"].keys() == parts
    assert "id" not in body["event"]


async def test_a_bounce_comes_from_the_mail_system_and_marks_the_lead(
    send: Sender, workspace: Workspace, receiver: Receiver
) -> None:
    await send("email_bounced", secret="s3cret", email="gone@example.com")
    data = receiver.received[0].json["data"]
    assert data["reply"]["from_email_address"] == "mailer-daemon@example.net"
    assert (data["reply"]["type"], data["reply"]["folder"]) == ("Bounced", "Bounced")
    assert workspace.leads[data["lead"]["id"]].status == "bounced"


async def test_a_long_reply_is_long_in_every_form(send: Sender, workspace: Workspace, receiver: Receiver) -> None:
    await send("lead_replied", secret="s3cret", workspace=workspace.id, long=True)
    reply = receiver.received[0].json["data"]["reply"]
    assert all(len(reply[name]) > 500_000 for name in ("html_body", "text_body", "raw_body"))


# --- over HTTP


async def test_orders_are_taken_over_http(sandbox: Sandbox, location: Location, receiver: Receiver) -> None:
    order = {"url": receiver.url, "location": location.id, "event": "inbound_sms", "count": 6, "copies": 2}
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        response = await client.post("/_sandbox/webhooks", json=order)
    assert response.status_code == 200, response.text
    report = response.json()
    assert (report["events"], report["sent"], report["statuses"], report["lost"]) == (6, 12, {"200": 12}, 0)
    assert 0 < report["seconds_p50"] <= report["seconds_p99"]
    assert {about["message_id"] for about in report["about"]} == {message.id for message in location.messages}
    assert len(receiver.received) == 12


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"event": "contact_upsert"}, "no such event"),
        ({"event": "inbound_sms", "location": "nowhere"}, "no such location"),
        ({"event": "inbound_sms", "contact": "nobody"}, "no contact nobody"),
        ({"event": "inbound_sms", "copy": 2}, "copy"),
        ({"event": "inbound_sms", "count": 0}, "count"),
        ({"event": "workflow_sms"}, "secret"),
        ({"event": "lead_replied", "secret": "x"}, "no EmailBison workspace"),
        ({"event": "lead_replied", "secret": "x", "workspace": 5}, "no such workspace"),
    ],
)
async def test_orders_that_make_no_sense_are_refused(
    sandbox: Sandbox, location: Location, receiver: Receiver, order: dict[str, object], named: str
) -> None:
    whole = {"url": receiver.url, "location": location.id, **order}
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        response = await client.post("/_sandbox/webhooks", json=whole)
    assert response.status_code == 422
    assert named in response.json()["error"]
    assert receiver.received == []


# --- a target that is told of every change


async def test_a_target_is_told_of_every_change_until_it_is_taken_away(
    sandbox: Sandbox, location: Location, receiver: Receiver
) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        await client.post("/_sandbox/webhook-target", json={"url": receiver.url})
        contact_id = next(iter(location.contacts.by_id))
        changes = {
            "location": location.id,
            "add": [{"email": "ada@example.com"}],
            "change": {contact_id: {"first_name": "Grace"}},
            "delete": [list(location.contacts.by_id)[1]],
        }
        await client.post("/_sandbox/contacts", json=changes)
        api = {"Authorization": f"Bearer {location.token}", "Version": "2021-07-28"}
        created = {"locationId": location.id, "email": "made.by.api@example.com"}
        await client.post("/contacts/", json=created, headers=api)
        counts = await _settled(client)
        assert counts == {"changes": 4, "lost": 0, "sent": 4, "waiting": 0, "statuses": {"200": 4}}
        await client.post("/_sandbox/webhook-target", json={})
        location.change(contact_id, first_name="Ada")
        assert (await _settled(client))["changes"] == 0
    types = Counter(got.json["type"] for got in receiver.received)
    assert types == {"ContactCreate": 2, "ContactUpdate": 1, "ContactDelete": 1}
    assert all("x-ghl-signature" in got.headers for got in receiver.received)


async def test_a_target_loses_repeats_and_reorders_as_told(
    sandbox: Sandbox, location: Location, receiver: Receiver
) -> None:
    other = sandbox.add_location(contacts=crowd(1, seed=8))
    target = {"url": receiver.url, "location": location.id, "concurrency": 1, "shuffled": True}
    async with httpx.AsyncClient(base_url=sandbox.url, verify=False) as client:
        await client.post("/_sandbox/webhook-target", json={**target, "lost_share": 0.2, "repeated_share": 0.3})
        added = [{"email": f"person.{number}@example.com"} for number in range(200)]
        await client.post("/_sandbox/contacts", json={"location": location.id, "add": added})
        other.change(next(iter(other.contacts.by_id)))
        counts = await _settled(client)
    emails = [got.json["email"] for got in receiver.received]
    assert counts["changes"] == 200
    assert len(set(emails)) == 200 - counts["lost"]
    assert 20 <= counts["lost"] <= 60
    assert 25 <= len(emails) - len(set(emails)) <= 80
    assert emails != sorted(emails, key=lambda email: int(email.split("@")[0].split(".")[1]))


async def _settled(client: httpx.AsyncClient) -> Any:
    for _ in range(500):
        counts = (await client.get("/_sandbox/webhook-target")).json()
        if counts["waiting"] == 0:
            return counts
    raise AssertionError("deliveries did not end")
