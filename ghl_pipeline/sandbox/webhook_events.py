"""Makes events happen in the world, and of each the requests that tell a receiver of it."""

import uuid
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.contacts import Contact
from ghl_pipeline.sandbox.conversations import Direction, Message
from ghl_pipeline.sandbox.emailbison_payloads import BisonEvent, BisonLead
from ghl_pipeline.sandbox.responses import JsonObject
from ghl_pipeline.sandbox.webhook_orders import CONTACT_EVENTS, MESSAGE_TYPES, AppEvent, SendOrder, WorkflowEvent
from ghl_pipeline.sandbox.webhook_payloads import (
    ContactEvent,
    Occasion,
    contact_event,
    custom_workflow_body,
    message_event,
    nested,
    other_event,
    workflow_event,
)
from ghl_pipeline.sandbox.workspaces import RecordedEvent, Workspace
from ghl_pipeline.sandbox.world import Location, World

GHL_PATH: Final = "/webhooks/ghl"
WORKFLOW_PATH: Final = "/webhooks/ghl/workflow"
EMAILBISON_PATH: Final = "/webhooks/emailbison"


@dataclass(frozen=True)
class About:
    """The ids of what an event is about, and of the event where it has one."""

    webhook_id: str | None = None
    contact_id: str | None = None
    message_id: str | None = None
    lead_id: int | None = None
    reply_id: int | None = None


@dataclass(frozen=True)
class Outgoing:
    """One request to a receiver, ready to be sent. Its `repr` shows ids only: paths hold secrets, bodies people."""

    path: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    about: About
    recorded: RecordedEvent | None = field(default=None, repr=False)


class EventMaker:
    """Makes the events of one order. Its methods are called under the world's lock."""

    def __init__(self, world: World, order: SendOrder) -> None:
        self._world = world
        self._order = order
        self._name = order.event_name
        self._location = world.known_location(order.location)
        self._leads: list[int] | None = None  # of the workspace, when the order came
        self._contacts = [] if order.strangers else list(self._location.contacts.by_id.values())

    def make(self, number: int) -> list[Outgoing]:
        """Lets the `number`th event of the order, from 0, happen; returns a request for each of its copies.

        Raises:
            InvalidInput: the order lacks what this event needs, or names somebody unknown.
        """
        order = self._order
        if isinstance(self._name, AppEvent):
            event, about = self._app_event(self._name, number)
            copies = order.copies if order.copies_as_new else 1
            made = [app_request(self._world, order, _renewed(event, copy), about) for copy in range(copies)]
        elif isinstance(self._name, WorkflowEvent):
            made = [self._workflow_request(self._name, number)]
        else:
            made = [self._bison_request(self._name, number)]
        return made if len(made) == order.copies else made * order.copies

    def _app_event(self, name: AppEvent, number: int) -> tuple[JsonObject, About]:
        location_id = self._location.id
        occasion = occasion_now(self._world, shift_seconds=self._order.timestamp_shift_seconds)
        if name is AppEvent.NOTE_CREATE:
            return other_event("NoteCreate", location_id, occasion), About(occasion.webhook_id)
        if name in MESSAGE_TYPES:
            contact = self._contact(number)
            direction: Direction = "outbound" if name is AppEvent.OUTBOUND_SMS else "inbound"
            message = self._location.add_message(
                contact.id, self._text(number), direction, message_type=MESSAGE_TYPES[name]
            )
            event = message_event(message, contact, location_id, occasion)
            return event, About(occasion.webhook_id, contact.id, message.id)
        contact = self._changed_contact(name, number)
        event = contact_event(CONTACT_EVENTS[name], contact, location_id, occasion)
        return event, About(occasion.webhook_id, contact.id)

    def _changed_contact(self, name: AppEvent, number: int) -> Contact:
        """The contact to which the event has just happened."""
        location, fields = self._location, self._order.fields
        if name is AppEvent.CONTACT_CREATE:
            return self._new_contact(**fields)
        contact = self._contact(number)
        if name is AppEvent.CONTACT_DELETE:
            location.remove(contact.id)
            self._contacts = [each for each in self._contacts if each.id != contact.id]
            return contact
        usual: dict[str, object] = {}
        if name is AppEvent.CONTACT_TAG_UPDATE:
            usual["tags"] = (*contact.tags, f"tag {len(contact.tags) + 1}")
        elif name is AppEvent.CONTACT_DND_UPDATE:
            usual["dnd"] = not contact.dnd
        return location.change(contact.id, **(usual | fields))

    def _workflow_request(self, name: WorkflowEvent, number: int) -> Outgoing:
        location, contact = self._location, self._contact(number)
        message: Message | None = None
        if name in (WorkflowEvent.SMS, WorkflowEvent.CUSTOM_SMS):
            message = location.add_message(contact.id, self._text(number))
        if name in (WorkflowEvent.CUSTOM_CONTACT, WorkflowEvent.CUSTOM_SMS):
            body = custom_workflow_body(contact, location.id, message)
        else:
            custom_data = self._order.fields
            body = _encoded(
                workflow_event(contact, (location.id, location.name), message=message, custom_data=custom_data)
            )
        path, headers = self._with_secret(WORKFLOW_PATH)
        about = About(None, contact.id, message.id if message else None)
        return Outgoing(path, body, {"User-Agent": "axios/0.21.4", **headers}, about)

    def _bison_request(self, kind: BisonEvent, number: int) -> Outgoing:
        order = self._order
        workspace = self._workspace()
        event = workspace.happens(
            kind,
            self._lead(workspace, number),
            now=int(self._now() + order.timestamp_shift_seconds * 1000),
            text=self._text(number),
            same_reply=order.same_reply,
            without_reply=order.without_reply,
            automated=order.automated,
            long=order.long,
        )
        path, headers = self._with_secret(EMAILBISON_PATH)
        about = About(lead_id=event.lead_id, reply_id=event.reply_id)
        return Outgoing(path, _encoded(event.payload), {"User-Agent": "GuzzleHttp/7", **headers}, about, event)

    # --- whom it is about

    def _contact(self, number: int) -> Contact:
        order = self._order
        if order.strangers:
            return self._new_contact()
        if order.contact is not None:
            contact = self._location.contacts.by_id.get(order.contact)
            if contact is None:
                raise InvalidInput(f"Location {self._location.id} has no contact {order.contact[:64]}.")
            return contact
        if not self._contacts:
            raise InvalidInput(f"Location {self._location.id} has no contact left to send an event about.")
        chosen = self._contacts[number % len(self._contacts)]
        return self._location.contacts.by_id.get(chosen.id, chosen)

    def _new_contact(self, **fields: object) -> Contact:
        stranger = self._world.stranger()
        made = {
            "first_name": stranger.first_name,
            "last_name": stranger.last_name,
            "email": stranger.email,
            "phone": stranger.phone,
            "company_name": stranger.company_name,
            "source": "inbound",
        }
        return self._location.add(**(made | fields))

    def _lead(self, workspace: Workspace, number: int) -> BisonLead:
        order = self._order
        if order.lead is not None:
            lead = workspace.leads.get(order.lead)
            if lead is None:
                raise InvalidInput(f"Workspace {workspace.id} has no lead {order.lead}.")
            return lead
        if order.email is not None:
            return workspace.lead_with(order.email) or workspace.new_lead(order.email, now=self._now())
        if order.strangers:
            who = self._world.stranger()
            return workspace.new_lead(who.email, (who.first_name, who.last_name), who.company_name, now=self._now())
        if self._leads is None:
            self._leads = list(workspace.leads)
        if order.contact is None and self._leads:
            return workspace.leads[self._leads[number % len(self._leads)]]
        contact = self._contact(number)
        if not contact.email:
            raise InvalidInput("EmailBison knows nobody without an e-mail address; name a contact that has one.")
        names = (contact.first_name, contact.last_name)
        return workspace.lead_with(contact.email) or workspace.new_lead(
            contact.email, names, contact.company_name, now=self._now()
        )

    def _workspace(self) -> Workspace:
        if self._order.workspace is not None:
            return self._world.workspaces.known(self._order.workspace)
        workspace = self._world.workspaces.of_location(self._location.id)
        if workspace is None:
            raise InvalidInput(f"Location {self._location.id} has no EmailBison workspace in the sandbox.")
        return workspace

    # --- how it is sent

    def _with_secret(self, path: str) -> tuple[str, dict[str, str]]:
        order, path = self._order, f"{path}/{self._location.id}"
        headers = {"Content-Type": "application/json"}
        if order.path is not None:
            path = order.path
        elif order.secret_header is None:
            if not order.secret:
                raise InvalidInput("This event is sent with a secret: give `secret`, or the whole `path`.")
            path = f"{path}/{order.secret}"
        if order.secret_header is not None:
            headers[order.secret_header] = order.secret or ""
        return path, headers

    def _text(self, number: int) -> str:
        return self._order.body if self._order.body is not None else f"Yes, please call me. ({number + 1})"

    def _now(self) -> int:
        return int(self._world.clock() * 1000)


