"""What the sandbox sends as GHL and EmailBison do is understood, and taken once however it arrives."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine

from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent
from ghl_pipeline.sandbox.people import crowd
from ghl_pipeline.sandbox.webhook_orders import AppEvent, EventName, SendOrder, WorkflowEvent
from ghl_pipeline.sandbox.webhook_sender import WebhookSender
from ghl_pipeline.sandbox.world import World
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.events import EventKind, Provider
from ghl_pipeline.webhooks.reading.read_event import read_event
from ghl_pipeline_tests.fixtures.receiver import RunningReceiver, SenderKeys, running_receiver

KINDS: dict[EventName, EventKind] = {
    AppEvent.CONTACT_CREATE: EventKind.CONTACT_CHANGED,
    AppEvent.CONTACT_UPDATE: EventKind.CONTACT_CHANGED,
    AppEvent.CONTACT_DELETE: EventKind.CONTACT_DELETED,
    AppEvent.CONTACT_TAG_UPDATE: EventKind.CONTACT_CHANGED,
    AppEvent.CONTACT_DND_UPDATE: EventKind.CONTACT_CHANGED,
    AppEvent.INBOUND_SMS: EventKind.MESSAGE_RECEIVED,
    AppEvent.INBOUND_EMAIL: EventKind.MESSAGE_RECEIVED,
    AppEvent.INBOUND_WHATSAPP: EventKind.MESSAGE_RECEIVED,
    AppEvent.INBOUND_CALL: EventKind.OTHER,
    AppEvent.OUTBOUND_SMS: EventKind.MESSAGE_SENT,
    AppEvent.NOTE_CREATE: EventKind.OTHER,
    WorkflowEvent.CONTACT: EventKind.CONTACT_CHANGED,
    WorkflowEvent.SMS: EventKind.MESSAGE_RECEIVED,
    WorkflowEvent.CUSTOM_CONTACT: EventKind.CONTACT_CHANGED,
    WorkflowEvent.CUSTOM_SMS: EventKind.MESSAGE_RECEIVED,
    BisonEvent.LEAD_REPLIED: EventKind.LEAD_REPLIED,
    BisonEvent.LEAD_INTERESTED: EventKind.LEAD_INTERESTED,
    BisonEvent.EMAIL_BOUNCED: EventKind.LEAD_BOUNCED,
    BisonEvent.UNTRACKED_REPLY_RECEIVED: EventKind.MESSAGE_OF_KNOWN_LEAD,
    BisonEvent.MANUAL_EMAIL_SENT: EventKind.MESSAGE_SENT,
    BisonEvent.LEAD_UNSUBSCRIBED: EventKind.LEAD_UNSUBSCRIBED,
    BisonEvent.EMAIL_SENT: EventKind.OTHER,
    BisonEvent.EMAIL_OPENED: EventKind.OTHER,
    BisonEvent.LEAD_FIRST_CONTACTED: EventKind.OTHER,
    BisonEvent.TAG_ATTACHED: EventKind.OTHER,
    BisonEvent.TAG_REMOVED: EventKind.OTHER,
    BisonEvent.EMAIL_ACCOUNT_DISCONNECTED: EventKind.OTHER,
}


def provider_of(event: EventName) -> Provider:
    if isinstance(event, AppEvent):
        return Provider.GHL
    return Provider.GHL_WORKFLOW if isinstance(event, WorkflowEvent) else Provider.EMAILBISON


def test_the_table_has_everything_that_the_sandbox_can_send() -> None:
    assert KINDS.keys() == {*AppEvent, *WorkflowEvent, *BisonEvent}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("event", KINDS)
def test_every_event_is_understood_and_has_a_key_of_its_own(event: EventName, *, nested: bool) -> None:
    world = World()
    location = world.add_location(contacts=crowd(3, seed=1))
    world.add_workspace(location.id)
    order = SendOrder(
        url="", location=location.id, event=event.lower(), secret="s", count=3, copies=2, copies_as_new=False,
        nested=nested,
    )  # fmt: skip
    made = WebhookSender(world).prepare(order)
    read = [[read_event(provider_of(event), copy.body, location_id=location.id) for copy in each] for each in made]
    assert {each.kind for copies in read for each in copies} == {KINDS[event]}
    assert all(first.dedupe_key == again.dedupe_key for first, again in read)
    if event is not BisonEvent.EMAIL_ACCOUNT_DISCONNECTED:  # three of one mailbox say the same
        assert len({first.dedupe_key for first, _ in read}) == 3


@pytest.fixture
def world() -> World:
    return World(seed=5)


@pytest.fixture
def receiver(database_url: URL, engine: Engine, sender_keys: SenderKeys, world: World) -> Iterator[RunningReceiver]:
    """A receiver that believes the sandbox."""
    told = world.webhook_keys.public()
    settings = Settings(webhook_ed25519_keys=told["ed25519"], webhook_rsa_keys=told["rsa"])
    with running_receiver(settings, database_url, engine, sender_keys) as running:
        yield running


async def test_a_storm_of_repeated_and_reordered_deliveries_is_taken_once(
    receiver: RunningReceiver, world: World
) -> None:
    client = receiver.add_client()
    world.add_location(client.location_id, contacts=crowd(25, seed=2))
    world.add_workspace(client.location_id, workspace_id=client.workspace_id)
    sender = WebhookSender(world)
    for event, secret in (
        ("inbound_sms", None),
        ("workflow_sms", client.workflow_secret),
        ("lead_replied", client.emailbison_secret),
    ):
        order = SendOrder(
            url=receiver.url, location=client.location_id, event=event, secret=secret, count=50, copies=3,
            shuffle=True, repeated_share=0.2, concurrency=30,
        )  # fmt: skip
        report = await sender.send(order)
        assert report.statuses == {"200": report.sent}
        assert report.sent > 150
    assert receiver.count("webhook_events") == 150
    assert receiver.count("messages") == 100, "a workflow, which knows no message id, told of the same 50 texts"
    assert receiver.count("leads") == 25, "those who wrote by SMS and by e-mail are the same people"


async def test_a_quote_in_a_name_costs_a_custom_webhook_its_message_but_not_its_contact(
    receiver: RunningReceiver, world: World
) -> None:
    client = receiver.add_client()
    location = world.add_location(client.location_id)
    quoted = location.add(first_name='Robert "Bobby"', email="bobby@example.com")
    order = SendOrder(
        url=receiver.url, location=location.id, event="custom_workflow_sms", secret=client.workflow_secret
    )
    assert (await WebhookSender(world).send(order)).statuses == {"200": 1}
    (event,) = receiver.events()
    assert (event["event_type"], receiver.count("messages")) == ("Unreadable", 0)
    assert quoted.id.encode() in event["body"]


async def test_a_forged_or_old_event_is_refused(receiver: RunningReceiver, world: World) -> None:
    client = receiver.add_client()
    world.add_location(client.location_id, contacts=crowd(1, seed=2))
    sender = WebhookSender(world)

    async def status(**order: object) -> dict[str, int]:
        whole = {"url": receiver.url, "location": client.location_id, "event": "contact_update", **order}
        return (await sender.send(SendOrder(**whole))).statuses  # type: ignore[arg-type]

    assert await status(bad_signature=True) == {"401": 1}
    assert await status(signatures="none") == {"401": 1}
    assert await status(timestamp_shift_seconds=-3600) == {"401": 1}
    assert receiver.count("webhook_events") == 0
    assert await status(signatures="ed25519") == {"200": 1}
    assert await status(signatures="rsa") == {"200": 1}
