"""Which locations a command works on, from its `--location` and `--client` options."""

from collections.abc import Sequence

from sqlalchemy import Engine

from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import active_locations, find_client


def chosen_locations(engine: Engine, locations: Sequence[str], clients: Sequence[str]) -> list[str]:
    """The location ids asked for, each once; all active ones when none is asked for.

    Raises:
        UnknownClient: a name or id that no client has.
        InvalidInput: a client asked for is deactivated.
    """
    with engine.connect() as connection:
        if not locations and not clients:
            return active_locations(connection)
        found = [find_client(connection, which) for which in (*locations, *clients)]
    for client in found:
        if not client.active:
            raise InvalidInput(
                f"Client {client.id} (location {client.location_id}) is deactivated, so nothing works on it. "
                f"Reactivate it with: ghl-pipeline clients reactivate {client.location_id}"
            )
    return list(dict.fromkeys(client.location_id for client in found))
