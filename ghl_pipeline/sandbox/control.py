"""The sandbox's own routes under `/_sandbox`: faults, statistics, contacts, health. GHL has none of these.

Those for events and workspaces are `webhook_control.py`, the one for marketplaces is `marketplace_control.py`.

They need no token: the server listens on the loopback interface only and holds nobody's data.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.faults import faults_from
from ghl_pipeline.sandbox.world import World

FieldsById = Annotated[dict[str, dict[str, object]], msgspec.Meta(max_length=10_000)]


class ContactChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /_sandbox/contacts`: fields are those of `contacts.Contact`; `change` and `delete` go by id."""

    location: str
    add: list[dict[str, object]] = []
    change: FieldsById = {}
    delete: list[str] = []


def control_routes(world: World) -> list[Path]:
    """The routes, for `world`."""
    json = msgspec.json

    def answer(body: object, status: int = 200) -> Response:
        return Response(json.encode(body), status, media_type="application/json")

    def guarded(act: Callable[[bytes], object]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            content = await request.body()
            try:
                with world.lock:
                    return answer(act(content))
            except (msgspec.DecodeError, InvalidInput) as error:
                return answer({"error": str(error)}, 422)

        return endpoint

    def health(_: bytes) -> object:
        return {"ok": True, "locations": len(world.locations)}

    def statistics(_: bytes) -> object:
        return statistics_of(world)

    def reset_statistics(_: bytes) -> object:
        world.reset_statistics()
        return {"ok": True}

    def set_faults(content: bytes) -> object:
        fields = json.decode(content, type=dict[str, object])
        if not fields:
            world.faults.reset()
            return {"ok": True}
        location_id, workspace_id = fields.pop("location", None), fields.pop("workspace", None)
        calendly = fields.pop("calendly", None)
        where: str | None = None
        if sum(each is not None for each in (location_id, workspace_id, calendly)) > 1:
            raise InvalidInput("Give a location, a workspace or a user of Calendly: each has faults of its own.")
        if calendly is not None:
            where = world.calendly.known(calendly).faults_key
        elif workspace_id is not None:
            where = world.workspaces.known(workspace_id).faults_key
        elif location_id is not None:
            where = world.known_location(location_id).id
        world.faults.set(faults_from(fields), where)
        return {"ok": True}

    def change_contacts(content: bytes) -> object:
        changes = json.decode(content, type=ContactChanges)
        location = world.known_location(changes.location)
        added = [location.add(**fields).id for fields in changes.add]
        for contact_id, fields in changes.change.items():
            location.change(contact_id, **fields)
        deleted = sum(location.remove(contact_id) for contact_id in changes.delete)
        return {"added": added, "changed": len(changes.change), "deleted": deleted}

    return [
        Path("/_sandbox/health", guarded(health), methods=["GET"]),
        Path("/_sandbox/stats", guarded(statistics), methods=["GET"]),
        Path("/_sandbox/stats/reset", guarded(reset_statistics), methods=["POST"]),
        Path("/_sandbox/faults", guarded(set_faults), methods=["POST"]),
        Path("/_sandbox/contacts", guarded(change_contacts), methods=["POST"]),
    ]


def statistics_of(world: World) -> dict[str, object]:
    """Counts per location and per workspace, what they hold, and requests without a known token by route."""
    with world.lock:
        return {
            "locations": {
                location.id: {**location.statistics.as_counts(), "contacts": len(location.contacts)}
                for location in world.locations.values()
            },
            "workspaces": {
                str(workspace.id): {
                    **workspace.statistics.as_counts(),
                    "leads": len(workspace.leads),
                    "events": len(workspace.events),
                }
                for workspace in world.workspaces.by_id.values()
            },
            "calendly": {user.slug: user.statistics.as_counts() for user in world.calendly},
            "llm": {provider.name: provider.as_counts() for provider in world.llm},
            "unidentified": dict(sorted(world.unidentified.items())),
        }
