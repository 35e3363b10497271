"""Hydration on request: one lead at once, or every client's leads (Sync All). The same rules, no list, no history.

Both say whether leads were updated, whatever else happened or did not happen. What events need of hydration is here
too: some leads of a location together, and leads whose contact came with the event.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sqlalchemy import Engine, text

from ghl_pipeline.database.rows import as_array
from ghl_pipeline.errors import UnknownClient
from ghl_pipeline.ghl.errors import GhlError, TransientGhlError
from ghl_pipeline.ghl.payloads import Contact
from ghl_pipeline.hydration.hydration import Hydration, RunResult
from ghl_pipeline.hydration.lookup import ContactLookup
from ghl_pipeline.hydration.matching import normal_address
from ghl_pipeline.hydration.merge import ContactFields
from ghl_pipeline.hydration.options import Options
from ghl_pipeline.hydration.outcomes import Outcome, flag_names
from ghl_pipeline.hydration.pull import ask_about_nobody
from ghl_pipeline.hydration.resolve import LeadKey, Resolution, resolve_page
from ghl_pipeline.hydration.work_list import ELIGIBLE_REASONS
from ghl_pipeline.hydration.write_back import Written, write_back
from ghl_pipeline.locations.clients import LocationAccess
from ghl_pipeline.orchestration.blocking import in_thread
from ghl_pipeline.orchestration.reports import NoHistory

# Makes one lead of two of a client that contacts, by id and own e-mail, show to be one person; blocking. Returns the
# leads that are no more, each with the one that it has become part of. Only events may do so: a backfill never deletes.
Unite: TypeAlias = Callable[[int, Iterable[tuple[str, str | None]]], Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class LeadSync:
    """What became of one lead. `lead_updated` is true when anything was written into it."""

    lead_id: int
    location_id: str
    outcome: Outcome
    lead_updated: bool
    fields: tuple[str, ...]
    requests: int


async def sync_lead(hydration: Hydration, lead_id: int) -> LeadSync:
    """Resolves and hydrates one lead now. Needs no lease: the rows' own locks keep it apart from a running backfill.

    Raises:
        UnknownClient: there is no such lead, or its client is not usable (inactive, no token).
        GhlError: its lookup failed; nothing was written.
    """
    location_id, key = _find_lead(hydration.engine, lead_id)
    async with hydration.open_location(location_id, interactive=True) as (access, client, knowledge):
        lookup = ContactLookup(client, knowledge.group_size, knowledge, confirm_misses=True)
        page = await resolve_page([key], lookup)
    if page.errors:
        raise page.errors[0]
    (written,) = write_back(hydration.engine, access.client_id, access.default_region, page.resolutions)
    return LeadSync(
        lead_id, location_id, written.outcome, bool(written.filled), flag_names(written.filled), client.usage.calls
    )


@dataclass(frozen=True, slots=True)
class LeadsSync:
    """What became of leads that were hydrated together. Every lead asked for is in exactly one of the two.

    `failed` holds the error of a lead whose lookup failed, while the location answers. `united`: the leads that have
    become part of another one, each with that one; what became of it is what became of them.
    """

    leads: Mapping[int, LeadSync] = field(default_factory=dict)
    failed: Mapping[int, GhlError] = field(default_factory=dict)
    requests: int = 0
    united: Mapping[int, int] = field(default_factory=dict)


async def hydrate_leads(
    hydration: Hydration, location_id: str, lead_ids: Collection[int], *, unite: Unite | None = None
) -> LeadsSync:
    """Looks up leads of a location in groups, on the slots kept for what people wait for, and fills their fields.

    A lead that lacks nothing costs no request, unless GHL said that its contact is deleted. One that is not the
    location's, or is no more, is unchanged. With `unite`, leads that are one person become one before they are filled.

    Raises:
        UnknownClient, InvalidInput, ConfigurationError: the location cannot be worked on.
        GhlError: the location as a whole refuses, or GHL is down.
    """
    keys = await in_thread(_keys_of_leads, hydration.engine, location_id, lead_ids)
    synced = {lead_id: LeadSync(lead_id, location_id, Outcome.UNCHANGED, False, (), 0) for lead_id in lead_ids}
    if not keys:
        return LeadsSync(synced)
    async with hydration.open_location(location_id, interactive=True) as (access, client, knowledge):
        page = await resolve_page(keys, ContactLookup(client, knowledge.group_size, knowledge, confirm_misses=True))
        if any(isinstance(error, TransientGhlError) for error in page.errors):
            # Of few leads nobody can tell from their failures alone whether GHL is down.
            await ask_about_nobody(client)
        requests = client.usage.calls
    united, resolutions = await in_thread(_unite, hydration.engine, access, page.resolutions, unite)
    written = await in_thread(write_back, hydration.engine, access.client_id, access.default_region, resolutions)
    failed = {lead.lead_id: page.errors[0] for lead in written if lead.outcome is Outcome.FAILED}
    synced |= {lead.lead_id: _lead_sync(lead, location_id) for lead in written}
    for kept in united.values():
        unchanged = LeadSync(kept, location_id, Outcome.UNCHANGED, False, (), 0)
        synced[kept] = replace(synced.get(kept, unchanged), lead_updated=True)
    leads = {id_: synced[united.get(id_, id_)] for id_ in lead_ids if id_ not in failed}
    return LeadsSync(leads, failed, requests, united)


def _unite(
    engine: Engine, access: LocationAccess, resolutions: Sequence[Resolution], unite: Unite | None
) -> tuple[Mapping[int, int], Sequence[Resolution]]:
    """Unites leads; returns which, and the resolutions for the leads as they are afterwards."""
    contacts = {r.contact.contact_id: r.contact for r in resolutions if r.contact is not None}
    united = unite(access.client_id, [(c.contact_id, c.email) for c in contacts.values()]) if unite else {}
    if not united:
        return {}, resolutions
    kept = set(united.values())
    others = [r for r in resolutions if r.key.lead_id not in united and r.key.lead_id not in kept]
    # Unless somebody took its link away just now, each has that of the contact that showed who it is.
    keys = _keys_of_leads(engine, access.location_id, kept, every=True)
    of_united = [
        Resolution(key, Outcome.UNCHANGED, contact, normal_address(key.email))
        for key in keys
        if (contact := contacts.get(key.contact_id or ""))
    ]
    return united, [*others, *of_united]


def hydrate_from_contacts(engine: Engine, location_id: str, told: Sequence[tuple[int, Contact]]) -> dict[int, LeadSync]:
    """Fills leads that are linked to a contact from that contact as an event told it, without a request.

    Only leads of the location whose link is that contact's id are touched, and nothing is remembered as a lookup.

    Args:
        engine: the dashboard database.
        location_id: whose leads.
        told: lead ids, each with its contact; each lead once.

    Returns:
        What became of each lead.
    """
    keys = {key.lead_id: key for key in _keys_of_leads(engine, location_id, [id_ for id_, _ in told], every=True)}
    resolutions = [
        Resolution(
            keys[lead_id],
            Outcome.UNCHANGED,
            ContactFields(
                contact.id, contact.email, contact.phone, contact.first_name, contact.last_name, contact.company_name
            ),
            normal_address(keys[lead_id].email),
        )
        for lead_id, contact in told
        if lead_id in keys and keys[lead_id].contact_id == contact.id
    ]
    with engine.connect() as connection:
        client = connection.execute(
            text("SELECT id, default_region FROM clients WHERE location_id = :location_id"),
            {"location_id": location_id},
        ).one_or_none()
    written = write_back(engine, client.id, client.default_region, resolutions, looked_up=False) if client else []
    unchanged = {lead_id: LeadSync(lead_id, location_id, Outcome.UNCHANGED, False, (), 0) for lead_id, _ in told}
    return unchanged | {lead.lead_id: _lead_sync(lead, location_id) for lead in written}


async def check_answers(hydration: Hydration, location_id: str) -> None:
    """Asks the location a small question: tells what fails for one lead from a location where everything does.

    Raises:
        UnknownClient, InvalidInput, ConfigurationError: the location cannot be worked on.
        GhlError: it does not answer.
    """
    async with hydration.open_location(location_id, interactive=True) as (_, client, _):
        await ask_about_nobody(client)


def _lead_sync(lead: Written, location_id: str) -> LeadSync:
    return LeadSync(lead.lead_id, location_id, lead.outcome, bool(lead.filled), flag_names(lead.filled), 0)


async def sync_all(hydration: Hydration, location_ids: Sequence[str], options: Options) -> RunResult:
    """Hydrates all eligible leads of locations straight away, without list, resume point or history."""
    return await hydration.run(location_ids, NoHistory(), replace(options, direct=True))


def _find_lead(engine: Engine, lead_id: int) -> tuple[str, LeadKey]:
    query = text("""
        SELECT client.location_id, lead.ghl_contact_id, lead.email
        FROM leads AS lead JOIN clients AS client ON client.id = lead.client_id
        WHERE lead.id = :lead_id
    """)
    with engine.connect() as connection:
        row = connection.execute(query, {"lead_id": lead_id}).one_or_none()
    if row is None:
        raise UnknownClient(f"UnknownClient: there is no lead {lead_id}. Check the id in the dashboard's leads table.")
    return row.location_id, LeadKey(lead_id, lead_id, row.ghl_contact_id, row.email, needs_names=True)


def _keys_of_leads(
    engine: Engine, location_id: str, lead_ids: Collection[int], *, every: bool = False
) -> list[LeadKey]:
    """The location's leads with these ids that lack something or may have lost their contact; `every`: all of them."""
    query = text(f"""
        SELECT lead.id, lead.ghl_contact_id, lead.email
        FROM leads AS lead JOIN clients AS client ON client.id = lead.client_id
        WHERE client.location_id = :location_id AND lead.id = ANY(CAST(:ids AS bigint[]))
          AND (:every OR lead.contact_deleted_at IS NOT NULL OR {ELIGIBLE_REASONS} <> 0)
        ORDER BY lead.id
    """)  # noqa: S608 - the expression is a constant of ours
    values = {"location_id": location_id, "ids": as_array(lead_ids), "every": every}
    with engine.connect() as connection:
        rows = connection.execute(query, values).all()
    return [LeadKey(row.id, row.id, row.ghl_contact_id, row.email, needs_names=True) for row in rows]
