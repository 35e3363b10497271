"""The sandbox's own routes for events: its signing keys, its workspaces, orders to send webhooks, and who gets them."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.emailbison import PREFIX
from ghl_pipeline.sandbox.webhook_orders import read_order
from ghl_pipeline.sandbox.webhook_sender import WebhookSender
from ghl_pipeline.sandbox.webhook_target import TargetSettings, WebhookTarget
from ghl_pipeline.sandbox.world import World


def webhook_routes(world: World) -> list[Path]:
    """The routes, for `world`."""
    sender, target = WebhookSender(world), WebhookTarget(world)

    async def keys(_: Request) -> object:
        return world.webhook_keys.public()

    async def workspaces(request: Request) -> object:
        url = str(request.base_url).rstrip("/") + PREFIX
        with world.lock:
            return {
                "workspaces": [
                    {"id": each.id, "name": each.name, "location": each.location_id, "token": each.token, "url": url}
                    for each in world.workspaces.by_id.values()
                ]
            }

    async def send(request: Request) -> object:
        report = await sender.send(read_order(await request.body()))
        return report.as_json()

    async def set_target(request: Request) -> object:
        settings = msgspec.json.decode(await request.body(), type=TargetSettings)
        with world.lock:
            target.set(settings)
        return {"ok": True}

    async def target_counts(_: Request) -> object:
        with world.lock:
            return target.as_counts()

    return [
        Path("/_sandbox/webhook-keys", _guarded(keys), methods=["GET"]),
        Path("/_sandbox/workspaces", _guarded(workspaces), methods=["GET"]),
        Path("/_sandbox/webhooks", _guarded(send), methods=["POST"]),
        Path("/_sandbox/webhook-target", _guarded(set_target), methods=["POST"]),
        Path("/_sandbox/webhook-target", _guarded(target_counts), methods=["GET"]),
    ]


def _guarded(act: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body: object
        try:
            status, body = 200, await act(request)
        except (msgspec.DecodeError, InvalidInput) as error:
            status, body = 422, {"error": str(error)}
        return Response(msgspec.json.encode(body), status, media_type="application/json")

    return endpoint
