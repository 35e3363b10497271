"""For which clients vendors and leads are kept in step, and how: the table `crm_clients`.

Functions on a connection, in the caller's transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from ghl_pipeline.crm.custom_fields import FieldKeys, normal_key
from ghl_pipeline.database.tables import clients, crm_clients
from ghl_pipeline.errors import InvalidInput
from ghl_pipeline.locations.clients import find_client


class CrmOff(InvalidInput):
    """The location's client is not switched on, so that its vendors and leads are nobody's to change."""


@dataclass(frozen=True, slots=True)
class CrmClient:
    """A client as it is kept in step.

    Attributes:
        client_id: `clients.id`.
        location_id: the client's location.
        enabled: whether it is kept in step at all.
        discover: whether vendors and new leads that only GHL knows are looked for.
        field_keys: as configured: our name of a value to the key of the field that holds it.
        changes_seen_until: contacts changed before then are in step; None before the first full pass.
        full_pass_at: when a pass that can see deletions last ended.
    """

    client_id: int
    location_id: str
    enabled: bool
    discover: bool
    field_keys: Mapping[str, str]
    changes_seen_until: datetime | None
    full_pass_at: datetime | None

    @property
    def keys(self) -> FieldKeys:
        """Which field holds which value, those that are not configured included. Raises InvalidInput."""
        return FieldKeys.of(self.field_keys)


def set_crm(
    connection: Connection,
    which: str,
    *,
    enabled: bool | None = None,
    discover: bool | None = None,
    field_keys: Mapping[str, str] | None = None,
) -> CrmClient:
    """Stores how a client is kept in step; what is not given stays as it is, or is the default at first.

    Other fields, or a first look for who is unknown, concern contacts that have not changed since: the next run is a
    full pass then. So is the first after a time in which the client was off.

    Args:
        connection: in the caller's transaction.
        which: the client, as for `find_client`.
        enabled: on unless it is switched off here.
        discover: likewise.
        field_keys: in place of all that are configured; empty: every field has our own name as its key.

    Raises:
        UnknownClient: as `find_client`.
        InvalidInput: a name that is not one of ours, or a blank key.
    """
    client = find_client(connection, which)
    values: dict[str, object] = {}
    if enabled is not None:
        values["enabled"] = enabled
    if discover is not None:
        values["discover"] = discover
    if field_keys is not None:
        FieldKeys.of(field_keys)
        values["field_keys"] = {normal_key(name): key.strip() for name, key in field_keys.items()}
    before = find_crm_client(connection, client.location_id)
    connection.execute(insert(crm_clients).values(client_id=client.id, **values).on_conflict_do_nothing())
    if before is not None and values:
        if any(getattr(before, name) != value for name, value in values.items()):
            values |= {"changes_seen_until": None, "full_pass_at": None}
        connection.execute(update(crm_clients).where(crm_clients.c.client_id == client.id).values(values))
    found = find_crm_client(connection, client.location_id)
    assert found is not None  # noqa: S101 - it was written above
    return found


def find_crm_client(connection: Connection, location_id: str) -> CrmClient | None:
    """How the location's client is kept in step; None when it never was."""
    table = crm_clients
    row = connection.execute(
        select(
            table.c.client_id,
            clients.c.location_id,
            table.c.enabled,
            table.c.discover,
            table.c.field_keys,
            table.c.changes_seen_until,
            table.c.full_pass_at,
        )
        .join(clients, clients.c.id == table.c.client_id)
        .where(clients.c.location_id == location_id)
    ).one_or_none()
    return None if row is None else CrmClient(**row._mapping)


def crm_client(connection: Connection, location_id: str) -> CrmClient:
    """How the location's client is kept in step.

    Raises:
        CrmOff: it is not; says how to switch it on.
    """
    client = find_crm_client(connection, location_id)
    if client is None or not client.enabled:
        raise CrmOff(
            f"Location {location_id} is not switched on for keeping vendors and leads in step, so nothing was asked "
            f"and nothing written. To switch it on: ghl-pipeline clients set-crm {location_id} --on"
        )
    return client


def switched_on(connection: Connection) -> frozenset[str]:
    """The locations that are switched on, whether or not they can be worked on now."""
    query = (
        select(clients.c.location_id)
        .join(crm_clients, crm_clients.c.client_id == clients.c.id)
        .where(crm_clients.c.enabled)
    )
    return frozenset(connection.execute(query).scalars())


def why_left_out(connection: Connection, location_ids: Sequence[str]) -> dict[str, str]:
    """Of the locations, those whose clients are not to be kept in step, with the reason and the way out."""
    on = switched_on(connection)
    query = select(clients.c.location_id).where(clients.c.location_id.in_(location_ids), ~clients.c.active)
    inactive = frozenset(connection.execute(query).scalars())
    why = {
        each: f"not switched on; to do so: ghl-pipeline clients set-crm {each} --on"
        for each in location_ids
        if each not in on
    }
    return why | {
        each: f"its client is deactivated; to resume: ghl-pipeline clients reactivate {each}"
        for each in location_ids
        if each in inactive
    }


def crm_locations(connection: Connection) -> list[str]:
    """The locations of active clients that have a token and are switched on, in the order in which they were added."""
    query = (
        select(clients.c.location_id)
        .join(crm_clients, crm_clients.c.client_id == clients.c.id)
        .where(clients.c.active, clients.c.ghl_token_encrypted.is_not(None), crm_clients.c.enabled)
        .order_by(clients.c.id)
    )
    return list(connection.execute(query).scalars())