def app_request(world: World, order: SendOrder | None, event: JsonObject, about: About) -> Outgoing:
    """An app's event as a signed request; `order` says what is to be wrong with it, None that nothing is."""
    if order is not None and order.nested:
        event = nested(event)
    body = _encoded(event)
    which = order.signatures if order else "both"
    signed = body + b" " if order is not None and order.bad_signature else body
    signatures = world.webhook_keys.sign(signed, ed25519=which in ("both", "ed25519"), rsa=which in ("both", "rsa"))
    path = order.path if order is not None and order.path is not None else GHL_PATH
    return Outgoing(path, body, {"Content-Type": "application/json", **signatures}, about)


def occasion_now(world: World, *, shift_seconds: float = 0.0) -> Occasion:
    """A new event's id and its time."""
    return Occasion(str(uuid.uuid4()), int((world.clock() + shift_seconds) * 1000))


def change_event(location: Location, before: Contact | None, after: Contact | None, occasion: Occasion) -> JsonObject:
    """The event that tells of a contact's change; one of `before` and `after` may be None, not both."""
    contact = after or before
    if contact is None:
        raise ValueError("a contact that never was has no event")
    if before is None:
        kind = ContactEvent.CREATE
    elif after is None:
        kind = ContactEvent.DELETE
    elif before.tags != after.tags:
        kind = ContactEvent.TAG_UPDATE
    elif before.dnd != after.dnd:
        kind = ContactEvent.DND_UPDATE
    else:
        kind = ContactEvent.UPDATE
    return contact_event(kind, contact, location.id, occasion)


def _renewed(event: JsonObject, copy: int) -> JsonObject:
    return {**event, "webhookId": str(uuid.uuid4())} if copy else event


def _encoded(event: JsonObject) -> bytes:
    return msgspec.json.encode(event)
