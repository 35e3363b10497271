"""Who works in a location: the record, and how `GET /users/` shows it."""

import msgspec

from ghl_pipeline.sandbox.responses import JsonObject


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who works in the location. Those who are staff are often contacts of it as well."""

    id: str
    first_name: str
    last_name: str
    email: str
    phone: str


def user_item(user: User, location_id: str) -> JsonObject:
    """The user as the list of users shows them."""
    return {
        "id": user.id,
        "name": f"{user.first_name} {user.last_name}",
        "firstName": user.first_name,
        "lastName": user.last_name,
        "email": user.email,
        "phone": user.phone,
        "extension": "",
        "roles": {"type": "account", "role": "admin", "locationIds": [location_id]},
    }
