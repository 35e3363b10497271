"""The sandbox's own route that makes a marketplace, for those who are in another process."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.sandbox.marketplace import marketplace
from ghl_pipeline.sandbox.world import World


class MarketplaceOrder(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /_sandbox/marketplace`: the arguments of `marketplace`; without a location it makes one."""

    location: str | None = None
    vendors: int = 500
    leads: int = 1000
    seed: int = 7
    staff: int = 4
    field_keys: dict[str, str] = {}


def marketplace_routes(world: World) -> list[Path]:
    """The route, for `world`. It tells the location's token, the ids of fields, and everybody that was made."""

    async def make(request: Request) -> Response:
        body: object
        try:
            order = msgspec.json.decode(await request.body(), type=MarketplaceOrder)
            with world.lock:
                status, body = 200, _made(world, order)
        except (msgspec.DecodeError, InvalidInput) as error:
            status, body = 422, {"error": str(error)}
        return Response(msgspec.json.encode(body), status, media_type="application/json")

    return [Path("/_sandbox/marketplace", make, methods=["POST"])]


def _made(world: World, order: MarketplaceOrder) -> object:
    location = world.add_location() if order.location is None else world.known_location(order.location)
    made = marketplace(
        location,
        vendors=order.vendors,
        leads=order.leads,
        seed=order.seed,
        staff=order.staff,
        field_keys=order.field_keys,
    )
    return {
        "location": location.id,
        "token": location.token,
        "field_ids": made.field_ids,
        "vendors": [
            {
                "contact_id": vendor.contact.id,
                "email": vendor.contact.email,
                "status": vendor.status,
                "coverage": vendor.coverage,
                "coverage_text": vendor.coverage_text,
            }
            for vendor in made.vendors
        ],
        "leads": [
            {
                "contact_id": lead.contact.id,
                "email": lead.contact.email,
                "zip_code": lead.zip_code,
                "is_new": lead.is_new,
                "opportunity_id": lead.opportunity_id,
                "opportunity_in": lead.opportunity_in,
            }
            for lead in made.leads
        ],
        "staff": [contact.id for contact in made.staff],
    }
