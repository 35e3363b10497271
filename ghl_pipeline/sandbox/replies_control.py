"""The sandbox's own routes for what an operator answers with: calendars, Calendly's users, and senders' mailboxes."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.calendly import PREFIX
from ghl_pipeline.sandbox.world import World

Fields: TypeAlias = dict[str, object]


class CalendarChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/calendars`: fields are those of `calendars.Calendar`; `change` and `delete` go by id."""

    location: str
    add: list[Fields] = []
    change: dict[str, Fields] = {}
    delete: list[str] = []


class CalendlyChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/calendly`: a user, made when there is none, and its event types by uuid."""

    user: str
    create: Fields = {}
    """Arguments of `CalendlyUsers.add`, when there is no such user yet."""
    add: list[Fields] = []
    change: dict[str, Fields] = {}


class SenderChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/senders`: fields are those of `SenderEmail`; `change` and `remove` go by id."""

    workspace: int
    add: list[Fields] = []
    change: dict[int, Fields] = {}
    remove: list[int] = []


def reply_routes(world: World) -> list[Path]:
    """The routes, for `world`."""

    def guarded(act: Callable[[bytes], object]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            content = await request.body()
            body: object
            try:
                with world.lock:
                    status, body = 200, act(content)
            except (msgspec.DecodeError, InvalidInput) as error:
                status, body = 422, {"error": str(error)}
            return Response(msgspec.json.encode(body), status, media_type="application/json")

        return endpoint

    def show(_: bytes) -> object:
        return calendars_of(world)

    def change_calendars(content: bytes) -> object:
        changes = msgspec.json.decode(content, type=CalendarChanges)
        calendars = world.known_location(changes.location).calendars
        added = [calendars.add(**fields).id for fields in changes.add]
        for calendar_id, fields in changes.change.items():
            calendars.change(calendar_id, **fields)
        return {"added": added, "deleted": sum(calendars.remove(each) for each in changes.delete)}

    def change_calendly(content: bytes) -> object:
        changes = msgspec.json.decode(content, type=CalendlyChanges)
        if changes.user not in {each.slug for each in world.calendly}:
            made = {name: value for name, value in changes.create.items() if name != "slug"}
            try:
                world.calendly.add(changes.user, **made)  # type: ignore[arg-type]  # checked when it is called
            except TypeError:
                raise InvalidInput("A user of Calendly is not made of these. See calendly_users.py.") from None
        user = world.calendly.known(changes.user)
        added = [user.add_event_type(**fields).uuid for fields in changes.add]
        for uuid, fields in changes.change.items():
            user.change_event_type(uuid, **fields)
        return {"added": added, "token": user.token}

    def change_senders(content: bytes) -> object:
        changes = msgspec.json.decode(content, type=SenderChanges)
        mailboxes = world.workspaces.known(changes.workspace).mailboxes
        added = [mailboxes.add(**fields).id for fields in changes.add]
        for sender_id, fields in changes.change.items():
            mailboxes.change(sender_id, **fields)
        return {"added": added, "removed": sum(mailboxes.remove(each) for each in changes.remove)}

    return [
        Path("/_sandbox/calendars", guarded(show), methods=["GET"]),
        Path("/_sandbox/calendars", guarded(change_calendars), methods=["POST"]),
        Path("/_sandbox/calendly", guarded(change_calendly), methods=["POST"]),
        Path("/_sandbox/senders", guarded(change_senders), methods=["POST"]),
    ]


def calendars_of(world: World) -> object:
    """All calendars with what their links end in, and Calendly's users with their tokens."""
    return {
        "locations": {
            location.id: [
                {"id": each.id, "name": each.name, "widget_slug": each.widget_slug, "is_active": each.is_active}
                for each in location.calendars
            ]
            for location in world.locations.values()
        },
        "calendly": [
            {
                "user": user.slug,
                "token": user.token,
                "path": PREFIX,
                "event_types": [
                    {"uuid": each.uuid, "scheduling_url": each.scheduling_url} for each in user.event_types.values()
                ],
            }
            for user in world.calendly
        ],
    }
